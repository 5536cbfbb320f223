"""The log on disk: what somebody did, what a visit was shown, and files of an earlier version."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contract import EventRow
from serving.event_log import Arrival, EventLog

BEFORE = """CREATE TABLE slates (request_id TEXT PRIMARY KEY, served_us INTEGER NOT NULL, user_id TEXT, session_id TEXT,
  slate TEXT NOT NULL); CREATE INDEX slates_visit ON slates (session_id, served_us);
  INSERT INTO slates VALUES ('old', 1, NULL, 's', '{"surface": "home", "slots": []}')"""


def add(log: EventLog, name: str, when: int, surface: str, *items: str, user: str | None = None) -> None:
    slots = [["for_you", place, item, 1.0, 0.5, False, False] for place, item in enumerate(items, 1)]
    log.add_slate(name, when, user, "s", {"surface": surface, "slots": slots}).result(10)


def test_what_a_visit_was_shown_is_its_newest_homepages_and_nobody_elses(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    add(log, "a", 1, "home", "i1", "i2")
    add(log, "b", 2, "home", "i3")
    add(log, "c", 3, "search", "i4")
    add(log, "d", 4, "home", "i5", user="u")
    assert log.shown(None, "s", 2) == ["i3", "i1", "i2"]
    assert log.shown(None, "s", 1) == ["i3"]
    assert log.shown("u", "s", 5) == ["i5"]
    assert log.shown("u", "other", 5) == []
    log.close()


def test_a_log_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    file = tmp_path / "log" / "slates.db"
    with sqlite3.connect(file) as connection:
        connection.executescript(BEFORE)
    connection.close()
    for name, when in (("a", 2), ("b", 3)):  # opened twice: what was added is not added again
        log = EventLog(tmp_path)
        add(log, name, when, "home", f"i-{name}")
        found = log.find_slate("old")
        assert found is not None and found[0] == 1
        log.close()
    log = EventLog(tmp_path)
    assert log.shown(None, "s", 5) == ["i-b", "i-a"]
    log.close()


IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5)
ACTS = st.lists(
    st.fixed_dictionaries(
        {"event_time": st.integers(0, 10**17), "price": st.none() | st.floats(0, 1e12), "quantity": st.integers(1, 9)}
        | {"item_id": st.none() | IDS, "user_id": st.sampled_from([None, "u", "v"]), "who": st.sampled_from("st")}
    ),
    max_size=30,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@settings(max_examples=60, deadline=None)
@given(acts=ACTS, after=st.tuples(st.integers(-1, 30), st.integers(-1, 10**17)), limit=st.integers(1, 12))
def test_live_events_are_the_newest_of_a_person_that_came_or_happened_later(
    place: Path, acts: list[dict[str, Any]], after: tuple[int, int], limit: int
) -> None:
    log = EventLog(place / f"{len(list(place.iterdir()))}")
    rows = [
        EventRow.model_construct(**{**EventRow.model_construct().__dict__, **act}, event_id=f"e{n}", event_type="click")
        for n, act in enumerate(acts, 1)
    ]
    for row in rows:
        row.session_id = row.who  # type: ignore[attr-defined]
    log.append([Arrival(row, False, b"") for row in rows], 7).result(10)

    def newest(of: str) -> list[int]:
        mine = {"user": lambda a: a["user_id"] == "u", "visit": lambda a: a["user_id"] is None and a["who"] == "s"}[of]
        return [n for n, act in enumerate(acts, 1) if mine(act) and act["item_id"] is not None][-limit:]

    wanted = sorted(n for n in newest("user") + newest("visit") if n > after[0] or acts[n - 1]["event_time"] > after[1])
    found = log.live("u", "s", limit, after)
    log.close()
    assert [event.seq for event in found] == wanted[-limit:]
    for event in found:
        act = acts[event.seq - 1]
        assert (event.item_id, event.time_us, event.quantity) == (act["item_id"], act["event_time"], act["quantity"])
        assert event.price == pytest.approx(float("nan") if act["price"] is None else act["price"], 1e-14, nan_ok=True)
