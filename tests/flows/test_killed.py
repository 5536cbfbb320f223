"""Runs that end badly: a SIGKILL in each stage while the champion is served, and a stage that hangs."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows.lease import end_orphans
from serving.package import free_port
from tests.flows.checkout import AUTHOR, Checkout, ask, git, make_checkout

STAGES = ("import", "validate", "clean", "history", "train_sequence", "train_ranker", "evaluate", "gate", "package")


def _kill_when(process: subprocess.Popen[str], said: str) -> None:
    """SIGKILL the command (not its children) when it has said something on stderr."""
    assert process.stderr is not None
    for line in process.stderr:
        if said in line:
            break
    time.sleep(0.7)
    process.kill()
    process.wait()


def _served_by_a_champion(place: Path, shop: Path) -> tuple[Checkout, dict[str, Any]]:
    """A checkout whose champion was trained an epoch less than what its parameters now ask for."""
    fresh = make_checkout(place)
    params = fresh.root / "params.yaml"
    kept = params.read_text()
    params.write_text(kept.replace("epochs: 4", "epochs: 3"))
    git(*AUTHOR, "commit", "-qam", "the champion's parameters", cwd=fresh.root)
    champion = fresh.retrain(shop)
    status, _, err = fresh.run("promote", champion["run"], "--override", "--by", "test", "--why", "to be served")
    assert status == 0, err
    params.write_text(kept)
    git(*AUTHOR, "commit", "-qam", "the challenger's parameters", cwd=fresh.root)
    return fresh, champion


@contextmanager
def _asked_all_the_time(checkout: Checkout) -> Iterator[list[tuple[int, str]]]:
    """The champion's Bento, asked for a page three times a second: (status, model version) of each answer."""
    port, over, heard = free_port(), threading.Event(), list[tuple[int, str]]()
    service = checkout.start("serve", "--port", str(port))

    def pages() -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/homepage",
            json.dumps({"user_id": "12748", "session_id": "s"}).encode(),
            {"Content-Type": "application/json"},
        )
        while not over.wait(0.3):
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    heard.append((answer.status, json.loads(answer.read())["model_version"]))
            except OSError as error:
                heard.append((getattr(error, "code", 0), str(error)))

    shopper = threading.Thread(target=pages)
    try:
        ask(port, "/v1/model", service)
        shopper.start()
        yield heard
        over.set()
        shopper.join()
    finally:
        over.set()
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_in_every_stage_it_ends_with_the_same_hashes_and_the_champion_is_served_throughout(
    shop: Path, tmp_path: Path
) -> None:
    """One home, one SIGKILL in each stage in turn; every start goes on from the last finished stage."""
    (tmp_path / "killed").mkdir()
    killed, champion = _served_by_a_champion(tmp_path / "killed", shop)
    shutil.copytree(tmp_path / "killed", tmp_path / "spared", symlinks=True)
    spared = Checkout(tmp_path / "spared" / "checkout", tmp_path / "spared" / "home").retrain(shop)
    with _asked_all_the_time(killed) as heard:
        for stage in [*STAGES, "report", "finish"]:
            process = killed.start("retrain", "--data", str(shop))
            _kill_when(process, f" {stage}\n")
        told = killed.retrain(shop)
    assert told["manifest_hash"] == spared["manifest_hash"]
    assert told["model_version"] != champion["model_version"]
    assert len(heard) > 100
    assert set(heard) == {(200, champion["model_version"])}
    assert end_orphans(killed.home / "prefect") == []  # no killed run left its server behind
    status, listed, _ = killed.run("status", "--json")
    assert status == 0
    assert isinstance(listed, dict)
    assert listed["champion"]["run"] == champion["run"]
    assert listed["runs"][0]["status"] == "done"
    assert {run["status"] for run in listed["runs"][1:]} == {"failed"}  # the last few are listed


@pytest.mark.slow
def test_a_stage_that_takes_too_long_is_ended_and_the_parameter_is_named(shop: Path, tmp_path: Path) -> None:
    slow = make_checkout(tmp_path)
    params = slow.root / "params.yaml"
    params.write_text(params.read_text().replace("free_disk_mb: 1", "free_disk_mb: 1\n  stage_timeout_s: 2"))
    git("-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qam", "hurry", cwd=slow.root)
    process = slow.start("retrain", "--data", str(shop))
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert "run.stage_timeout_s" in said
    assert _descendants_of(slow.root) == []


def _descendants_of(place: Path) -> list[int]:
    import psutil

    at = [(one.pid, one.info["cwd"]) for one in psutil.process_iter(["cwd"])]
    return [pid for pid, cwd in at if cwd and Path(cwd).is_relative_to(place.parent)]
