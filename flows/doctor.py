"""Is this machine fit for the job? One line a check, each with its cure."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

from flows.paths import REPOSITORY, Home

# Versions below these have known holes; raised by hand when an advisory is published.
SAFE = {"feast": "0.63", "torch": "2.10", "prefect": "3.6.28", "bentoml": "1.4.39", "fastapi": "0.139"}


def look(home: Home) -> list[dict[str, Any]]:
    """All checks: what, found, ok, cure."""
    checks = [_python(), _disk(home), _memory(), _git(), *_versions(), _lock(), _redis(), _keys()]
    return [{"what": what, "found": found, "ok": ok, "cure": cure} for what, found, ok, cure in checks]


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
