"""What is left to learn from: what came after `--until` is cut off and counted, and is no fault of the data; where
nothing is left, the error says what took it."""

from __future__ import annotations

import json
from datetime import date, datetime, tzinfo
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from features.errors import TrainingError, ValidationFailed
from features.generate import GenerateParams, generate_tables
from features.tables import read_table
from flows.stages import load
from flows.stages.run import clean_tables, import_tables, validate_tables


def use(given: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **data: str) -> None:
    """Work in `folder`, on the tables at `given`."""
    told = {"format": "canonical", "path": str(given), "name": "given", **data}
    (folder / "params.yaml").write_text(yaml.safe_dump({"data": told}))
    monkeypatch.chdir(folder)
    load.params.cache_clear()


def test_data_that_goes_on_after_the_day_is_cut_and_not_called_future(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = generate_tables(tmp_path / "given", GenerateParams(first_day=date(2026, 1, 5), days=9, slates=True))
    use(given, tmp_path, monkeypatch, until="2026-01-10", as_of="2026-01-10")
    import_tables()
    validate_tables()
    clean_tables()
    report = json.loads((tmp_path / "artifacts" / "clean" / "cleaning.json").read_text())
    counts = report["tables"]["events"]
    times = read_table(given, "events")["event_time"].to_pylist()
    later = sum(time.date() > date(2026, 1, 10) for time in times)
    assert counts["after_until"] == later > 0
    assert counts["rows_in"] == len(times)
    assert not [reason for reason in counts["quarantined"] if "future" in reason]
    assert report["last"][:10] == "2026-01-10"


def test_an_event_of_later_today_is_in_the_future_and_what_passes_holds_no_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The day of loading is not over while the run goes on: its end is no measure of what has happened."""

    class Clock(datetime):
        hour_now = 15

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(2026, 1, 13, cls.hour_now, tzinfo=tz)

    given = generate_tables(tmp_path / "given", GenerateParams(first_day=date(2026, 1, 5), days=9))
    use(given, tmp_path, monkeypatch, as_of="2026-01-13")
    monkeypatch.setattr("flows.stages.run.datetime", Clock)
    told = []
    import_tables()
    with pytest.raises(ValidationFailed, match=r"event_time is not in the future of the load time plus 5 min: \d"):
        validate_tables()
    for Clock.hour_now in (22, 23):  # the shop's day ends at 22 h
        validate_tables()
        told.append((tmp_path / "artifacts" / "validation.json").read_bytes())
    clean_tables()
    report = json.loads((tmp_path / "artifacts" / "clean" / "cleaning.json").read_text())
    assert told[0] == told[1] and report["load_time"][:10] == "2026-01-13"


def test_a_day_before_all_data_is_named_with_the_days_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = generate_tables(tmp_path / "given", GenerateParams(first_day=date(2026, 1, 5), days=3, rows_per_day=300))
    use(given, tmp_path, monkeypatch, until="2020-01-01", as_of="2020-01-01")
    import_tables()
    said = r"later than --until 2020-01-01 \(the data runs from 2026-01-05 to 2026-01-07: choose a later day\)"
    with pytest.raises(TrainingError, match=said):
        clean_tables()


def test_where_nobody_agreed_the_error_says_so_and_how_many_events_that_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = generate_tables(tmp_path / "given", GenerateParams(first_day=date(2026, 1, 5), days=3, rows_per_day=300))
    for path in (given / "events").rglob("*.parquet"):  # no guests: they need not agree
        rows = pq.ParquetFile(path).read()
        pq.write_table(rows.filter(pc.is_valid(rows["user_id"])), path)
    users = sorted(set(read_table(given, "events")["user_id"].to_pylist()))
    refused = pa.table({"user_id": users, "personalization_consent": [False] * len(users)})
    pq.write_table(refused, given / "users.parquet")
    use(given, tmp_path, monkeypatch, as_of="2026-01-08")
    import_tables()
    rows = f"{read_table(given, 'events').num_rows:,}"
    said = rf"of {rows} events {rows} left out for want of consent \(users.personalization_consent is false\)"
    with pytest.raises(TrainingError, match=said):
        clean_tables()
