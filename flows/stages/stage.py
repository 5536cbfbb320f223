"""One stage in this process: what it cost, what it has to say where it fails, and its end where its run is gone."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

from features.errors import HomerankerError, UsageError
from flows.stages.run import RUN

COSTS = "HOMERANKER_COSTS"  # a directory for seconds and memory: they are no part of a stage's output
ERRORS = "HOMERANKER_ERRORS"  # a file for what a failed stage has to say
PARENT = "HOMERANKER_PARENT"  # the process of the run: without it the stage ends


def _watch_parent() -> None:
    """A run that was killed must not leave a stage behind that goes on for minutes."""
    run, parent = Path(f"/proc/{os.environ[PARENT]}"), os.getppid()
    while run.exists() and os.getppid() == parent:
        time.sleep(1.0)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # and whom it started
    os._exit(1)


def _note_costs(name: str, started: float) -> None:
    peak_kb = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    told = {"seconds": round(time.monotonic() - started, 2), "peak_mb": round(peak_kb / 1024, 1)}
    directory = Path(os.environ[COSTS])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(told))


def _tell(kind: str, message: str) -> None:
    if ERRORS in os.environ:
        Path(os.environ[ERRORS]).write_text(json.dumps({"kind": kind, "message": message}))


def main(name: str) -> int:
    """Run the stage; the exit status is the error's."""
    started = time.monotonic()
    if PARENT in os.environ and Path("/proc").exists():
        threading.Thread(target=_watch_parent, daemon=True).start()
    try:
        if name not in RUN:
            raise UsageError(f"no stage {name!r}; one of {', '.join(RUN)}")
        RUN[name]()
    except HomerankerError as error:
        print(f"{name}: {error}", file=sys.stderr)
        _tell(type(error).__name__, str(error))
        return error.exit_code
    except Exception as error:
        # An error of ours: trying again would not help, and the trace belongs to the log, not to the message.
        traceback.print_exc()
        _tell(
            "HomerankerError", f"stage {name} broke, which is an error of homeranker: {type(error).__name__}: {error}"
        )
        return 1
    finally:
        if COSTS in os.environ:
            _note_costs(name, started)
    return 0


def run_and_exit(name: str) -> NoReturn:
    """The stage, and the end of this process with its status."""
    status = main(name)
    sys.stdout.flush()
    sys.stderr.flush()
    # DuckDB prints pages of "leaked" at a usual exit although nothing is lost: everything is written and closed here.
    os._exit(status)
