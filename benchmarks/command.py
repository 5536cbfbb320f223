"""How a benchmark ends: what is wrong with what it was given is one line and a status, not a trace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from features.errors import HomerankerError


def finish(main: Callable[[], int | None]) -> NoReturn:
    """Run a benchmark's command and end the process with its status."""
    try:
        sys.exit(main())
    except HomerankerError as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
