"""Is this machine fit for the job? One line a check, each with its cure."""

from __future__ import annotations

import os
import shutil
import sys
import time
import urllib.request
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from features.errors import BusyError
from flows.lease import silent
from flows.paths import REPOSITORY, Home
from flows.registry import RUNNING, Registry, held

# Versions below these have known holes; raised by hand when an advisory is published.
SAFE = {"feast": "0.63", "torch": "2.10", "prefect": "3.6.28", "bentoml": "1.4.39", "fastapi": "0.139"}


def look(home: Home) -> list[dict[str, Any]]:
    """All checks: kind, what, found, ok, cure."""
    checks = {
        "python": [_python()],
        "machine": [_disk(home), _memory(), _clock(), _git()],
        "version": _versions(),
        "lock file": [_lock()],
        "service": [_redis(), _prefect(), _keys(), _signing()],
        "locks": [_retrain(home), *_stale(home)],
    }
    return [
        {"kind": kind, "what": what, "found": found, "ok": ok, "cure": cure}
        for kind, lines in checks.items()
        for what, found, ok, cure in lines
    ]


def _python() -> tuple[str, str, bool, str]:
    ok = sys.version_info[:2] == (3, 11)
    return "Python", sys.version.split()[0], ok, "install Python 3.11 and remove .venv"


def _disk(home: Home) -> tuple[str, str, bool, str]:
    home.root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home.root).free // 2**20
    return "disk", f"{free} MB free at {home.root}", free > 2000, "make room, or point HOMERANKER_HOME elsewhere"


def _memory() -> tuple[str, str, bool, str]:
    total = psutil.virtual_memory().total // 2**20
    return "memory", f"{total} MB", total > 6000, "a retrain needs 4 GB beside what else runs"


def _git() -> tuple[str, str, bool, str]:
    ok = shutil.which("git") is not None and (REPOSITORY / ".git").exists()
    return "git", "a checkout" if ok else "no checkout", ok, "install git and clone the repository"


def _versions() -> list[tuple[str, str, bool, str]]:
    from packaging.version import Version

    found = []
    for name, least in SAFE.items():
        try:
            have = version(name)
        except PackageNotFoundError:
            have = "0"
        ok = Version(have) >= Version(least)
        found.append((name, have, ok, f"needs {least} or newer: remove .venv and run make retrain"))
    return found


def _lock() -> tuple[str, str, bool, str]:
    wrong = []
    for line in (REPOSITORY / "requirements.lock").read_text().splitlines():
        name, _, pinned = line.partition("==")
        if pinned:
            try:
                have = version(name)
            except PackageNotFoundError:
                continue
            if have.split("+")[0] != pinned.split("+")[0]:
                wrong.append(f"{name} {have} instead of {pinned}")
    return "lock file", "; ".join(wrong[:3]) or "as pinned", not wrong, "remove .venv and run make retrain"


def _redis() -> tuple[str, str, bool, str]:
    url = os.environ.get("HOMERANKER_REDIS_URL")
    if not url:
        return "Redis", "not used (HOMERANKER_REDIS_URL is unset)", True, ""
    import redis

    try:
        redis.Redis.from_url(url, socket_timeout=2).ping()
    except redis.RedisError as error:
        return "Redis", type(error).__name__, False, "start redis-server or correct HOMERANKER_REDIS_URL"
    return "Redis", "answers", True, ""


def _keys() -> tuple[str, str, bool, str]:
    many = len(os.environ.get("HOMERANKER_API_KEYS", "").replace(",", " ").split())
    return "API keys", f"{many} set" if many else "none: the service binds to 127.0.0.1 only", True, ""


def _clock() -> tuple[str, str, bool, str]:
    """Events are refused where they lie in the future, so a clock that is behind loses data."""
    newest = max((path.stat().st_mtime for path in (REPOSITORY / ".git").glob("*") if path.is_file()), default=0.0)
    ahead = newest - time.time()
    found = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC" + (
        f", {ahead:.0f} s before its own files" if ahead > 60 else ""
    )
    return "clock", found, ahead <= 60, "set the clock (timedatectl set-ntp true)"


def _prefect() -> tuple[str, str, bool, str]:
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return "Prefect", "no server of its own (PREFECT_API_URL is unset): runs start one", True, ""
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=3):  # noqa: S310 - the user's own server
            return "Prefect", f"answers at {address}", True, ""
    except (OSError, ValueError) as error:
        return (
            "Prefect",
            f"{address}: {error}",
            False,
            "prefect server start, or unset PREFECT_API_URL; runs work without",
        )


def _signing() -> tuple[str, str, bool, str]:
    path = os.environ.get("HOMERANKER_SIGNING_KEY")
    if not path:
        return "signing key", "none: decisions are not signed", True, ""
    ok = os.access(path, os.R_OK) and not Path(path).stat().st_mode & 0o077
    return "signing key", path, ok, f"must exist and be yours alone: chmod 600 {path}"


def _retrain(home: Home) -> tuple[str, str, bool, str]:
    try:
        with held(home.lock, "a retrain"):
            return "retrain lock", "free", True, ""
    except BusyError as error:
        return "retrain lock", str(error).split(";")[0], True, ""


def _stale(home: Home) -> list[tuple[str, str, bool, str]]:
    dead = [
        record["run"]
        for record in Registry(home).runs()
        if record["status"] == RUNNING and silent(home.runs / record["run"], 60.0)
    ]
    return [("dead runs", run, False, "homeranker status marks it failed; then homeranker retrain") for run in dead]
