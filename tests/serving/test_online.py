"""A known user's page starts from their stored history, follows the live log, and forgets after an erasure."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType

import pandas as pd

from features.history import user_history, write_history
from features.store import write_online
from features.views import store_for
from serving import answers
from serving.contract import EventsRequest, format_time, now_us
from serving.params import from_environment
from serving.runtime import Runtime


def test_history_then_live_events_then_erasure(tmp_path: Path, model_dir: Path, shop_data: ModuleType) -> None:
    frame: pd.DataFrame = user_history(shop_data.events_table(20).to_pandas())
    (tmp_path / "online").mkdir()
    history = write_history(frame, tmp_path / "online" / "history.parquet")
    write_online(store_for(tmp_path / "online", offline_path=history), frame)
    runtime = Runtime(from_environment({"HOMERANKER_HOME": str(tmp_path)}), model_dir)
    runtime.start()
    try:
        now = runtime.snapshot
        assert now is not None

        def known(user: str) -> int:
            state, failed = runtime.state(now, user, "s", now_us())
            assert not failed
            return int(state.item_P.size)

        before = known("u1")
        assert before > 0 and known("nobody") == 0
        fifteen_years = 15 * 365 * 86_400_000_000
        later, failed = runtime.state(now, "u2", "s", now_us() + fifteen_years)
        assert not failed and later.item_P.size > 0  # a model of old data knows its users for ever
        old = {
            "event_id": "e",
            "event_time": format_time(0),
            "event_type": "return",
            "item_id": "i001",
            "user_id": "u1",
        }
        assert answers.events(runtime, EventsRequest(events=[old]), now_us())["accepted"] == 1
        assert known("u1") == before + 1
        receipt = answers.erase(runtime, "u1", now_us())["erasure_id"]
        end = time.monotonic() + 20
        while answers.erasure_receipt(runtime, receipt)["status"] != "done":
            assert time.monotonic() < end
            time.sleep(0.05)
        assert known("u1") == 0 and known("u2") > 0
    finally:
        runtime.stop()
