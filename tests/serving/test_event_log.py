"""The log on disk: what a visit was shown, and files of an earlier version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from serving.event_log import EventLog

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
