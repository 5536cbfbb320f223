"""A run that lives says so every few seconds; one that fell silent is dead, whatever any server still believes.

Choices. The sign of life is the modification time of a small file in the run's directory: it needs no server, and a
SIGKILL ends it. `status`, `history`, `monitor` and the next retrain mark a silent run as failed, so that nobody waits
for a dead one longer than the lease and the time until somebody looks; a schedule looks every half minute.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.registry import FAILED, LEASE, RUNNING, now

OWN_SERVER = "PREFECT__SERVER_EPHEMERAL"  # set by Prefect in a server that a run started for itself


@contextmanager
def alive(run_dir: Path, every_s: float) -> Iterator[None]:
    """Keep the lease of a run while the block runs; a disk that is full for a moment does not end the run."""
    ended = threading.Event()
    lease = run_dir / LEASE

    def renew() -> None:
        try:
            lease.write_text(f"{os.getpid()}\n")
        except OSError:
            return

    def beat() -> None:
        while not ended.wait(every_s):
            renew()

    renew()
    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        lease.unlink(missing_ok=True)


def silent(run_dir: Path, lease_s: float) -> bool:
    """Whether a run that says "running" has not been heard of for longer than its lease."""
    signs = [path for path in (run_dir / LEASE, run_dir / "record.json") if path.exists()]
    return not signs or time.time() - max(path.stat().st_mtime for path in signs) > lease_s


def bury(registry: Any, lease_s: float) -> list[str]:
    """Mark every run whose process fell silent as failed; their names."""
    dead = []
    for record in registry.runs():
        run_dir = registry.home.runs / record["run"]
        if record["status"] == RUNNING and silent(run_dir, lease_s):
            told = {"status": FAILED, "ended_at": now(), "error": "its process ended without a word (killed?)"}
            registry.write_record(record | told)
            registry.append("failed", run=record["run"], error=told["error"])
            (run_dir / LEASE).unlink(missing_ok=True)
            dead.append(str(record["run"]))
    return dead


def end_orphans(prefect_home: Path) -> list[int]:
    """End Prefect servers that killed runs of this home left behind; only for the holder of the retrain's lock.

    A run that starts its own server ends it too, but a SIGKILL ends the run alone. Returns the process ids.
    """
    import psutil

    ended = []
    for process in psutil.process_iter():
        try:
            told = process.environ()
            mine = told.get("PREFECT_HOME") == str(prefect_home) and told.get(OWN_SERVER) == "1"
            if mine and process.ppid() == 1 and "uvicorn" in " ".join(process.cmdline()):
                process.kill()
                ended.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return ended
