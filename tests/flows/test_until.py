"""`--until`: what came later is cut off and counted, whatever the data holds, and is no fault of the data."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
import yaml

from features.generate import GenerateParams, generate_tables
from features.tables import read_table
from flows.stages.run import clean_tables, import_tables, validate_tables


def test_data_that_goes_on_after_the_day_is_cut_and_not_called_future(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = generate_tables(tmp_path / "given", GenerateParams(first_day=date(2026, 1, 5), days=9, slates=True))
    told = {"format": "canonical", "path": str(given), "name": "given", "until": "2026-01-10", "as_of": "2026-01-10"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"data": told}))
    monkeypatch.chdir(tmp_path)
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
