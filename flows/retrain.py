"""The main job as a Prefect flow: one task a stage, as dvc.yaml orders them, in the run's worktree. EDGE: Prefect.

Choices. DVC owns what depends on what: a task runs `dvc repro --single-item STAGE` and nothing else. A stage that says
why it failed failed for good; one that died without a word is tried again. The flow is a view: the run's record is
written by flows/runs.py whatever becomes of the server.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features import errors
from flows.stages.progress import MARK
from flows.stages.warm import warmed

Listen = Callable[[str, dict[str, Any] | None], None]  # (stage, progress or None at its start)


@dataclass(frozen=True)
class Limits:
    """How long a stage may take, and how often and after which pauses one that died is tried again."""

    timeout_s: float
    retries: int
    delay_s: float

    def pause_s(self, attempt: int) -> float:
        """Seconds to wait after an attempt, counted from 0."""
        return float(self.delay_s * 2**attempt)


class StageDied(Exception):
    """A stage ended without saying why: killed, out of memory, or another process in its way."""


def environment(home: Path, run_dir: Path) -> dict[str, str]:
    """Variables of a stage's process."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "HOMERANKER_HOME": str(home),
        "HOMERANKER_COSTS": str(run_dir / "costs"),
        "HOMERANKER_ERRORS": str(run_dir / "error.json"),
        "HOMERANKER_PARENT": str(os.getpid()),
        "HOMERANKER_PROGRESS": "1",
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        "BENTOML_DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "PYTHONHASHSEED": "0",
        "PYTHONWARNINGS": "ignore",
        # Work for two cores is two processes already, and the matrices of one shopper are too small for two threads.
        "OPENBLAS_NUM_THREADS": "1",
        # Threads that wait must not spin: on a shared machine that costs ten times the work itself.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "KMP_BLOCKTIME": "0",
    }


def order(worktree: Path) -> list[str]:
    """The stages in an order that their dependencies allow, as DVC sees them."""
    import networkx
    from dvc.repo import Repo

    with warnings.catch_warnings():  # DVC's about its own libraries; Feast turns them on for everybody
        warnings.simplefilter("ignore", DeprecationWarning)
        graph = Repo(str(worktree)).index.graph
    reverse = networkx.reverse_view(graph)
    names = networkx.lexicographical_topological_sort(reverse, key=lambda stage: str(stage.addressing))
    return [stage.name for stage in names if getattr(stage, "name", None)]


def run_stage(stage: str, worktree: Path, variables: dict[str, str], listen: Listen, timeout_s: float) -> None:
    """One stage by DVC. HomerankerError: it said why; StageDied: it did not."""
    told = Path(variables["HOMERANKER_ERRORS"])
    told.unlink(missing_ok=True)
    listen(stage, None)
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    process = subprocess.Popen(
        command, cwd=worktree, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    late = threading.Event()

    def out_of_time() -> None:
        late.set()
        _end(process)

    clock = threading.Timer(timeout_s, out_of_time)
    clock.start()
    tail: list[str] = []
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        for line in process.stdout:
            if line.startswith(MARK):
                listen(stage, json.loads(line.removeprefix(MARK)))
            else:
                tail = [*tail[-20:], line.rstrip()]
        status = process.wait()
    finally:
        clock.cancel()
        _end(process)
    if late.is_set():
        raise errors.HomerankerError(
            f"stage {stage} took over {timeout_s:g} s and was ended; raise run.stage_timeout_s in params.yaml, or give "
            "it less data (--until) or a quieter machine"
        )
    if status == 0:
        return
    if told.exists():
        failure = json.loads(told.read_text())
        kind = getattr(errors, failure["kind"], errors.HomerankerError)
        raise kind(failure["message"])
    raise StageDied(f"stage {stage} ended with status {status}:\n" + "\n".join(tail[-12:]))


def _end(process: subprocess.Popen[str]) -> None:
    """End DVC and the stage that it started; nothing where both have ended."""
    if process.poll() is not None:
        return
    import psutil

    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()


def prefect_settings(home: Path) -> None:
    """What Prefect reads from the environment; must come before its first import."""
    defaults = {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def walk(
    run: str,
    worktree: Path,
    variables: dict[str, str],
    listen: Listen,
    finish: Callable[[], dict[str, Any]],
    limits: Limits,
) -> dict[str, Any]:
    """All stages, then `finish`: as a Prefect flow, and without Prefect where its server is away or goes away.

    A finished stage is not done again: DVC knows it.
    """
    with warmed(worktree, variables) as variables:
        try:
            return _prefect_walk(run, worktree, variables, listen, finish, limits)
        except Exception as error:
            if not _server_away(error):
                raise
            print(f"Prefect's server is away ({type(error).__name__}); the run goes on without it", file=sys.stderr)
        for stage in order(worktree):
            _patiently(stage, worktree, variables, listen, limits)
        return finish()


def _server_away(error: BaseException | None) -> bool:
    """Whether an error came from the way to Prefect's server and not from a stage."""
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    while error is not None:
        if isinstance(error, errors.HomerankerError | StageDied):
            return False
        if isinstance(error, httpx.TransportError | PrefectHTTPStatusError) or "Failed to reach API" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _patiently(stage: str, worktree: Path, variables: dict[str, str], listen: Listen, limits: Limits) -> None:
    for attempt in range(limits.retries + 1):
        try:
            return run_stage(stage, worktree, variables, listen, limits.timeout_s)
        except StageDied:
            if attempt == limits.retries:
                raise
            time.sleep(limits.pause_s(attempt))
    return None


def _prefect_walk(
    run: str,
    worktree: Path,
    variables: dict[str, str],
    listen: Listen,
    finish: Callable[[], dict[str, Any]],
    limits: Limits,
) -> dict[str, Any]:
    """All stages as tasks of a flow, then `finish` (collect, smoke test, report) as its last."""
    from prefect import flow, task
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    def transient(_task: Any, _run: Any, state: Any) -> bool:
        return isinstance(state.result(raise_on_failure=False), StageDied)

    @task(
        task_run_name="{stage}",
        retries=limits.retries,
        retry_delay_seconds=[limits.pause_s(at) for at in range(limits.retries)],
        retry_condition_fn=transient,
        timeout_seconds=limits.timeout_s + 60,  # the stage's own limit comes first, and says what to do
        persist_result=False,
    )
    def one(stage: str) -> None:
        run_stage(stage, worktree, variables, listen, limits.timeout_s)

    @task(task_run_name="finish", persist_result=False)
    def last() -> dict[str, Any]:
        return finish()

    @flow(name="retrain", flow_run_name=run, persist_result=False)
    def retrain() -> dict[str, Any]:
        stages = order(worktree)
        shown: Any = create_progress_artifact(progress=0.0, key="retrain-progress", description=f"run {run}")
        for number, stage in enumerate(stages, start=1):
            one(stage)
            update_progress_artifact(artifact_id=shown, progress=100.0 * number / (len(stages) + 1))
        facts = last()
        _publish(run, facts)
        update_progress_artifact(artifact_id=shown, progress=100.0)
        return facts

    return retrain()


def _publish(run: str, facts: dict[str, Any]) -> None:
    """The report and the metrics as Prefect artifacts, to be read in its UI."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    key = "retrain"
    create_markdown_artifact(key=f"{key}-report", markdown=facts["markdown"], description=f"run {run}")
    create_table_artifact(key=f"{key}-metrics", table=facts["table"], description=f"run {run}")
