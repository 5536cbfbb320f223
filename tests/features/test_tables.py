"""Canonical tables on disk: equal input gives equal bytes, foreign files are ignored, bad files are named."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import tables
from features.errors import SchemaError, SourceError
from features.parquet_file import write_file
from features.schema import TIMESTAMP, Events, Items, arrow_schema
from features.tables import TableWriter, read_schema, read_table, scan, write_rows

T0 = datetime(2011, 12, 31, 23, 59, 59, tzinfo=UTC)


def events(*rows: dict[str, Any]) -> pa.Table:
    base = {"event_type": "view", "event_time": T0, "item_id": "i"}
    return pa.Table.from_pylist([{**base, **row} for row in rows], schema=arrow_schema(Events.COLUMNS))


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_events_are_split_by_utc_day_and_the_day_is_no_column(tmp_path: Path) -> None:
    rows = events({"event_id": "a"}, {"event_id": "b", "event_time": T0 + timedelta(seconds=1)})
    written = write_rows(tmp_path, "events", [rows])
    assert (written.rows_in, written.rows_out, written.merged) == (2, 2, 0)
    assert set(digest(tmp_path)) == {
        "events/date=2011-12-31/part-0000.parquet",
        "events/date=2012-01-01/part-0000.parquet",
    }
    assert read_schema(tmp_path, "events").names == [column.name for column in Events.COLUMNS]
    assert read_table(tmp_path, "events")["event_id"].to_pylist() == ["a", "b"]


def test_the_same_rows_in_any_order_and_cut_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [{"event_id": f"e{n}", "event_time": T0 + timedelta(minutes=n % 7), "price": n / 3} for n in range(300)]
    write_rows(tmp_path / "a", "events", [events(*rows)])
    write_rows(tmp_path / "b", "events", [events(*rows[200:]), events(*rows[:200]), events(*rows[50:60])])
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_of_retries_the_first_by_time_and_content_stays(tmp_path: Path) -> None:
    late = {"event_id": "a", "event_time": T0 + timedelta(days=1)}
    written = write_rows(
        tmp_path, "events", [events(late, {"event_id": "a", "user_id": "z"}, {"event_id": "a", "user_id": "y"})]
    )
    assert written.merged == 2
    assert [(e["user_id"], e["event_time"]) for e in read_table(tmp_path, "events").to_pylist()] == [("y", T0)]


def test_of_an_item_the_last_row_stays(tmp_path: Path) -> None:
    write_rows(tmp_path, "items", [pa.table({"item_id": ["i", "i"], "title": ["old", "new"]})])
    assert read_table(tmp_path, "items")["title"].to_pylist() == ["new"]


def test_batches_with_different_extra_columns_fit_together(tmp_path: Path) -> None:
    one = events({"event_id": "a"}).append_column("zeta", pa.array([1]))
    other = events({"event_id": "b"}).append_column("alpha", pa.array(["x"]))
    write_rows(tmp_path, "events", [one, other, events()])
    assert read_schema(tmp_path, "events").names[-2:] == ["alpha", "zeta"]
    assert read_table(tmp_path, "events")["alpha"].to_pylist() == [None, "x"]


def test_other_files_are_ignored(tmp_path: Path) -> None:
    write_rows(tmp_path, "events", [events({"event_id": "a"})])
    for name in ("_metadata.parquet", ".part.parquet", "notes.txt"):
        (tmp_path / "events" / name).write_text("not a table")
    assert read_table(tmp_path, "events").num_rows == 1


def test_an_unfinished_write_leaves_the_old_table(tmp_path: Path) -> None:
    write_rows(tmp_path, "events", [events({"event_id": "a"})])
    before = digest(tmp_path)
    with pytest.raises(KeyboardInterrupt), TableWriter(tmp_path, "events") as writer:
        writer.write(events({"event_id": "b"}))
        raise KeyboardInterrupt
    assert digest(tmp_path) == before


def test_an_empty_table_is_there(tmp_path: Path) -> None:
    write_rows(tmp_path, "events", [])
    assert read_table(tmp_path, "events").schema == arrow_schema(Events.COLUMNS)


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign"])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, damage: str) -> None:
    write_rows(tmp_path, "items", [pa.table({"item_id": [str(n) for n in range(5_000)]})])
    path = tmp_path / "items" / "part-0000.parquet"
    content = {"truncated": path.read_bytes()[:-100], "empty": b"", "foreign": b"item_id\n1\n"}[damage]
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"part-0000\.parquet: not a readable Parquet file.*copy or export it again"):
        read_table(tmp_path, "items")


def test_a_flipped_page_is_a_source_error_not_a_crash(tmp_path: Path) -> None:
    write_rows(tmp_path, "items", [pa.table({"item_id": [str(n) for n in range(50_000)]})])
    path = tmp_path / "items" / "part-0000.parquet"
    content = bytearray(path.read_bytes())
    content[200:5_000] = bytes(4_800)
    path.write_bytes(content)
    with pytest.raises(SourceError, match="not a readable Parquet file, truncated or damaged"):
        list(scan(tmp_path, "items"))


@pytest.mark.parametrize(
    ("name", "values", "match"),
    [
        ("event_time", pa.array([1], pa.timestamp("us")), "'event_time' holds times without a zone"),
        ("event_time", ["2020"], r"'event_time' is string, expected timestamp\[us, tz=UTC\]"),
        ("price", ["1"], "'price' is string, expected double"),
        ("position", [1.5], "'position' is double, expected int32"),
        ("user_id", [7], "'user_id' is int64, expected string"),
        ("position", [2**40], "'position': Integer value 1099511627776 not in range"),
    ],
)
def test_a_wrong_type_names_table_column_found_and_expected(tmp_path: Path, name: str, values: Any, match: str) -> None:
    rows = events({"event_id": "a"}).to_pydict() | {name: values}
    columns = {n: pa.array([T0], TIMESTAMP) if n == "event_time" and n != name else v for n, v in rows.items()}
    pq.write_table(pa.table(columns), tmp_path / "events.parquet")
    with pytest.raises(SchemaError, match=rf"events\.parquet: table 'events', column {match}"):
        read_table(tmp_path, "events")


def test_a_missing_required_column_is_named(tmp_path: Path) -> None:
    pq.write_table(events({"event_id": "a"}).drop_columns(["event_type"]), tmp_path / "events.parquet")
    with pytest.raises(SchemaError, match="table 'events' has no column 'event_type', which is required"):
        read_table(tmp_path, "events")


def test_other_encodings_of_the_same_values_are_read(tmp_path: Path) -> None:
    time = pa.array([T0], TIMESTAMP)
    columns = {
        "event_id": pa.array(["a"], pa.string_view()),
        "event_time": time.cast(pa.timestamp("ns", tz="Asia/Tokyo")),
        "event_type": pa.array(["view"]).dictionary_encode(),
        "item_id": pa.array(["i"], pa.large_string()),
        "price": pa.array([2], pa.int64()),
        "query": pa.nulls(1),
    }
    pq.write_table(pa.table(columns), tmp_path / "events.parquet")
    rows = read_table(tmp_path, "events")
    assert rows.schema.types == arrow_schema(Events.COLUMNS).types
    assert rows.to_pylist()[0]["event_time"] == T0 and rows.to_pylist()[0]["price"] == 2.0


def test_a_file_is_the_same_however_its_rows_arrive(tmp_path: Path) -> None:
    schema = arrow_schema(Items.COLUMNS)
    rows = pa.table({"item_id": [f"i{n}" for n in range(150_000)]})
    rows = pa.table({f.name: rows[f.name] if f.name == "item_id" else pa.nulls(150_000, f.type) for f in schema})
    assert write_file(tmp_path / "a.parquet", schema, [rows]) == 150_000
    write_file(tmp_path / "b.parquet", schema, [rows.slice(n, 7_000) for n in range(0, 150_000, 7_000)])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3


def test_rows_that_are_too_wide_to_be_sorted_in_little_memory_get_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night's export sorts half a million slots with the signals that they were drawn by."""
    n, rng = 20_000, np.random.default_rng(0)
    served = [datetime(2026, 1, 1, tzinfo=UTC)] * n
    known = {
        "request_id": [f"r{at:05d}" for at in rng.permutation(n)], "served_at": served, "session_id": ["s"] * n,
        "surface": ["home"] * n, "position": [1] * n, "item_id": ["i"] * n, "propensity": [1.0] * n,
    }  # fmt: skip
    rows = pa.table({**known, "state": [rng.bytes(750).hex() for _ in range(n)]})
    with monkeypatch.context() as little, TableWriter(tmp_path, "slates", memory_mb=10) as writer:
        little.setattr(tables, "MORE_MEMORY", (1,))
        writer.write(rows)
        with pytest.raises((duckdb.OutOfMemoryException, OSError), match="Out of Memory"):
            writer.close()
    with TableWriter(tmp_path, "slates", memory_mb=10) as writer:
        writer.write(rows)
        assert writer.close().rows_out == n
    requests = read_table(tmp_path, "slates")["request_id"].to_pylist()
    assert requests == sorted(requests) and len(requests) == n
