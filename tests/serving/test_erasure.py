"""An erasure is about what came before it: all of that goes, soon, and nothing else does."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from features.errors import StoreError
from features.tables import read_table
from serving import answers, erasure
from serving.contract import EventsRequest, HomepageRequest, format_time, now_us
from serving.event_log import EventLog
from serving.export import export_log
from serving.online import OnlineHistory
from serving.params import from_environment
from serving.runtime import Runtime
from serving.tokens import Signer

KEY = {"authorization": "Bearer right"}
SIGNER = Signer(b"a secret")


def event(**fields: Any) -> dict[str, Any]:
    known = {"event_id": uuid.uuid4().hex, "event_time": format_time(now_us()), "event_type": "click"}
    return known | {"item_id": "i001", "session_id": "s"} | fields


@pytest.fixture
def runtime(tmp_path: Path, model_dir: Path) -> Iterator[Runtime]:
    made = Runtime(from_environment({"HOMERANKER_HOME": str(tmp_path)}), model_dir)
    made.start()
    yield made
    made.stop()


def send(runtime: Runtime, *rows: dict[str, Any]) -> dict[str, Any]:
    return answers.events(runtime, EventsRequest(events=list(rows)), now_us())


def live(runtime: Runtime, user: str) -> set[str]:
    found, _ = runtime.live.events(runtime.log, user, "none", (-1, -(2**62)))
    return {one.event_id for one in found}


def done(runtime: Runtime, *receipts: str) -> None:
    end = time.monotonic() + 20
    while any(answers.erasure_receipt(runtime, one)["status"] != "done" for one in receipts):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_came_after_the_answer_is_theirs_anew(runtime: Runtime, tmp_path: Path) -> None:
    old, guest = event(user_id="u", session_id="a"), event(session_id="a")
    send(runtime, old, guest)
    receipt = answers.erase(runtime, "u", now_us())["erasure_id"]
    new, visit = event(user_id="u", session_id="b"), event(session_id="b")
    send(runtime, new, visit)
    asked = HomepageRequest(session_id="b", user_id="u", page_size=6)
    page = answers.homepage(runtime, asked, now_us())
    done(runtime, receipt)
    assert live(runtime, "u") == {new["event_id"]}
    slot = page["modules"][0]["slots"][0]["item_id"]
    assert answers.explain(runtime, page["request_id"], slot, now_us())["item_id"] == slot
    export_log(tmp_path, tmp_path / "out")
    ids = set(read_table(tmp_path / "out", "events")["event_id"].to_pylist())
    assert ids == {new["event_id"], visit["event_id"]}


def test_a_retry_of_an_erased_event_is_a_retry_and_brings_nothing_back(runtime: Runtime) -> None:
    old, other = event(user_id="u"), event(user_id="v")
    send(runtime, old, other)
    done(runtime, answers.erase(runtime, "u", now_us())["erasure_id"])
    told = send(runtime, old, other, event(user_id="u", event_id="fresh"))
    assert (told["accepted"], told["duplicates"]) == (1, 2)
    assert live(runtime, "u") == {"fresh"} and live(runtime, "v") == {other["event_id"]}
    for path in (runtime.home / "log").iterdir():
        assert old["event_id"].encode() not in path.read_bytes(), path.name


def test_events_of_any_age_are_exported_though_somebody_was_erased(runtime: Runtime, tmp_path: Path) -> None:
    old = [event(event_time=at) for at in ("0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z")]
    send(runtime, *old)
    done(runtime, answers.erase(runtime, "nobody", now_us())["erasure_id"])
    report = export_log(tmp_path, tmp_path / "out")
    assert (report.events, report.erased) == (3, 0)


def test_hundreds_of_erasures_take_little_more_than_one(runtime: Runtime) -> None:
    kept = event(user_id="kept")
    send(runtime, kept, *(event(user_id=f"u{n}", session_id=f"s{n}") for n in range(300)))
    receipts = [answers.erase(runtime, f"u{n}", now_us())["erasure_id"] for n in range(300)]
    done(runtime, *receipts)  # 20 s, where one alone takes a fifth of a second
    assert live(runtime, "kept") == {kept["event_id"]}
    assert not any(live(runtime, f"u{n}") for n in range(300))


def test_a_part_that_fails_keeps_the_others_from_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path)

    class Away(OnlineHistory):
        def forget(self, user_id: str) -> None:
            raise StoreError("the store is away")

    asked = erasure.request(log, "u", now_us())
    with pytest.raises(StoreError, match="is away"):
        erasure.perform(log, SIGNER, None, Away(tmp_path, None))
    told = erasure.receipt(log, asked)
    assert told is not None and [step["status"] for step in told["steps"]] == ["done"] * 4 + ["pending"]
    erasure.perform(log, SIGNER, None, OnlineHistory(tmp_path, None))
    told = erasure.receipt(log, asked)
    assert told is not None and told["status"] == "done" and not erasure.is_pending(log)
    log.close()


def test_a_file_that_is_read_all_the_time_is_said_so_and_nothing_is_called_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.store.SHRINK_S", 0.3)
    log = EventLog(tmp_path)
    asked = erasure.request(log, "u", now_us())
    reader = EventLog(tmp_path).store._open()
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM erasures").fetchone()
    with pytest.raises(StoreError, match="read all the time"):
        erasure.perform(log, SIGNER, None, OnlineHistory(tmp_path, None))
    told = erasure.receipt(log, asked)
    assert told is not None and {s["step"]: s["status"] for s in told["steps"]}["event_log"] == "pending"
    reader.execute("COMMIT")
    erasure.perform(log, SIGNER, None, OnlineHistory(tmp_path, None))
    told = erasure.receipt(log, asked)
    assert told is not None and told["status"] == "done"
    log.close()


def test_what_is_sold_out_holds_on_both_workers_while_people_are_erased(pair: str) -> None:
    end = threading.Event()

    def erase() -> None:
        with httpx.Client(base_url=pair, headers=KEY, timeout=30) as client:
            while not end.wait(0.2):
                assert client.delete(f"/v1/users/{uuid.uuid4().hex}").status_code == 202

    def items(page: httpx.Response) -> list[str]:
        return [slot["item_id"] for module in page.json()["modules"] for slot in module["slots"]]

    thread = threading.Thread(target=erase)
    thread.start()
    try:
        for _ in range(3):
            asked = {"session_id": uuid.uuid4().hex, "page_size": 100}
            item = items(httpx.post(f"{pair}/v1/homepage", json=asked, headers=KEY, timeout=30))[0]
            for available in (False, True):
                rows = {"items": [{"item_id": item, "available": available}]}
                httpx.put(f"{pair}/v1/items", json=rows, headers=KEY, timeout=30).raise_for_status()
                if not available:
                    time.sleep(1.0)
                    pages = (httpx.post(f"{pair}/v1/homepage", json=asked, headers=KEY, timeout=30) for _ in range(8))
                    assert not any(item in items(page) for page in pages)
    finally:
        end.set()
        thread.join()


def test_any_id_of_the_contract_can_be_erased(client: httpx.Client) -> None:
    for name in ("a%0Ab", "%0D%0A", "line%0A", "a/b//", "%E2%80%A8", "..%2Fb", "%20"):
        assert client.delete(f"/v1/users/{name}").status_code == 202, name
    assert client.get("/v1/erasures/a%0Ab").json()["detail"] == "no erasure has this id"
