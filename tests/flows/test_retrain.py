"""The main job as its users run it: a command in a checkout, on real data, with real Prefect, DVC and Bento."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from serving.package import free_port
from tests.flows.checkout import Checkout, ask, git


def test_a_run_ends_with_report_bento_and_costs(checkout: Checkout, first_run: dict[str, Any]) -> None:
    run_dir = checkout.home / "runs" / first_run["run"]
    assert first_run["status"] == "done"
    assert first_run["verdict"] in ("pass", "cannot tell", "refuse")
    assert (run_dir / "bento" / "bento.yaml").exists()
    html = (run_dir / "report.html").read_text()
    assert first_run["verdict"].lower() in html.lower()
    stages = {"import", "validate", "clean", "history", "train_sequence", "train_ranker", "evaluate", "gate", "package"}
    assert stages <= set(first_run["costs"])
    assert all(cost["seconds"] > 0 and cost["peak_mb"] > 50 for cost in first_run["costs"].values())


def test_the_challenger_beats_the_weak_yardsticks_on_the_gate_slice(
    checkout: Checkout, first_run: dict[str, Any]
) -> None:
    metrics = json.loads((checkout.home / "runs" / first_run["run"] / "evaluation" / "metrics.json").read_text())
    for name in ("popular", "recently_popular", "item_knn"):
        assert metrics["models"][name]["challenger_minus"]["ndcg@10"]["low"] > 0, name


def test_with_nothing_changed_a_second_retrain_says_so_within_a_minute(
    checkout: Checkout, first_run: dict[str, Any], shop: Path
) -> None:
    began = time.monotonic()
    again = checkout.retrain(shop)
    assert again["unchanged"] is True
    assert again["run"] == first_run["run"]
    assert time.monotonic() - began < 60


def test_status_knows_the_run_without_prefect(checkout: Checkout, first_run: dict[str, Any]) -> None:
    status, told, _ = checkout.run("status", "--json")
    assert status == 0
    assert isinstance(told, dict)
    assert [run["run"] for run in told["runs"]] == [first_run["run"]]


def test_the_checkout_and_its_branch_are_left_as_they_were(checkout: Checkout, first_run: dict[str, Any]) -> None:
    assert git("status", "--porcelain", cwd=checkout.root) == ""
    assert git("branch", "--show-current", cwd=checkout.root) == "main"
    lock = git("show", f"{first_run['result_commit']}:dvc.lock", cwd=checkout.root)
    assert "train_ranker" in lock
    assert len(git("worktree", "list", cwd=checkout.root).splitlines()) == 1


def test_plain_dvc_repro_in_another_directory_gives_the_same_bytes(
    checkout: Checkout, first_run: dict[str, Any], tmp_path: Path
) -> None:
    """Another clone, another home, no shared cache, no Prefect: the run's commit gives the run's manifest."""
    place = tmp_path / "elsewhere"
    git("clone", "--quiet", "--no-hardlinks", str(checkout.root), str(place), cwd=tmp_path)
    git("checkout", "--quiet", first_run["result_commit"], cwd=place)
    remote = checkout.root / ".dvc" / "cache" / "files" / "md5"
    assert remote.exists()
    there = Checkout(place, tmp_path / "home")
    variables = there.environment()

    def dvc(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words], cwd=place, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    dvc("remote", "add", "--local", "-d", "first", str(checkout.root / ".dvc" / "cache"))
    dvc("pull", "--quiet", "data/input.dvc")
    dvc("repro", "--quiet", "--no-run-cache", "--force")
    mine = json.loads((place / "artifacts" / "package" / "manifest.json").read_text())
    assert mine["content"] == checkout.manifest(first_run["run"])["content"]
    assert mine["hash"] == first_run["manifest_hash"]
    assert "up to date" in dvc("status")


def test_verify_names_the_file_where_one_byte_was_changed(checkout: Checkout, first_run: dict[str, Any]) -> None:
    status, told, _ = checkout.run("verify", first_run["run"], "--json")
    assert (status, told) == (0, {"changed": [], "made_with_differs": []})
    victim = checkout.home / "runs" / first_run["run"] / "model" / "arrays.safetensors"
    kept = victim.read_bytes()
    victim.write_bytes(kept[:-9] + bytes([kept[-9] ^ 1]) + kept[-8:])
    try:
        status, told, _ = checkout.run("verify", first_run["run"], "--json")
    finally:
        victim.write_bytes(kept)
    assert status == 1
    assert isinstance(told, dict)
    assert told["changed"] == ["model/arrays.safetensors: changed since the run ended"]


def test_promote_serve_and_rollback(checkout: Checkout, first_run: dict[str, Any]) -> None:
    if first_run["verdict"] != "pass":
        status, _, err = checkout.run("promote", first_run["run"])
        assert status == 3
        assert first_run["verdict"] in err
        return
    status, told, err = checkout.run("promote", first_run["run"], "--json")
    assert status == 0, err
    assert isinstance(told, dict)
    assert told["version"] == first_run["model_version"]
    port = free_port()
    service = checkout.start("serve", "--port", str(port))
    try:
        model = ask(port, "/v1/model", service)
        assert model["model_version"] == first_run["model_version"]
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0
    status, _, err = checkout.run("rollback")
    assert status == 2
    assert "no previous champion" in err


def test_uncommitted_code_is_refused_with_the_remedy(checkout: Checkout, shop: Path) -> None:
    victim = checkout.root / "models" / "gate.py"
    kept = victim.read_text()
    victim.write_text(kept + "\n# a change\n")
    try:
        status, _, err = checkout.run("retrain", "--data", str(shop))
    finally:
        victim.write_text(kept)
    assert status == 2
    assert "models/gate.py" in err
    assert "git commit" in err


def test_a_misspelled_parameter_is_named(checkout: Checkout) -> None:
    params = checkout.root / "params.yaml"
    kept = params.read_text()
    params.write_text(kept.replace("tune_users:", "tune_user:"))
    git("-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qam", "typo", cwd=checkout.root)
    try:
        status, _, err = checkout.run("retrain")
    finally:
        git("reset", "--quiet", "--hard", "HEAD~1", cwd=checkout.root)
    assert status == 2
    assert "train.tune_user" in err
    assert "did you mean train.tune_users" in err


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["retrain", "--data", "no-such-place"], 2, "homeranker import"),
        (["retrain", "--until", "tomorrow"], 2, "YYYY-MM-DD"),
        (["report", "no-such-run"], 2, "no run 'no-such-run'"),
        (["import", "morse", ".", "out"], 2, "unknown format"),
        (["dance"], 2, "dance"),
    ],
)
def test_wrong_words_exit_with_2_and_say_what_to_do(
    checkout: Checkout, words: list[str], status: int, says: str
) -> None:
    got, _, err = checkout.run(*words)
    assert got == status, err
    assert says in err


def test_help_answers_at_once(checkout: Checkout) -> None:
    checkout.run("--help")
    for command in ([], ["retrain"], ["serve"], ["promote"]):
        began = time.process_time()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "flows.cli", *command, "--help"],
            cwd=checkout.root, env=checkout.environment(), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "Usage" in done.stdout
        slow = ("torch", "prefect", "dvc", "feast", "bentoml", "pandas")
        heavy = [name for name in slow if f" {name}\n" in done.stderr]
        assert heavy == [], f"{command} imports {heavy}: {time.process_time() - began:.2f} s"


def _descendants(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def test_two_retrains_at_once_the_second_says_who_holds_what(checkout: Checkout, first_run: dict[str, Any]) -> None:
    assert first_run["status"] == "done"
    first = checkout.start("retrain", "--force")
    try:
        lock = checkout.home / "retrain.lock"
        for _ in range(200):
            if lock.exists() and str(first.pid) in lock.read_text():
                break
            time.sleep(0.1)
        status, _, err = checkout.run("retrain", "--force")
        assert status == 1
        assert f"process {first.pid}" in err
    finally:
        for pid in [*_descendants(first.pid), first.pid]:
            os.kill(pid, signal.SIGKILL)
        first.wait()


def test_critical_data_stops_the_run_before_training(checkout: Checkout, shop: Path, tmp_path: Path) -> None:
    import shutil

    import pyarrow.parquet as pq

    broken = tmp_path / "broken"
    shutil.copytree(shop, broken)
    victim = sorted(broken.glob("events/*/*.parquet"))[40]
    table = pq.read_table(victim)
    pq.write_table(table.rename_columns(["item" if name == "item_id" else name for name in table.column_names]), victim)
    status, _, err = checkout.run("retrain", "--data", str(broken))
    assert status == 1
    assert "item_id" in err
    assert "Traceback" not in err
    _, told, _ = checkout.run("status", "--json")
    assert isinstance(told, dict)
    assert told["runs"][0]["status"] == "failed"
    assert "train_ranker" not in told["runs"][0].get("costs", {})
