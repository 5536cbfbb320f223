"""A worktree for each run: the committed code and parameters, this run's inputs, one shared DVC cache.

Choices. A run never works in the checkout: two runs cannot meet, an orphan of a killed run cannot write into the next
one, and what a run learned from is a commit. Uncommitted code or parameters are refused, because a result that nobody
can name again is worth nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from features.errors import SourceError, UsageError
from flows.forget import forget_erased
from flows.paths import CHAMPION_INPUT, DATA_INPUT, REPOSITORY, Home
from models.checkpoint import sha256_of
from serving.erasure import Erased

DECIDES = ("features", "models", "serving", "flows", "params.yaml", "dvc.yaml", "requirements.lock", "pyproject.toml")
AUTHOR = ("-c", "user.name=homeranker", "-c", "user.email=homeranker@localhost", "-c", "commit.gpgsign=false")


def git(*words: str, cwd: Path = REPOSITORY) -> str:
    """One git command; UsageError with git's own words where it fails."""
    done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"git {words[0]} failed in {cwd}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.rstrip()


def refuse_uncommitted() -> None:
    """UsageError naming the changed files that would decide the result."""
    changed = git("status", "--porcelain", "--", *DECIDES).splitlines()
    if changed:
        names = ", ".join(line[3:] for line in changed[:5]) + (" ..." if len(changed) > 5 else "")
        raise UsageError(
            f"uncommitted code or parameters: {names}; commit them (git add, git commit) or put them aside (git stash)"
        )


def hash_input(params: dict[str, Any], data: Path, erased: str) -> str:
    """One hash over everything that decides a run's bytes, except the champion that it is compared with."""
    tree = git("ls-tree", "HEAD", "--", *DECIDES)
    decisive = {
        **params,
        "data": {name: value for name, value in params["data"].items() if name not in ("path", "as_of")},
    }
    for section in ("run", "monitor"):
        decisive.pop(section, None)
    return hashlib.sha256(json.dumps([tree, decisive, hash_files(data), erased], sort_keys=True).encode()).hexdigest()


def hash_files(path: Path) -> list[tuple[str, str]]:
    """(name, sha256) of a file or of every Parquet, CSV and JSON file below a directory."""
    if path.is_file():
        return [(path.name, sha256_of(path))]
    if not path.is_dir():
        raise SourceError(f"{path}: no such file or directory; --data takes a name or a directory of canonical tables")
    files = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith((".", "_")))
    if not files:
        raise SourceError(f"{path}: the directory is empty; it should hold the canonical tables events/ and items/")
    return [(one.relative_to(path).as_posix(), sha256_of(one)) for one in files]


def prepare(home: Home, run: str, params: dict[str, Any], data: Path | None, champion: Path | None) -> Path:
    """Make the worktree and branch of a run with its inputs committed; returns the worktree.

    `data`: a directory to copy in (None: the data ships with the code). `champion`: the run directory of the champion.
    """
    place = home.work / run
    home.work.mkdir(parents=True, exist_ok=True)
    git("worktree", "prune")
    git("worktree", "add", "--quiet", "-b", f"run/{run}", str(place), "HEAD")
    cache = (REPOSITORY / ".dvc" / "cache").resolve()
    (place / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n    type = hardlink,copy\n")
    (place / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    if data is not None:
        shutil.copytree(data, place / DATA_INPUT, ignore=shutil.ignore_patterns(".*", "_tmp*"))
        forget_erased(place / DATA_INPUT, Erased.read(home.root))
        (place / "data" / ".gitignore").write_text(f"/{DATA_INPUT.name}\n")
        dvc("add", "--quiet", str(DATA_INPUT), cwd=place)
    if champion is not None:
        bring_champion(champion, place / CHAMPION_INPUT)
    git("add", "--all", "params.yaml", "data", cwd=place)
    git(*AUTHOR, "commit", "--quiet", "--allow-empty", "-m", f"Inputs of run {run}", cwd=place)
    return place


def bring_champion(run_dir: Path, place: Path) -> None:
    """The champion as it was judged, what it is and what its data looked like, out of its run into a worktree."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    shutil.copytree(run_dir / "judged", place / "judged")
    told = {"run": run_dir.name, "version": manifest["content"]["model_version"]}
    model = json.loads((run_dir / "model" / "manifest.json").read_text())
    if "trained_until" in model:  # how old its data is decides whether the challenger's may be old
        told["trained_until"] = model["trained_until"]
    policy = run_dir / "policy.json"
    told["page_policy"] = policy.exists() and json.loads(policy.read_text())["learned"]
    (place / "champion.json").write_text(json.dumps(told, sort_keys=True) + "\n")
    profile = json.loads((run_dir / "validation.json").read_text())["profile"]
    (place / "profile.json").write_text(json.dumps(profile, sort_keys=True) + "\n")


def dvc(*words: str, cwd: Path) -> None:
    """One DVC command in a worktree."""
    import sys

    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"dvc {words[0]} failed: {done.stderr.strip() or done.stdout.strip()}")


def commit_result(place: Path, run: str, verdict: str) -> str:
    """Commit dvc.lock on the run's branch; returns the commit."""
    git("add", "--all", "dvc.lock", cwd=place)
    git(*AUTHOR, "commit", "--quiet", "--allow-empty", "-m", f"Run {run}: {verdict}", cwd=place)
    return git("rev-parse", "HEAD", cwd=place)


def clear(home: Home) -> None:
    """Take the worktrees of earlier failed runs away; only for the holder of the lock."""
    for place in sorted(home.work.iterdir()) if home.work.exists() else []:
        shutil.rmtree(place, ignore_errors=True)
    git("worktree", "prune")


def remove(home: Home, run: str) -> None:
    """Take the worktree away; the branch stays."""
    git("worktree", "remove", "--force", str(home.work / run))
