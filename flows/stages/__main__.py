"""`python -m flows.stages NAME`: one stage in the working directory, as dvc.yaml calls it."""

from __future__ import annotations

import sys

from flows.stages import warm

if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    status = warm.hand_over(name)
    if status is not None:
        sys.exit(status)
    from flows.stages.stage import run_and_exit

    run_and_exit(name)
