"""Schedules with a real Prefect server and worker: it fires, runs, publishes; a server that goes away loses no run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from serving.package import free_port
from tests.flows.checkout import Checkout, make_checkout

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@contextmanager
def prefect_server(home: Path) -> Iterator[tuple[dict[str, str], subprocess.Popen[bytes]]]:
    """(variables that lead to it, the process)."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    variables = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api,
        "PREFECT_UI_API_URL": api,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    home.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(words, env=os.environ | variables, stdout=log, stderr=log)
        try:
            until(lambda: answers(f"{api}/health"), 180)
            yield variables, process
        finally:
            process.terminate()
            process.wait(30)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3):
            return True
    except OSError:
        return False


def until(check: Callable[[], Any], seconds: float, pause: float = 0.5) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(pause)
    raise AssertionError(f"not within {seconds} s")


def artifacts(api: str, key: str) -> list[dict[str, Any]]:
    body = json.dumps({"artifacts": {"key": {"any_": [key]}}}).encode()
    request = urllib.request.Request(f"{api}/artifacts/filter", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())
        return found


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    return make_checkout(tmp_path)


def test_a_schedule_fires_runs_and_publishes(
    fresh: Checkout, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with prefect_server(tmp_path / "prefect") as (variables, _):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        soon = datetime.now(UTC) + timedelta(seconds=100)
        cron = f"{soon.minute} {soon.hour} * * *"
        status, told, err = fresh.run("schedule", "--cron", cron, "--data", str(shop), "--json")
        assert status == 0, err
        assert isinstance(told, dict) and set(told["deployments"]) == {"retrain", "watch", "wait-for-approval"}
        words = [sys.executable, "-m", "prefect", "worker", "start", "--pool", told["pool"], "--type", "process"]
        with (tmp_path / "worker.log").open("wb") as log:
            worker = subprocess.Popen(words, cwd=fresh.root, env=fresh.environment(), stdout=log, stderr=log)
            try:
                run = until(lambda: next((one for one in runs(fresh) if one["status"] == "done"), None), 900, 5)
            finally:
                worker.terminate()
                worker.wait(60)
        assert run["by"] == "schedule"
        assert len([one for one in runs(fresh) if one["status"] == "done"]) == 1
        [report, *_] = artifacts(variables["PREFECT_API_URL"], "retrain-report")
        assert "NDCG@10" in report["data"]


def runs(checkout: Checkout) -> list[dict[str, Any]]:
    status, told, err = checkout.run("status", "--json")
    assert status == 0, err
    assert isinstance(told, dict)
    found: list[dict[str, Any]] = told["runs"]
    return found


def test_a_server_that_goes_away_in_mid_run_loses_nothing(
    fresh: Checkout, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with prefect_server(tmp_path / "prefect") as (variables, server):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        process = fresh.start("retrain", "--data", str(shop))
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(" clean"):
                break
        server.kill()
        rest = process.communicate(timeout=900)[1]
        assert process.returncode in (0, 3), rest
    assert [one["status"] for one in runs(fresh)] == ["done"]


def test_a_server_that_is_away_at_the_start_and_a_lost_database_stop_nothing(
    checkout: Checkout, first_run: dict[str, Any], shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    again = checkout.retrain(shop, "--force")
    assert again["manifest_hash"] == first_run["manifest_hash"]
    monkeypatch.delenv("PREFECT_API_URL")
    for path in (checkout.home / "prefect").glob("prefect.db*"):
        path.unlink()
    assert {one["status"] for one in runs(checkout)} == {"done"}
    last = checkout.retrain(shop, "--force")
    assert last["manifest_hash"] == first_run["manifest_hash"]


def test_the_waiting_flow_reads_the_same_record_as_the_command_line(
    checkout: Checkout, first_run: dict[str, Any], tmp_path: Path
) -> None:
    run = first_run["run"]
    script = f"from flows.schedule import wait_for_approval as w; print(w({run!r}, 300, 0.5, return_state=True).name)"
    words = [sys.executable, "-c", script]
    with prefect_server(tmp_path / "prefect") as (variables, _):
        waiting = subprocess.Popen(
            words, cwd=checkout.root, env=checkout.environment() | variables, stdout=subprocess.PIPE, text=True
        )
        until(lambda: artifacts(variables["PREFECT_API_URL"], "waiting-for-approval"), 120)
        assert waiting.poll() is None
        status, _, err = checkout.run("approve", run, "--by", "Bea", "--why", "better than counting")
        assert status == 0, err
        said = waiting.communicate(timeout=120)[0]
    assert said.split()[-1] == ("Promoted" if first_run["verdict"] == "pass" else "Rejected")
    status, lines, _ = checkout.run("history", "--json")
    assert "approved" in [line.get("decision") for line in lines]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cron", "every night"], "every night"),
        (["--cron", "0 3 * * *", "--timezone", "Mars/Olympus"], "Mars"),
        (["--cron", "0 3 * * *", "--data", "nowhere"], "homeranker import"),
        (["--cron", "0 3 * * *"], "PREFECT_API_URL is not set"),
    ],
)
def test_a_wrong_schedule_is_refused_with_the_remedy(checkout: Checkout, words: list[str], says: str) -> None:
    status, _, err = checkout.run("schedule", *words)
    assert status == 2, err
    assert says in err
