"""Cleaning: retries, sessions, returns, bots, consent, unknown items and the window, every row accounted for."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import cleaning
from features.cleaning import ITEM_DAYS, CleaningParams, CleaningReport, clean
from features.engine import EngineConfig
from features.errors import SourceError, UsageError
from features.schema import TABLES, arrow_schema
from features.tables import write_rows

T0 = datetime(2011, 5, 1, 12, tzinfo=UTC)
Rows = list[dict[str, Any]]


def event(number: int, minutes: float = 0, kind: str = "purchase", **more: Any) -> dict[str, Any]:
    time = T0 + timedelta(minutes=minutes)
    base = {"event_id": f"e{number:04d}", "event_time": time, "event_type": kind, "user_id": "u", "item_id": "i"}
    return {**base, "session_id": "s", **more}


def table(name: str, rows: Rows) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=arrow_schema(TABLES[name].COLUMNS))


def build(folder: Path, events: Rows, **others: Rows) -> Path:
    others.setdefault("items", [{"item_id": "i"}])
    for name, rows in {"events": events, **others}.items():
        write_rows(folder / "in", name, [table(name, rows)])
    return folder / "in"


def cleaned(folder: Path, events: Rows, **options: Any) -> tuple[CleaningReport, Any]:
    others = {name: options.pop(name) for name in ("items", "users", "slates", "item_vectors") if name in options}
    report = clean(build(folder, events, **others), folder / "out", **options)
    return report, lambda name: pq.read_table(folder / "out" / f"{name}.parquet").to_pylist()


def test_sessions_end_after_thirty_minutes_of_silence(tmp_path: Path) -> None:
    at = [0, 30, 60.01, 61]  # exactly 30 minutes is still one session
    rows = [event(n, minutes, "view", session_id=None) for n, minutes in enumerate(at)]
    rows.append(event(9, 61, "view", session_id="given"))
    rows += [event(20 + n, n, "view", user_id=None, session_id=None) for n in range(2)]
    report, read = cleaned(tmp_path, rows)
    found = {e["event_id"]: e["session_id"] for e in read("events")}
    assert found["e0000"] == found["e0001"] != found["e0002"] == found["e0003"]
    assert found["e0009"] == "given"
    assert found["e0020"] != found["e0021"]
    assert report.sessions_derived == 6 and report.guests == 2


def test_guests_have_a_key_of_their_session(tmp_path: Path) -> None:
    _, read = cleaned(tmp_path, [event(1), event(2, user_id=None, session_id="s7")])
    assert {e["event_id"]: e["user_key"] for e in read("events")} == {"e0001": "u", "e0002": "session:s7"}


def test_a_return_takes_back_what_was_bought_before_and_no_more(tmp_path: Path) -> None:
    rows = [
        event(1, 0, "return", quantity=5),  # bought before the data begin
        event(2, 1, "purchase", quantity=3),
        event(3, 2, "return", quantity=1),
        event(4, 3, "return", quantity=9),
        event(5, 4, "purchase", quantity=None),  # one unit
        event(6, 5, "view"),
        event(7, 6, "return", quantity=1, user_id="other"),
    ]
    _, read = cleaned(tmp_path, rows)
    assert [e["net_quantity"] for e in read("events")] == [0, 3, -1, -2, 1, 0, 0]


def test_rows_are_set_aside_with_their_reason(tmp_path: Path) -> None:
    rows = [
        event(1),
        event(2, item_id="new"),
        event(3, 6),
        event(4, 4),
        event(5, user_id="no"),
        event(6, kind="search", item_id=None),
    ]
    users = [{"user_id": "no", "personalization_consent": False}, {"user_id": "u", "personalization_consent": None}]
    report, read = cleaned(tmp_path, rows, users=users, load_time=T0)
    assert [e["event_id"] for e in read("events")] == ["e0001", "e0006", "e0004"]
    assert report.tables["events"].quarantined == {
        "event_time: in the future": 1,
        "item_id: unknown item": 1,
        "user_id: no consent to personalization": 1,
    }
    aside = {json.loads(row["row"])["event_id"]: row["reason"] for row in read("quarantine")}
    assert aside["e0002"] == "item_id: unknown item"


def test_an_unknown_item_is_used_once_the_catalogue_knows_it(tmp_path: Path) -> None:
    _, read = cleaned(tmp_path, [event(1, item_id="new")], items=[{"item_id": "i"}, {"item_id": "new"}])
    assert [e["item_id"] for e in read("events")] == ["new"]


def test_bots_are_found_by_browsing_not_by_buying_and_can_be_let_in(tmp_path: Path) -> None:
    rows = [event(n, 0, "view", user_id="bot") for n in range(11)] + [event(50, 1, user_id="bot")]
    rows += [event(100 + n, 0, "purchase", user_id="wholesaler") for n in range(700)]
    rows += [event(60, 24 * 60, "view", user_id="bot")]  # the next day
    params = CleaningParams(max_browsing_per_hour=10)
    report, read = cleaned(tmp_path, rows, params=params)
    assert report.tables["events"].quarantined == {"user_id: a bot by the rule of events an hour or day": 12}
    assert {e["event_id"] for e in read("events") if e["user_id"] == "bot"} == {"e0060"}
    off = clean(tmp_path / "in", tmp_path / "off", CleaningParams(bots=False, max_browsing_per_hour=10))
    assert off.tables["events"].rows_out == len(rows)


def test_slates_follow_the_same_rules(tmp_path: Path) -> None:
    slot = {"request_id": "r", "served_at": T0, "user_id": "u", "session_id": "s", "position": 1, "item_id": "i"}
    slates = [slot, {**slot, "position": 2, "item_id": "gone"}, {**slot, "request_id": "q", "user_id": "no"}]
    users = [{"user_id": "no", "personalization_consent": False}]
    report, read = cleaned(tmp_path, [event(1)], slates=slates, users=users)
    assert [(s["request_id"], s["position"], s["user_key"]) for s in read("slates")] == [("r", 1, "u")]
    assert report.tables["slates"].quarantined == {
        "item_id: unknown item": 1,
        "user_id: no consent to personalization": 1,
    }


def test_until_is_a_utc_day_inclusive_and_the_load_time_is_no_clock(tmp_path: Path) -> None:
    rows = [event(1), event(2, 12 * 60 - 0.001), event(3, 12 * 60)]
    report, read = cleaned(tmp_path, rows, until=date(2011, 5, 1))
    assert [e["event_id"] for e in read("events")] == ["e0001", "e0002"]
    assert report.tables["events"].after_until == 1
    assert report.load_time == "2011-05-02T00:00:00+00:00"


def test_daily_aggregates(tmp_path: Path) -> None:
    rows = [
        event(1, 0, "purchase", quantity=3, price=0.1),
        event(2, 1, "return", quantity=1, price=0.1),
        event(3, 2, "view"),
        event(4, 3, "click"),
        event(5, 4, "add_to_cart"),
        event(6, 24 * 60, "purchase", quantity=1, price=2.0),
    ]
    _, read = cleaned(tmp_path, rows)
    first, second = read(ITEM_DAYS)
    assert first == {
        "day": "2011-05-01", "item_id": "i", "views": 1, "clicks": 1, "carts": 1, "purchases": 1, "returns": 1,
        "units": 2, "revenue": 0.2,
    }  # fmt: skip
    assert (second["day"], second["revenue"]) == ("2011-05-02", 2.0)


def test_no_price_is_too_large_to_add_up(tmp_path: Path) -> None:
    prices = (1e18, 1e300, float("inf"), 0.5)
    rows = [event(n, n, "purchase", quantity=2**31 - 1, price=price) for n, price in enumerate(prices)]
    report, read = cleaned(tmp_path, rows)
    (day,) = read(ITEM_DAYS)
    assert report.tables["events"].rows_out == 4 and day["purchases"] == 4
    assert 1e18 < day["revenue"] < float("inf")


def test_rows_written_by_others_with_retries_are_merged(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rows = [event(1, 5), event(1, 3), event(2, 4)]
    pq.write_table(table("events", rows), tmp_path / "in" / "events.parquet")
    pq.write_table(table("items", [{"item_id": "i"}, {"item_id": "i"}]), tmp_path / "in" / "items.parquet")
    report = clean(tmp_path / "in", tmp_path / "out")
    assert report.tables["events"].merged == 1 and report.tables["items"].merged == 1
    times = pq.read_table(tmp_path / "out" / "events.parquet")["event_time"].to_pylist()
    assert times == [T0 + timedelta(minutes=3), T0 + timedelta(minutes=4)]


def test_absent_columns_are_null_and_extra_ones_are_kept(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    columns = {"event_id": ["a"], "event_type": ["view"], "item_id": ["i"], "campaign": ["x"]}
    times = pa.array([T0], pa.timestamp("ms", tz="UTC"))
    pq.write_table(pa.table({**columns, "event_time": times}), tmp_path / "in" / "events.parquet")
    pq.write_table(pa.table({"item_id": ["i"]}), tmp_path / "in" / "items.parquet")
    clean(tmp_path / "in", tmp_path / "out")
    (row,) = pq.read_table(tmp_path / "out" / "events.parquet").to_pylist()
    assert (row["campaign"], row["price"], row["event_time"]) == ("x", None, T0)


def test_a_log_that_does_not_fit_in_memory_is_cleaned_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slates as the service exports them, a kilobyte a row: more than the engine may hold, and in stretches of days."""
    rng = np.random.default_rng(0)
    n = 120_000
    wide = [rng.bytes(400).hex() for _ in range(2000)]
    order = rng.permutation(n)
    source = build(tmp_path / "in", [event(1)])
    slates = pa.table(
        {
            "request_id": [f"r{at // 24}" for at in order], "position": pa.array(order % 24 + 1, pa.int32()),
            "served_at": pa.array([T0 + timedelta(minutes=int(at // 24)) for at in order], pa.timestamp("us", "UTC")),
            "session_id": ["s"] * n, "surface": ["home"] * n, "platform": ["web"] * n, "module": ["for_you"] * n,
            "item_id": ["i"] * n, "score": order.astype(float), "propensity": rng.random(n), "policy": ["p"] * n,
            "model_version": ["m"] * n, "explored": [False] * n,
            "signals": [f"{at} {wide[at % 2000]}" for at in order],
        }
    )  # fmt: skip
    (source / "slates").mkdir()
    pq.write_table(slates, source / "slates" / "part.parquet")
    monkeypatch.setattr(cleaning, "SORTED_ROWS", 20_000)
    late, small = T0 + timedelta(days=30), EngineConfig(memory_limit="60MB")
    report = clean(source, tmp_path / "out", load_time=late, engine=small)
    assert report.tables["slates"].rows_out == n
    found = pq.read_table(tmp_path / "out" / "slates.parquet")
    assert found["score"].to_pylist() == sorted(range(n), key=lambda at: (at // 24, f"r{at // 24}", at % 24))
    assert "signals" not in found.column_names  # the tables keep it, and nobody reads it from here on


def test_missing_tables_and_unknown_engines_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such directory"):
        clean(tmp_path / "nowhere", tmp_path / "out")
    write_rows(tmp_path / "in", "events", [table("events", [event(1)])])
    with pytest.raises(SourceError, match="no Parquet file of table 'items'"):
        clean(tmp_path / "in", tmp_path / "out")
    write_rows(tmp_path / "in", "items", [table("items", [])])
    with pytest.raises(UsageError, match="has no zone; give a UTC time"):
        clean(tmp_path / "in", tmp_path / "out", load_time=datetime(2020, 1, 1))
    with pytest.raises(UsageError, match="engine 'polars' is unknown; one of duckdb, spark"):
        clean(tmp_path / "in", tmp_path / "out", engine=EngineConfig("polars"))


dirty_event = st.builds(
    event,
    st.integers(0, 6),
    st.integers(0, 3_000),
    st.sampled_from(["view", "purchase", "return", "search"]),
    user_id=st.sampled_from(["u", "no", None]),
    session_id=st.sampled_from(["s", None]),
    item_id=st.sampled_from(["i", "gone"]),
    quantity=st.sampled_from([None, 1, 2]),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(dirty_event, min_size=1, max_size=20), st.sampled_from([None, date(2011, 5, 1), date(2012, 1, 1)]))
def test_nothing_vanishes_and_order_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, until: date | None
) -> None:
    files = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        folder = tmp_path_factory.mktemp(name)
        (folder / "in").mkdir()
        for other, content in (("events", order), ("items", [{"item_id": "i"}])):
            pq.write_table(table(other, content), folder / "in" / f"{other}.parquet")
        users = [{"user_id": "no", "personalization_consent": False}]
        pq.write_table(table("users", users), folder / "in" / "users.parquet")
        report = clean(folder / "in", folder / "out", until=until)
        count = report.tables["events"]
        assert count.rows_in == len(rows)
        assert count.rows_in == count.rows_out + count.merged + count.after_until + sum(count.quarantined.values())
        files.append((folder / "out" / "events.parquet").read_bytes())
        net: dict[tuple[str, str], int] = {}
        for row in pq.read_table(folder / "out" / "events.parquet").to_pylist():
            key = (row["user_key"], row["item_id"])
            net[key] = net.get(key, 0) + row["net_quantity"]
            assert row["session_id"] is not None
        assert all(kept >= 0 for kept in net.values())
    assert files[0] == files[1]
