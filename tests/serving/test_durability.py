"""What a shop's owner may rely on: an accepted event is never lost, and nobody's erased data comes back."""

from __future__ import annotations

import os
import signal
import time
import uuid
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import psutil
import pyarrow.compute as pc
import pytest

from features.tables import read_table
from serving.contract import format_time, now_us
from serving.erasure import NEVER_US, Erased
from serving.export import export_log
from serving.package import served

KEY = {"authorization": "Bearer right"}


def row(**fields: Any) -> dict[str, Any]:
    known = {"event_id": uuid.uuid4().hex, "event_time": format_time(now_us()), "event_type": "view", "item_id": "i001"}
    return {**known, "session_id": "s", **fields}


def kill(process: Any) -> None:
    """SIGKILL the server and all its workers at once, by their ids."""
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    process.wait()


def crash_rounds(bento: Path, home: Path, rounds: int) -> None:
    accepted: list[str] = []
    for _ in range(rounds):
        with served(bento, home) as (base, process):
            batch = [row() for _ in range(50)]
            answer = httpx.post(f"{base}/v1/events", json={"events": batch}, timeout=20)
            kill(process)
            assert answer.json()["accepted"] == 50
            accepted += [one["event_id"] for one in batch]
    export_log(home, home / "out")
    there = set(read_table(home / "out", "events")["event_id"].to_pylist())
    assert set(accepted) <= there
    with served(bento, home) as (base, _):
        again = httpx.post(f"{base}/v1/events", json={"events": [row(event_id=accepted[0])]}, timeout=20)
        assert again.json() == {"accepted": 0, "duplicates": 1, "rejected": []}


def test_accepted_events_survive_sigkill_and_a_repeat_after_the_restart_counts_once(
    bento: Path, tmp_path: Path
) -> None:
    crash_rounds(bento, tmp_path, 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_accepted_events_survive_two_hundred_sigkills(bento: Path, tmp_path: Path) -> None:
    crash_rounds(bento, tmp_path, 200)


def events_of(client: httpx.Client, rows: list[dict[str, Any]]) -> dict[str, Any]:
    answer = client.post("/v1/events", json={"events": rows})
    assert answer.status_code == 202, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_export_closes_the_loop_without_doubles_and_keeps_only_signed_request_ids(
    pair: str, pair_home: Path, tmp_path: Path
) -> None:
    with httpx.Client(base_url=pair, headers=KEY, timeout=20) as client:
        page = client.post("/v1/homepage", json={"session_id": "s1", "user_id": "alice"}).json()
        slot = page["modules"][0]["slots"][0]
        signed = row(user_id="alice", session_id="s1", event_type="click", item_id=slot["item_id"])
        signed |= {"request_id": page["request_id"], "position": 1, "campaign": {"a": [1, "ü"]}}
        forged = row(user_id="bob", request_id="A" * 40)
        events_of(client, [signed, forged])
        client.put("/v1/items", json={"items": [{"item_id": "new-1", "title": "New thing", "price": 2.5}]})
        old = {"Homeranker-Now": "2020-05-05T10:00:00Z"}
        client.post("/v1/homepage", json={"session_id": "s2"}, headers=old)
    time.sleep(0.2)  # slates are logged within milliseconds
    first = export_log(pair_home, tmp_path / "out")
    again = export_log(pair_home, tmp_path / "out")
    assert first == again and first.events >= 2
    events = {one["event_id"]: one for one in read_table(tmp_path / "out", "events").to_pylist()}
    assert events[signed["event_id"]]["request_id"] == page["request_id"]
    assert events[signed["event_id"]]["extra"] == '{"campaign": {"a": [1, "\\u00fc"]}}'
    assert events[forged["event_id"]]["request_id"] is None
    assert events[forged["event_id"]]["posted_request_id"] == "A" * 40
    slates = read_table(tmp_path / "out", "slates")
    mine = slates.filter(pc.equal(slates["request_id"], page["request_id"]))
    assert mine.num_rows == 24 and mine["position"].to_pylist() == list(range(1, 25))
    assert mine["item_id"][0].as_py() == slot["item_id"]
    assert mine["propensity"][0].as_py() == pytest.approx(slot["propensity"])
    assert (tmp_path / "out" / "slates" / "date=2020-05-05").is_dir()
    items = read_table(tmp_path / "out", "items")
    assert items.num_rows >= 201 and "New thing" in items["title"].to_pylist()
    early = export_log(pair_home, tmp_path / "early", until=date(2020, 5, 5))
    assert early.events == 0 and early.slates == 24


def test_an_erased_user_is_gone_everywhere_and_the_others_stay(pair: str, pair_home: Path, tmp_path: Path) -> None:
    home, out = pair_home, tmp_path / "out"
    with httpx.Client(base_url=pair, headers=KEY, timeout=20) as client:
        mine = [row(user_id="alice", session_id="sa-unique"), row(session_id="sa-unique")]
        others = row(user_id="bob", session_id="sb")
        events_of(client, [*mine, others])
        page = client.post("/v1/homepage", json={"session_id": "sa-unique", "user_id": "alice"}).json()
        item = page["modules"][0]["slots"][0]["item_id"]
        why = f"/v1/explanations/{page['request_id']}?item_id={item}"
        assert client.get(why).status_code == 200
        export_log(home, out)
        started = time.monotonic()
        receipt = client.delete("/v1/users/alice").json()["erasure_id"]
        while client.get(f"/v1/erasures/{receipt}").json()["status"] != "done":
            assert time.monotonic() - started < 60
            time.sleep(0.05)
        told = client.get(f"/v1/erasures/{receipt}")
        assert "alice" not in told.text and all(step["at"] for step in told.json()["steps"])
        assert client.get(why).status_code == 404
        back = row(user_id="alice", session_id="later")
        events_of(client, [back])
    report = export_log(home, out)
    events = read_table(out, "events").to_pylist()
    assert report.erased >= 2
    left = {one["event_id"] for one in events}
    assert {back["event_id"], others["event_id"]} <= left and not left & {one["event_id"] for one in mine}
    assert page["request_id"] not in read_table(out, "slates")["request_id"].to_pylist()
    erased = Erased.read(home)
    assert erased.until_us("alice", None) > 0 and erased.until_us(None, "sa-unique") > 0
    assert erased.until_us("bob", None) == NEVER_US
    for path in (home / "log").iterdir():
        assert b"sa-unique" not in path.read_bytes(), path.name
