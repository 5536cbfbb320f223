"""Work beside the requests: a thread that does one thing again and again, soon when asked, and outlives its faults."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from features.errors import HomerankerError

Task = Callable[[], None]

logger = logging.getLogger("homeranker")


def attempt(task: Task) -> bool:
    """Run a task; what fails is logged, to be tried again at the next turn."""
    try:
        task()
        return True
    except HomerankerError as error:
        logger.warning("%s: %s", task.__name__.strip("_"), error)
    except Exception as error:  # whoever does this must outlive any fault; it is logged with its trace
        logger.exception("%s failed", task.__name__.strip("_"), exc_info=error)
    return False


class Repeated:
    """A task every `every_s` seconds, and at once after `wake`; `rest_s` after a turn that failed."""

    def __init__(self, name: str, task: Task, every_s: float, rest_s: float = 0.0) -> None:
        self._task, self._every_s, self._rest_s = task, every_s, rest_s
        self._end, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin with the first turn after `every_s`."""
        self._thread.start()

    def wake(self) -> None:
        """Have the next turn now."""
        self._wake.set()

    def stop(self, patience_s: float = 10.0) -> None:
        """Finish the turn that is under way."""
        self._end.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def _run(self) -> None:
        while not self._end.is_set():
            self._wake.wait(self._every_s)
            self._wake.clear()
            if not self._end.is_set() and not attempt(self._task):
                self._end.wait(self._rest_s)
