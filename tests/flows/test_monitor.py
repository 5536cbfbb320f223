"""The monitor: silent on a shop that stayed the same; each thing that moved is an alarm of its own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.errors import UsageError
from flows.monitor import look
from flows.online import WATERMARK
from flows.paths import Home
from flows.registry import Registry, replace_json
from serving.contract import EventRow, format_time
from serving.event_log import Arrival, EventLog

DAY_US = 86_400_000_000
PROFILE = {"rows_by_day": {"2026-01-01": 4000}, "counts": {"platform": {"web": 3000, "ios": 1000}}, "nulls": {}}


def shop(
    home: Path, *, ios: float = 0.25, told: float = 0.7, drop: bool = False, shift: float = 0.0, pages: int = 1800
) -> Registry:
    """Three days of a champion's pages: greed has a propensity of .7 in truth, `told` is what the log says."""
    rng, registry, log = np.random.default_rng(3), Registry(Home(home)), EventLog(home)
    place = home / "runs" / "r1"
    (place / "model").mkdir(parents=True)
    (place / "model" / "manifest.json").write_text(json.dumps({"trained_until": "2026-01-01T00:00:00Z"}))
    profile = {**PROFILE, "rows": 4000, "log_price_mean": None}
    (place / "validation.json").write_text(json.dumps({"profile": profile}))
    registry.write_record({"run": "r1", "status": "done", "started_at": "2026-01-01T00:00:00Z"})
    replace_json(home / "registry" / "champion", {"run": "r1", "version": "v1"})
    replace_json(home / "online" / WATERMARK, {"watermark": "2026-01-01T00:00:00+00:00"})
    now_us, rows = int(time.time() * 1e6), []
    for number in range(pages):
        day = number // 600
        at_us, request = now_us - (3 - day) * DAY_US + 40_000_000 * (number % 600) + 1, f"q{number}"
        slots = []
        for position in (1, 2, 3):
            explored = bool(rng.random() > 0.7)
            chance = 1 - told if explored else told
            score = float(rng.normal()) + (shift if day == 2 else 0.0)
            slots.append(("for_you", position, f"i{position}", score, chance, explored, False))
        slate: dict[str, Any] = {"surface": "home", "model_version": "v1", "slots": slots, "state": None}
        log.add_slate(request, at_us, "u", "s", slate)
        platform = "ios" if rng.random() < ios else "web"
        kind = "click" if rng.random() < (0.05 if drop and day == 2 else 0.5) else "search"
        told_row = {"event_id": f"e{number}", "event_time": format_time(at_us), "event_type": kind, "user_id": "u"}
        item = None if kind == "search" else "i1"
        row = EventRow(**told_row, item_id=item, request_id=request, platform=platform)
        rows.append(Arrival(row, True, f"e{number}".encode()))
    log.append(rows, now_us).result()
    log.close()
    return registry


def test_a_shop_that_stayed_the_same_gives_no_alarm(tmp_path: Path) -> None:
    told = look(shop(tmp_path))
    measured = {one["what"]: one["value"] for one in told["measures"]}
    assert told["alarms"] == []
    assert measured["mean weight"] == pytest.approx(1, abs=0.05)
    assert measured["psi platform"] < 0.05 and measured["ks score"] < 0.1 and measured["ctr position 1"] > 0.7


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"ios": 0.9}, "platform drifted"),
        ({"told": 0.9}, "the mean weight is"),
        ({"drop": True}, "clicks at position 1 fell"),
        ({"shift": 1.0}, "scores drifted"),
    ],
)
def test_what_moved_is_named(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    alarms = look(shop(tmp_path, **changed))["alarms"]
    assert len(alarms) == 1 and alarms[0].startswith(says), alarms


def test_an_empty_online_store_is_an_alarm_and_no_champion_is_an_error(tmp_path: Path) -> None:
    registry = shop(tmp_path)
    (tmp_path / "online" / WATERMARK).unlink()
    assert look(registry)["alarms"] == ["no history is in the online store; homeranker promote fills it"]
    with pytest.raises(UsageError, match="there is no champion"):
        look(Registry(Home(tmp_path / "other")))


def test_a_champion_that_nobody_has_met_yet_is_looked_at_without_an_error(tmp_path: Path) -> None:
    told = look(shop(tmp_path, pages=0))
    assert (told["events"], told["impressions"]) == (0, 0)
