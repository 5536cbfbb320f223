"""Retrains that start by themselves: by the clock, on new data, on drift. EDGE: Prefect.

Choices. Two deployments in one process work pool: `retrain`, by cron, and `watch`, every few minutes, which marks dead
runs as failed and sends the events `homeranker.new-data` and `homeranker.drift`; automations answer both with the
retrain deployment. The kernel's lock, not Prefect, keeps two runs apart: a retrain that finds another one at work ends
as skipped. Entry points are modules, so that a worker imports the same code as the command line.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.events import DeploymentEventTrigger, emit_event
from prefect.states import Completed, Failed

from features.errors import ApprovalPending, BusyError, GateRefused, HomerankerError, UsageError
from flows import approval, config, lease, workspace
from flows.paths import REPOSITORY, Home
from flows.registry import Registry
from flows.runs import Request, resolve, start
from serving.erasure import Erased

POOL, NAME = "homeranker", "homeranker"
NEW_DATA, DRIFT = "homeranker.new-data", "homeranker.drift"
DRIFT_REST = timedelta(days=1)
RESOURCE = {"prefect.resource.id": "homeranker.shop"}
CARRIED = ("HOMERANKER_", "PREFECT_API_URL", "OMP_", "PATH", "PYTHONPATH")


def quiet(_stage: str, _progress: dict[str, Any] | None) -> None:
    """A listener for runs that nobody watches; Prefect shows their tasks."""


@flow(name="scheduled-retrain", persist_result=False)
def retrain(data: str, promote: bool = True, why: str = "schedule") -> Any:
    """One retrain, promoted where the gate passes it and nobody has to approve; the state says what came of it."""
    registry = Registry(Home.from_environment())
    try:
        outcome = start(registry.home, Request(data=data, by="schedule", why=why), quiet)
    except BusyError as error:
        return Completed(message=f"skipped: {error}", name="Skipped")
    except HomerankerError as error:
        return Failed(message=str(error))
    run = outcome.record["run"]
    _publish(registry, run)
    if outcome.unchanged:
        return Completed(message=f"nothing changed since run {run}", name="Unchanged")
    if outcome.record["verdict"] != "pass":
        return Completed(message=f"run {run}: the gate said {outcome.record['verdict']}", name="Refused")
    return _promoted(run) if promote else Completed(message=f"run {run} passed")


def _promoted(run: str) -> Any:
    from flows.commands.decisions import promote_run

    try:
        promote_run(run, as_json=True, quiet=True)
    except ApprovalPending as error:
        return Completed(message=str(error), name="AwaitingApproval")
    except GateRefused as error:
        return Completed(message=str(error), name="Rejected")
    return Completed(message=f"run {run} is the champion", name="Promoted")


def _publish(registry: Registry, run: str) -> None:
    report = registry.run_dir(run) / "report.md"
    if report.exists():
        create_markdown_artifact(report.read_text(), key="retrain-report", description=f"run {run}")


@flow(name="wait-for-approval", persist_result=False)
def wait_for_approval(run: str, timeout_s: float = 86_400.0, every_s: float = 5.0) -> Any:
    """Running in Prefect's UI as long as nobody decided; reads the same record as the command line, then promotes."""
    import time

    registry = Registry(Home.from_environment())
    run = registry.run_dir(run).name
    words = f"Run `{run}` waits.\n\n```\nhomeranker report {run}\nhomeranker approve {run} --by NAME --why TEXT\n```\n"
    create_markdown_artifact(words, key="waiting-for-approval", description=f"run {run}")
    end = time.monotonic() + timeout_s
    while True:
        decided, why_not = approval.newest(registry, run)
        if decided is not None:
            return _promoted(run)
        if time.monotonic() >= end:
            return Completed(message=f"run {run} still waits: {why_not}", name="StillWaiting")
        time.sleep(every_s)


@flow(name="watch", persist_result=False)
def watch(data: str, on_new_data: bool = True, on_drift: bool = True) -> dict[str, Any]:
    """Bury the dead, look for new data and for drift, and send the events that start a retrain."""
    registry = Registry(Home.from_environment())
    told: dict[str, Any] = {"dead": lease.bury(registry, config.load(REPOSITORY / "params.yaml").run.lease_s)}
    if on_new_data and is_new(registry, data):
        emit_event(NEW_DATA, resource=RESOURCE, payload={"data": data})
        told["event"] = NEW_DATA
    if on_drift and registry.pointer("champion") is not None:
        from flows.monitor import look

        told["alarms"] = look(registry)["alarms"]
        if told["alarms"] and _rested(registry):
            emit_event(DRIFT, resource=RESOURCE, payload={"alarms": told["alarms"][:5]})
    return told


def _rested(registry: Registry) -> bool:
    """Whether the newest run began long enough ago that drift may ask for another one."""
    runs = registry.runs()
    return not runs or datetime.now(UTC) - datetime.fromisoformat(runs[-1]["started_at"]) > DRIFT_REST


def is_new(registry: Registry, data: str) -> bool:
    """Whether the newest run, however it ended, saw other data, code or parameters than there are now."""
    params, source, _ = resolve(Request(data=data))
    now = workspace.hash_input(params, source, Erased.read(registry.home.root).fingerprint())
    runs = registry.runs()
    return not runs or runs[-1]["input_hash"] != now


def deploy(cron: str, data: str, promote: bool, timezone: str, watch_minutes: int) -> dict[str, Any]:
    """Make pool and deployments on the server of PREFECT_API_URL; UsageError where it is away or cron is wrong."""
    import asyncio

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.deployments.runner import EntrypointType  # type: ignore[attr-defined]
    from prefect.schedules import Cron

    resolve(Request(data=data))
    try:
        CronSchedule(cron=cron)
    except ValueError as error:
        raise UsageError(
            f'--cron {cron!r} is no cron line: write minute, hour, day, month and weekday, as "0 3 * * *" for every day'
            " at three"
        ) from error
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValueError as error:
        raise UsageError(f"--timezone {timezone!r} is no time zone: write UTC, or as Europe/Berlin") from error
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        raise UsageError(
            "PREFECT_API_URL is not set: a schedule lives in a Prefect server. Start one (`prefect server start`), "
            "then PREFECT_API_URL=http://127.0.0.1:4200/api homeranker schedule ..."
        )

    async def make_pool() -> None:
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"), overwrite=True)

    try:
        asyncio.run(make_pool())
    except Exception as error:  # whatever the client makes of a server that is away
        raise HomerankerError(f"no Prefect server answers at {address} ({type(error).__name__}); start it") from error
    shared: dict[str, Any] = {
        "work_pool_name": POOL,
        "entrypoint_type": EntrypointType.MODULE_PATH,
        "job_variables": {"working_dir": str(REPOSITORY), "env": _environment()},
    }
    triggers: Any = [DeploymentEventTrigger(name=one, expect={one}, match=dict(RESOURCE)) for one in (NEW_DATA, DRIFT)]
    job: dict[str, Any] = {"data": data, "promote": promote}
    deployments: dict[str, Any] = {
        "retrain": retrain.to_deployment(
            NAME, schedule=Cron(cron, timezone=timezone), parameters=job, triggers=triggers, **shared
        ),
        "watch": watch.to_deployment(NAME, interval=60 * watch_minutes, parameters={"data": data}, **shared),
        "wait-for-approval": wait_for_approval.to_deployment(NAME, **shared),
    }
    return {"pool": POOL, "deployments": {name: str(one.apply()) for name, one in deployments.items()}}


def _environment() -> dict[str, str]:
    """What a worker's runs need of this shell; keys and passwords stay in the worker's own environment."""
    secret = ("KEY", "KEYS", "PASSWORD", "REDIS_URL", "WEBHOOK_URL")
    carried = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    kept = {name: value for name, value in carried.items() if not name.endswith(secret)}
    return kept | {"HOMERANKER_HOME": str(Home.from_environment().root)}


def work() -> int:
    """A worker of the pool in the foreground until Ctrl-C; its exit status."""
    import subprocess
    import sys

    words = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
    return subprocess.call(words, cwd=Path(REPOSITORY))
