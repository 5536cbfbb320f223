"""Old runs away, but never what champion, previous or a person still needs; the register keeps their story.

Choices. A pruned run leaves its record and manifest behind (a few kB), so `status` and `history` stay whole; its
files, its branch and the cache objects that no other branch names go. The champion, the one before it, the newest
runs and passed runs that wait for a decision stay. It takes the retrain's lock, because a cache must not shrink under
a run.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from flows import workspace
from flows.paths import REPOSITORY
from flows.registry import FAILED, MANIFEST, RECORD, ROLLOUT, Registry, held

KEPT = (RECORD, MANIFEST)


def needed(registry: Registry, keep: int) -> dict[str, str]:
    """Run -> why it stays."""
    stays: dict[str, str] = {}
    records = [one for one in registry.runs() if not one.get("pruned")]
    finished = [one["run"] for one in records if one["status"] != FAILED]
    stays |= dict.fromkeys(finished[len(finished) - keep :], f"one of the newest {keep}") if keep else {}
    for name in ("previous", "champion", ROLLOUT):
        pointer = registry.pointer(name)
        if pointer is not None:
            stays[pointer["run"]] = name
    promoted = {line["run"] for line in registry.lines() if line["kind"] == "promote"}
    rejected = {line["run"] for line in registry.lines() if line.get("decision") == "rejected"}
    for one in records[-1:]:
        if one.get("verdict") == "pass" and one["run"] not in promoted | rejected:
            stays.setdefault(one["run"], "passed and waits for a decision")
    return stays


def prune(registry: Registry, keep: int, dry_run: bool = False) -> dict[str, Any]:
    """Remove what nobody needs; {"removed", "kept", "freed_mb"}. BusyError while a retrain is under way."""
    with held(registry.home.lock, "a retrain"):
        stays = needed(registry, keep)
        gone = [one for one in registry.runs() if one["run"] not in stays and not one.get("pruned")]
        freed = 0
        for record in gone:
            run_dir = registry.home.runs / record["run"]
            freed += size_of(run_dir)
            if not dry_run:
                registry.append("pruned", run=record["run"])
                registry.write_record(record | {"pruned": True, "summary": []})
                _empty(run_dir)
                _drop_branch(record["run"])
        if gone and not dry_run:
            freed += _collect_garbage()
    return {"removed": [one["run"] for one in gone], "kept": stays, "freed_mb": round(freed / 2**20, 1)}


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _empty(run_dir: Path) -> None:
    for path in run_dir.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in KEPT:
            path.unlink()


def _drop_branch(run: str) -> None:
    if workspace.git("branch", "--list", f"run/{run}"):
        workspace.git("branch", "--quiet", "-D", f"run/{run}")


def _collect_garbage() -> int:
    """Drop cache objects that no branch names; returns the bytes."""
    cache = REPOSITORY / ".dvc" / "cache"
    before = size_of(cache) if cache.exists() else 0
    workspace.dvc("gc", "--quiet", "--force", "--all-branches", cwd=REPOSITORY)
    return before - (size_of(cache) if cache.exists() else 0)
