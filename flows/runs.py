"""One retrain from the outside: checks, the lock, the worktree, the walk, what is kept, the record.

Choices. The record of a run is written before it starts and after it ends, whatever happens between; a run whose
process is gone is marked failed by the next one. What a decision needs is copied out of the worktree into the run's
directory and sealed by hashes; the worktree of a finished run is removed, that of a failed one is kept for a look
until the next run.
"""

from __future__ import annotations

import dataclasses
import errno
import getpass
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from features.errors import HomerankerError, UsageError
from flows import config, lease, notify, retrain, workspace
from flows.paths import DATA_INPUT, REPOSITORY, Artifacts, Home
from flows.registry import DONE, FAILED, RUNNING, Registry, held, now
from flows.sources import NAMED_DATA, ONLINE_RETAIL, OPEN_BANDIT, make_tables, open_bandit_tables, place_of
from serving.erasure import Erased

SMOKE_USERS = 2


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asked for."""

    data: str = ONLINE_RETAIL
    until: str | None = None
    by: str = ""
    why: str = "by hand"
    force: bool = False
    settings: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)  # over params.yaml, by section


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A run's end: its record, and whether it was there already."""

    record: dict[str, Any]
    unchanged: bool


def resolve(request: Request) -> tuple[dict[str, Any], Path, bool]:
    """(params of the run, its data, whether the data is copied in)."""
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text()) or {}
    params |= {section: {**(params.get(section) or {}), **values} for section, values in request.settings.items()}
    data = dict(params.get("data") or {})
    if request.until is not None:
        _check_date(request.until)
        data["until"] = request.until
    if not request.data.strip():  # an empty path would be the folder that one stands in
        raise UsageError(f"--data is empty: name one of {', '.join((*NAMED_DATA, OPEN_BANDIT))}, or a directory")
    named = request.data in NAMED_DATA
    if named:
        data["format"], source = place_of(request.data, REPOSITORY)
        data["path"], data["name"] = source.relative_to(REPOSITORY).as_posix(), request.data
    else:
        fetched = request.data == OPEN_BANDIT
        source = Path(request.data).resolve()
        if fetched:
            source = open_bandit_tables(REPOSITORY, Home.from_environment().root / OPEN_BANDIT)
        elif not source.is_dir():
            raise UsageError(
                f"--data {request.data}: neither a known name ({', '.join((*NAMED_DATA, OPEN_BANDIT))}) nor a directory"
                " of canonical tables; other formats become one by `homeranker import FORMAT SRC DEST`"
            )
        data |= {"format": "canonical", "path": DATA_INPUT.as_posix(), "name": source.name}
        if not fetched:  # that data ends in 2019: nothing is said of its freshness
            data["as_of"] = request.until or datetime.now(UTC).date().isoformat()
    params["data"] = data
    config.parse(params, "params.yaml")
    return params, source, not named


def _whoami() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a uid without a name, as in a container
        return f"uid {os.getuid()}"


def _without_erased(home: Home, params: dict[str, Any], source: Path) -> tuple[dict[str, Any], Path | None]:
    """Data that ships with the code is read where it stands, unless somebody was erased from it: then as a copy."""
    erased = Erased.read(home.root)
    if not erased:
        return params, None
    tables = home.work / "without-erased"
    shutil.rmtree(tables, ignore_errors=True)
    make_tables(params["data"]["format"], source, config.parse(params).simulator, tables)
    return params | {"data": params["data"] | {"format": "canonical", "path": DATA_INPUT.as_posix()}}, tables


def _check_date(text: str) -> None:
    try:
        datetime.strptime(text, "%Y-%m-%d")
    except ValueError as error:
        raise UsageError(f"--until {text}: no date; write YYYY-MM-DD (UTC, inclusive)") from error


def start(home: Home, request: Request, listen: retrain.Listen) -> Outcome:
    """Run the main job; returns its record. HomerankerError for what the user can mend."""
    workspace.refuse_uncommitted()
    params, data, copied = resolve(request)
    settings = config.parse(params).run
    registry = Registry(home)
    with held(home.lock, "a retrain"):
        lease.bury(registry, 0.0)  # we hold the lock: whatever still says "running" has lost its process
        lease.end_orphans(home.prefect)
        workspace.clear(home)
        _need_space(home.root, settings.free_disk_mb)
        hashed = workspace.hash_input(params, data, Erased.read(home.root).fingerprint())
        same = [one for one in registry.runs() if one.get("input_hash") == hashed and one["status"] == DONE]
        if same and not request.force:
            return Outcome(same[-1], True)
        run = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        record = {
            "run": run,
            "status": RUNNING,
            "started_at": now(),
            "by": request.by or _whoami(),
            "why": request.why,
            "pid": os.getpid(),
            "input_hash": hashed,
            "data": request.data,
            "until": request.until,
            "commit": workspace.git("rev-parse", "HEAD"),
        }
        registry.write_record(record)
        registry.append("start", run=run, by=record["by"], why=record["why"])
        copy = data if copied else None
        if not copied:
            params, copy = _without_erased(home, params, data)
        with lease.alive(home.runs / run, settings.heartbeat_s):
            return Outcome(_carry_out(registry, record, params, copy, settings, listen), False)


def _carry_out(
    registry: Registry,
    record: dict[str, Any],
    params: dict[str, Any],
    data: Path | None,
    settings: config.RunParams,
    listen: retrain.Listen,
) -> dict[str, Any]:
    home, run, began = registry.home, record["run"], time.monotonic()
    retrain.prefect_settings(home.root)
    try:
        champion = registry.pointer("champion")
        before = registry.home.runs / champion["run"] if champion else None
        worktree = workspace.prepare(home, run, params, data, before)
        variables = retrain.environment(home.root, home.runs / run)

        def finish() -> dict[str, Any]:
            from flows.finish import finish_run

            listen("finish", None)
            return finish_run(registry, record, worktree, time.monotonic() - began)

        limits = retrain.Limits(settings.stage_timeout_s, settings.retries, settings.retry_delay_s)
        facts = retrain.walk(run, worktree, variables, listen, finish, limits)
    except BaseException as error:
        _fail(registry, record, error, time.monotonic() - began)
        explained = _explained(error, home)
        notify.tell("run failed", run=run, error=str(explained).splitlines()[0] if str(explained) else "stopped")
        raise explained from error
    done = record | {
        "status": DONE,
        "ended_at": now(),
        "seconds": round(time.monotonic() - began, 1),
        "verdict": facts["verdict"],
        "bento": facts["bento"],
        "model_version": facts["model_version"],
        "manifest_hash": facts["manifest_hash"],
        "result_commit": workspace.commit_result(worktree, run, facts["verdict"]),
        "costs": facts["costs"],
        "summary": facts["summary"],
    }
    shutil.rmtree(home.checkpoints, ignore_errors=True)  # they served: the weights are in the run
    registry.seal(run)
    registry.write_record(done)
    registry.append("end", run=run, verdict=facts["verdict"], manifest_hash=facts["manifest_hash"])
    workspace.remove(home, run)
    if facts["verdict"] != "pass":
        notify.tell("run refused", run=run, verdict=facts["verdict"])
    return done


def _fail(registry: Registry, record: dict[str, Any], error: BaseException, seconds: float) -> None:
    what = str(error) or type(error).__name__
    ended = {"status": FAILED, "ended_at": now(), "seconds": round(seconds, 1), "error": what[:4000]}
    try:
        registry.write_record(record | ended)
        registry.append("failed", run=record["run"], error=what.splitlines()[0][:300])
    except OSError as full:
        # The disk is full: the record stays "running" and the next start marks it; the first error matters more.
        if full.errno != errno.ENOSPC:
            raise


def _explained(error: BaseException, home: Home) -> BaseException:
    """A full disk in words; everything else as it is."""
    cause: BaseException | None = error
    while cause is not None:
        full = "No space left on device" in str(cause)
        if full or (isinstance(cause, OSError) and cause.errno == errno.ENOSPC):
            free = shutil.disk_usage(home.root).free // 2**20
            return HomerankerError(
                f"{home.root}: the disk is full ({free} MB free); make room (a run needs about 1,500 MB) and start "
                "again: finished stages are kept, the champion serves on"
            )
        cause = cause.__cause__ or cause.__context__
    return error


def _need_space(root: Path, needed_mb: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free // 2**20
    if free < needed_mb:
        raise HomerankerError(f"{root}: {free} MB free, a run needs about {needed_mb} MB; make room and start again")


def costs_of(run_dir: Path) -> dict[str, dict[str, float]]:
    """Stage -> seconds and peak memory; a stage that came from the cache has none."""
    found = {}
    for path in sorted((run_dir / "costs").glob("*.json")):
        found[path.stem] = json.loads(path.read_text())
    return found


def copy_out(worktree: Path, run_dir: Path) -> Artifacts:
    """What a decision and a deployment need, out of the worktree."""
    artifacts = Artifacts(worktree / "artifacts")
    whole = {
        artifacts.package / "bento": "bento",
        artifacts.package / "model": "model",
        artifacts.policy / "judged": "judged",
        artifacts.evaluation: "evaluation",
    }
    for source, name in whole.items():
        shutil.rmtree(run_dir / name, ignore_errors=True)
        shutil.copytree(source, run_dir / name)
    singles = {
        artifacts.package / "manifest.json": "manifest.json",
        artifacts.verdict: "verdict.json",
        artifacts.policy / "policy.json": "policy.json",
        artifacts.validation: "validation.json",
        artifacts.import_report: "import.json",
        artifacts.clean / "cleaning.json": "cleaning.json",
        artifacts.clean / "quarantine.parquet": "quarantine.parquet",
        artifacts.features / "history.parquet": "history.parquet",
    }
    for source, name in singles.items():
        (run_dir / name).unlink(missing_ok=True)
        shutil.copyfile(source, run_dir / name)
    return artifacts
