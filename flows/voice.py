"""The command line's two voices: errors as one sentence with the right exit status, answers as words or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import typer

from features.errors import HomerankerError


def run(app: typer.Typer) -> None:
    """Run the command that was asked for: every error as one sentence, never a traceback for what a user can mend."""
    try:
        status = app(standalone_mode=False)
    except HomerankerError as error:
        _complain(str(error))
        status = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        _complain("stopped; what was finished is kept, the same command goes on from there")
        status = 1
    except OSError as error:
        _complain(f"{error.filename or 'the system'}: {error.strerror or error}")
        status = 1
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        status = getattr(error, "exit_code", 2)
    sys.stdout.flush()
    raise SystemExit(status or 0)


def _complain(text: str) -> None:
    print(f"homeranker: {text}", file=sys.stderr)
    if "--json" in sys.argv:
        print(json.dumps({"error": text}))


def say(as_json: bool, document: Any, words: Callable[[], None]) -> None:
    """The document as JSON on stdout, or the words."""
    if as_json:
        print(json.dumps(document, indent=1, sort_keys=True, default=str))
    else:
        words()
