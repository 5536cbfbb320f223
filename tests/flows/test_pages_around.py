"""A log that holds pages, too few of them before the cut: the report can say how many lie on which side."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

from features.generate import GenerateParams, generate_tables
from features.tables import read_table
from flows.stages.policy import pages_around
from models.items import ItemTable


def test_pages_with_drawn_slots_are_counted_on_both_sides_of_the_cut(tmp_path: Path) -> None:
    days = GenerateParams(first_day=date(2026, 1, 5), days=3, rows_per_day=600, slates=True)
    folder = generate_tables(tmp_path, days)
    slates, items = read_table(folder, "slates"), ItemTable.from_arrow(read_table(folder, "items"))
    cut = datetime(2026, 1, 6, tzinfo=UTC)
    told = pages_around(int(cut.timestamp() * 1e6), slates, read_table(folder, "events"), items)
    requests = dict(zip(slates["request_id"].to_pylist(), slates["served_at"].to_pylist(), strict=True))
    before = sum(time < cut for time in requests.values())
    assert told == {"before": before, "after": len(requests) - before, "cut": "2026-01-06T00:00:00Z"}
    assert 0 < before < len(requests)
