"""What a person sees while a run works: a bar on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flows.graph import STAGES

Listen = Callable[[str, dict[str, Any] | None], None]
TOTAL = len(STAGES) + 1


def _figures(told: dict[str, Any]) -> str:
    return " ".join(f"{name} {value:g}" for name, value in told["figures"].items())


@contextmanager
def lines() -> Iterator[Listen]:
    """One line a stage and a step, with the seconds since the start."""
    began = time.monotonic()
    count = 0

    def listen(stage: str, told: dict[str, Any] | None) -> None:
        nonlocal count
        at = f"[{time.monotonic() - began:6.1f} s]"
        if told is None:
            count += 1
            print(f"{at} {count}/{TOTAL} {stage}", file=sys.stderr, flush=True)
        else:
            print(
                f"{at}      {told['label']} {told['done']}/{told['total']} {_figures(told)}",
                file=sys.stderr,
                flush=True,
            )

    yield listen


@contextmanager
def bar() -> Iterator[Listen]:
    """A bar over the stages and one for the steps of the running stage."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<34}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(
        *columns, TimeElapsedColumn(), TextColumn("{task.fields[figures]}"), console=Console(stderr=True)
    ) as shown:
        whole = shown.add_task("starting", total=TOTAL, figures="")
        step = shown.add_task("", total=1, figures="", visible=False)
        count = 0

        def listen(stage: str, told: dict[str, Any] | None) -> None:
            nonlocal count
            if told is None:
                shown.update(whole, description=stage, completed=count)
                shown.update(step, visible=False)
                count += 1
            else:
                shown.update(
                    step, description=f"  {told['label']}", completed=told["done"], total=told["total"],
                    figures=_figures(told), visible=True,
                )  # fmt: skip

        yield listen
        shown.update(whole, description="done", completed=TOTAL)
