"""Independent parts of one piece of work, in as many processes as it may use threads; the result is the same.

Choices. Forked, so that the parts' common data is inherited and not copied; a child's torch keeps to one thread, as a
parent's OpenMP does not outlive a fork. Off Linux, where forks are not to be trusted, and with one worker or one part
the work is done here.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

_work: tuple[Callable[[Any], Any], Sequence[Any]] | None = None  # what the children inherit


def spread(task: Callable[[Part], Result], parts: Sequence[Part], workers: int = 1) -> Iterator[Result]:
    """The results in the order of the parts, each as soon as it and those before it are there.

    A result must be picklable where there are workers; an exception of a part is raised here.
    """
    workers = min(workers, len(parts))
    if workers < 2 or sys.platform != "linux":
        yield from map(task, parts)
        return
    global _work  # a fork inherits it; an argument would have to be pickled
    before, _work = _work, (task, parts)
    try:
        with multiprocessing.get_context("fork").Pool(workers, torch.set_num_threads, (1,)) as pool:
            yield from pool.imap(_part, range(len(parts)))
    finally:
        _work = before


def _part(at: int) -> Any:
    assert _work is not None  # noqa: S101 - set before the fork
    task, parts = _work
    return task(parts[at])


def stretches(parts: Sequence[Part], count: int) -> list[Sequence[Part]]:
    """The parts in their order, in at most `count` stretches of about one length; none is empty."""
    size = max(1, -(-len(parts) // max(1, count)))
    return [parts[start : start + size] for start in range(0, len(parts), size)]
