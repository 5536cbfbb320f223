"""Progress of a stage as lines: one JSON object after a mark, which the run turns into a bar; plain words elsewhere."""

from __future__ import annotations

import json
import os
import sys

MARK = "@progress "
BAR = "HOMERANKER_PROGRESS"  # set by a run that reads the marked lines


def tell(label: str, done: int, total: int, figures: dict[str, float] | None = None) -> None:
    """Say that `done` of `total` steps of something are finished."""
    figures = {name: round(value, 5) for name, value in (figures or {}).items()}
    if os.environ.get(BAR):
        line = MARK + json.dumps({"label": label, "done": done, "total": total, "figures": figures})
    else:
        line = f"  {label} {done}/{total} " + " ".join(f"{name} {value:g}" for name, value in figures.items())
    print(line.rstrip(), flush=True, file=sys.stdout)
