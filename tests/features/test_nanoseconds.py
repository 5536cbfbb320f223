"""What a shop gets whose tables were written by pandas: its times, in nanoseconds, read as if in microseconds."""

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.cleaning import clean
from features.expectations import validate
from features.generate import GenerateParams, generate_tables
from features.importers import import_data
from features.tables import read_table, table_files

LOADED = datetime(2026, 1, 8, tzinfo=UTC)
TABLES = ("events", "slates", "items")
LAST = datetime(2026, 1, 6, 23, 59, 59, 999_999, UTC)  # of a day: rounded up it would be in another partition


def in_nanoseconds(path: Path) -> None:
    """Every time of a file as pandas has it, with a rest of 999 ns that no microsecond holds."""
    rows = pq.ParquetFile(path).read()
    for at, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            whole = pc.multiply(rows[field.name].cast(pa.int64()), 1_000)
            fine = pc.add(whole, 999).cast(pa.timestamp("ns", "UTC"))
            rows = rows.set_column(at, field.name, fine).append_column(f"seen {field.name}", fine)
    pq.write_table(rows, path)


def with_a_last_moment(path: Path) -> None:
    rows = pq.ParquetFile(path).read()
    times = [LAST, *rows["event_time"].to_pylist()[1:]]
    at = rows.schema.get_field_index("event_time")
    pq.write_table(rows.set_column(at, rows.schema.field(at), pa.array(times, rows.schema.field(at).type)), path)


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One shop twice: in microseconds; and in nanoseconds but for the first day, as where the writer was changed."""
    params = GenerateParams(first_day=date(2026, 1, 5), days=3, rows_per_day=600, slates=True)
    plain, fine = (generate_tables(tmp_path_factory.mktemp(name), params) for name in ("plain", "fine"))
    for shop in (plain, fine):
        with_a_last_moment(next(path for path in table_files(shop, "events") if "2026-01-06" in str(path)))
    for table in TABLES:
        files = table_files(fine, table)
        for path in files[1:] or files:
            in_nanoseconds(path)
    return plain, fine


def test_validate_finds_in_nanoseconds_what_it_finds_in_microseconds(shops: tuple[Path, Path]) -> None:
    plain, fine = (validate(shop, load_time=LOADED) for shop in shops)
    assert fine.verdict == "pass" and (fine.first_event, fine.last_event) == (plain.first_event, plain.last_event)
    assert [check.passed for check in fine.checks] == [check.passed for check in plain.checks]
    assert fine.profile == plain.profile


@pytest.mark.parametrize("imported", [False, True], ids=["as they are", "imported, as retrain does"])
def test_clean_tables_hold_the_same_times_cut_and_not_rounded(
    shops: tuple[Path, Path], tmp_path: Path, imported: bool
) -> None:
    told = []
    for number, shop in enumerate(shops):
        source = shop
        if imported:
            source = tmp_path / f"in{number}"
            import_data("canonical", shop, source)
            assert any(path.parent.name == "date=2026-01-06" for path in table_files(source, "events"))
        clean(source, out := tmp_path / f"out{number}")
        told.append(
            [
                read_table(out, table).select([column])
                for table, column in (("events", "event_time"), ("slates", "served_at"), ("items", "listed_at"))
            ]
        )
    assert all(one.num_rows for one in told[0])
    assert told[0] == told[1]
    assert LAST in told[1][0]["event_time"].to_pylist()
