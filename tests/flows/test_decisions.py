"""Decisions hold: bound to bytes, dated, signed, not by the one who asked; overrides stay; pruning is safe."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from features.errors import ApprovalPending, ArtifactError, GateRefused, UsageError
from flows import approval, notify, signing
from flows.lease import alive, bury
from flows.paths import Home
from flows.prune import needed
from flows.registry import DONE, RUNNING, Registry
from serving.rollout import read_rollout


def write_run(registry: Registry, run: str, verdict: str = "pass", by: str = "Ann", status: str = DONE) -> str:
    """A run's directory as a retrain leaves it, small."""
    place = registry.home.runs / run
    place.mkdir(parents=True)
    manifest = {"content": {"verdict": verdict, "model_version": f"v-{run}", "bento": f"homeranker:{run}"}}
    (place / "manifest.json").write_text(json.dumps(manifest))
    (place / "report.html").write_text("<p>report</p>")
    (place / "verdict.json").write_text(json.dumps({"verdict": verdict}))
    registry.write_record(
        {"run": run, "status": status, "by": by, "verdict": verdict, "started_at": f"2026-01-01T00:00:{run[-2:]}Z"}
    )
    registry.seal(run)
    return run


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    for name in (signing.SIGNING_KEY, signing.TRUSTED_KEYS):
        monkeypatch.delenv(name, raising=False)
    return Registry(Home(tmp_path / "home"))


def approve(registry: Registry, run: str, by: str = "Bea", why: str = "better") -> dict[str, Any]:
    return approval.decide(registry, run, approval.APPROVED, by, why, self_approval=False)


def test_where_approval_is_required_promote_waits_until_somebody_approves(registry: Registry) -> None:
    run = write_run(registry, "r01")
    with pytest.raises(ApprovalPending, match=f"homeranker approve {run}"):
        registry.promote(run, approval_required=True)
    approve(registry, run)
    assert registry.promote(run, approval_required=True)["run"] == run
    assert registry.pointer("champion")["version"] == f"v-{run}"  # type: ignore[index]


def test_a_rejected_run_is_not_promoted_and_a_later_approval_lifts_it(registry: Registry) -> None:
    run = write_run(registry, "r01")
    approval.decide(registry, run, approval.REJECTED, "Bea", "prices look wrong", self_approval=False)
    with pytest.raises(GateRefused, match="rejected by Bea: prices look wrong"):
        registry.promote(run, approval_required=False)
    approve(registry, run)
    registry.promote(run, approval_required=False)


@pytest.mark.parametrize("name", approval.BOUND_TO)
def test_a_changed_byte_voids_the_approval(registry: Registry, name: str) -> None:
    run = write_run(registry, "r01")
    approve(registry, run)
    victim = registry.run_dir(run) / name
    victim.write_text(victim.read_text().replace("p", "P", 1))
    found, reason = approval.newest(registry, run)
    assert found is None and f"{name} changed since" in reason
    with pytest.raises((ApprovalPending, GateRefused, ArtifactError, KeyError)):
        registry.promote(run, approval_required=True)
    assert registry.pointer("champion") is None


def test_an_approval_holds_14_days(registry: Registry) -> None:
    run = write_run(registry, "r01")
    decided = approve(registry, run)
    for days, void in ((13.9, False), (14.1, True)):
        old = decided | {"decided_at": (datetime.now(UTC) - timedelta(days=days)).isoformat()}
        assert bool(approval.void(old, registry.run_dir(run))) is void


@pytest.mark.parametrize("by", ["Ann", " ann ", "ANN"])
def test_who_started_a_run_cannot_approve_it_unless_the_parameter_says_so(registry: Registry, by: str) -> None:
    run = write_run(registry, "r01", by="Ann")
    with pytest.raises(UsageError, match="started by Ann"):
        approve(registry, run, by=by)
    approval.decide(registry, run, approval.REJECTED, by, "my mistake", self_approval=False)
    approval.decide(registry, run, approval.APPROVED, by, "alone at night", self_approval=True)


@pytest.mark.parametrize(("by", "why"), [("", "reason"), ("Bea", " ")])
def test_a_decision_needs_a_name_and_a_reason(registry: Registry, by: str, why: str) -> None:
    with pytest.raises(UsageError, match="--by NAME and --why TEXT"):
        approve(registry, write_run(registry, "r01"), by=by, why=why)


def test_an_override_goes_past_the_gate_and_shows_for_ever(registry: Registry) -> None:
    run, fine = write_run(registry, "r01", verdict="cannot tell"), write_run(registry, "r02")
    with pytest.raises(GateRefused, match="cannot tell"):
        registry.promote(run, approval_required=False)
    with pytest.raises(UsageError, match="--why"):
        registry.promote(run, approval_required=True, override={"by": "Bea", "why": ""})
    registry.promote(run, approval_required=True, override={"by": "Bea", "why": "old model is broken"})
    assert registry.pointer("champion")["override"]["by"] == "Bea"  # type: ignore[index]
    registry.promote(fine, approval_required=False)
    kinds = [(line["kind"], line.get("why")) for line in registry.lines()]
    assert ("override", "old model is broken") in kinds
    assert "override" not in registry.pointer("champion")  # type: ignore[operator]


def test_an_override_never_goes_past_changed_bytes(registry: Registry) -> None:
    run = write_run(registry, "r01")
    (registry.run_dir(run) / "verdict.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"verdict.json: changed"):
        registry.promote(run, approval_required=False, override={"by": "Bea", "why": "hurry"})


def test_a_signed_approval_is_proved_elsewhere_and_a_forged_one_is_not(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, keys, elsewhere = write_run(registry, "r01"), tmp_path / "keys", tmp_path / "trusted"
    private, public = signing.make_keys(keys, "bea")
    signing.make_keys(keys, "mallory")
    assert private.stat().st_mode & 0o077 == 0
    elsewhere.mkdir()
    (elsewhere / public.name).write_bytes(public.read_bytes())
    monkeypatch.setenv(signing.TRUSTED_KEYS, str(elsewhere))
    approve(registry, run)
    assert "it is not signed" in approval.newest(registry, run)[1]
    monkeypatch.setenv(signing.SIGNING_KEY, str(keys / "mallory.key"))
    approve(registry, run)
    assert "not among the trusted" in approval.newest(registry, run)[1]
    monkeypatch.setenv(signing.SIGNING_KEY, str(private))
    approve(registry, run)
    assert approval.newest(registry, run)[0] is not None
    lines = registry.log.read_text().replace('"by": "Bea"', '"by": "Eve"')
    registry.log.write_text(lines)
    assert "does not fit its content" in approval.newest(registry, run)[1]
    with pytest.raises(UsageError, match="there is a key of this name"):
        signing.make_keys(keys, "bea")


def test_prune_never_takes_what_champion_previous_or_a_reviewer_need(registry: Registry) -> None:
    runs = [write_run(registry, f"r{n:02d}") for n in range(1, 7)]
    registry.promote(runs[0], approval_required=False)
    registry.promote(runs[1], approval_required=False)
    stays = needed(registry, keep=0)
    assert stays == {runs[1]: "champion", runs[0]: "previous", runs[5]: "passed and waits for a decision"}
    assert set(needed(registry, keep=2)) == {runs[0], runs[1], runs[4], runs[5]}


def test_a_canary_stands_beside_the_champion_until_it_is_promoted_or_taken_back(registry: Registry) -> None:
    one, two = write_run(registry, "r01"), write_run(registry, "r02")
    with pytest.raises(UsageError, match="there is no champion"):
        registry.roll_out(two, "canary", 5, approval_required=False)
    registry.promote(one, approval_required=False)
    with pytest.raises(UsageError, match="is the champion"):
        registry.roll_out(one, "canary", 5, approval_required=False)
    with pytest.raises(UsageError, match="a share lies above 0"):
        registry.roll_out(two, "canary", 0, approval_required=False)
    with pytest.raises(ApprovalPending):
        registry.roll_out(two, "shadow", 5, approval_required=True)
    registry.roll_out(two, "canary", 5, approval_required=False)
    found = read_rollout(registry.home.root)
    assert found is not None and (found.mode, found.share, found.version) == ("canary", 5, f"v-{two}")
    assert needed(registry, keep=0)[two] == "rollout"
    registry.promote(two, approval_required=False)
    assert read_rollout(registry.home.root) is None


def test_a_killed_run_is_marked_failed_within_its_lease(registry: Registry) -> None:
    """A real process holds a lease and is killed; nobody has to start another retrain to learn it."""
    run = write_run(registry, "r01", status=RUNNING)
    script = (
        "import sys, time; from pathlib import Path; from flows.lease import alive\n"
        "with alive(Path(sys.argv[1]), 0.1):\n    print('up', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", script, str(registry.run_dir(run))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}) as process:
        assert process.stdout is not None and process.stdout.readline()
        time.sleep(0.5)
        assert bury(registry, lease_s=5.0) == []
        process.kill()
    time.sleep(1.2)
    assert bury(registry, lease_s=1.0) == [run]
    assert registry.record(run)["status"] == "failed"
    assert bury(registry, lease_s=1.0) == []
    with alive(registry.run_dir(run), 10):
        assert (registry.run_dir(run) / "lease").exists()
    assert not (registry.run_dir(run) / "lease").exists()


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A real HTTP server that fails twice, then takes what it gets."""
    got: list[tuple[str, bytes]] = []
    statuses = iter([503, 500])

    class Take(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = next(statuses, 204)
            if status == 204:
                got.append((self.headers[notify.SIGNATURE], body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Take) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", got
        server.shutdown()


def test_a_notice_is_tried_again_and_signed(
    receiver: tuple[str, list[tuple[str, bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, got = receiver
    monkeypatch.setattr(notify, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setenv(notify.URL, url)
    monkeypatch.setenv(notify.KEY, "shared secret")
    assert notify.tell("run failed", run="r01", error="disk full")
    [(signature, body)] = got
    assert signature == notify.signature(body, "shared secret")
    assert json.loads(body)["event"] == "run failed" and json.loads(body)["error"] == "disk full"


def test_a_webhook_that_is_away_fails_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(notify, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setenv(notify.URL, "http://127.0.0.1:9/")
    assert not notify.tell("run failed", run="r01")
    assert "nobody was told" in capsys.readouterr().err
