"""How much is at work in this worker, and whether one more may come in.

Choices. A short burst may wait in a long line; a line that never empties may only be short, because a longer one serves
nobody sooner. Source: Nichols and Jacobson (2012), CoDel, with the length of the line in place of its delay, which is
known before a request waits. A request counts from when it has been read: hundreds may be read in one turn of the
event loop, before the first of them gets to work.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

from serving.wire import Problem

OVERLOADED = "the service is overloaded"
GRACE_S = 0.25  # how long a line may be long


class Coming:
    """A request that was read and has not got to work yet."""

    def __init__(self, load: Load) -> None:
        self._load, self._counts, self._over = load, False, False

    def read(self) -> None:
        """The whole request is here."""
        if not self._over:
            self._counts = True
            self._load.coming += 1

    def end(self) -> None:
        """It is at work, or was answered without."""
        self._load.coming -= self._counts
        self._counts, self._over = False, True


COMING: ContextVar[Coming | None] = ContextVar("homeranker_coming", default=None)


class Load:
    """Counts requests at work or waiting, `with load: ...`; asked and told in the event loop only."""

    def __init__(self, burst: int, standing: int) -> None:
        self.burst, self.standing = burst, min(standing, burst)
        self.busy, self.coming, self._emptied = 0, 0, 0.0
        self.heard = 0  # connections and pieces of requests that came in

    @property
    def full(self) -> bool:
        """Whether one more would only wait."""
        line = self.busy + self.coming
        if line < self.standing:
            return False
        return line >= self.burst or time.monotonic() - self._emptied > GRACE_S

    def __enter__(self) -> None:
        if coming := COMING.get():
            coming.end()
        if self.full:
            raise Problem(503, OVERLOADED)
        if not self.busy:
            self._emptied = time.monotonic()
        self.busy += 1

    def __exit__(self, *_: object) -> None:
        self.busy -= 1
        if not self.busy:
            self._emptied = time.monotonic()
