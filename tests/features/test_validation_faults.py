"""Planted faults: each is caught for the right reason; clean days raise no alarm. The data is generated."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from _pytest.mark.structures import ParameterSet

from features.errors import ValidationFailed
from features.expectations import validate
from features.generate import GenerateParams, generate_tables
from features.integrity import write_manifest
from features.validation import ReferenceProfile, ValidationReport, raise_if_critical

FIRST = date(2026, 1, 5)
DAYS = 14  # of history, before the day that is judged
DAY = FIRST + timedelta(days=DAYS)
PARAMS = GenerateParams(rows_per_day=1_500)


def load_time(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> ReferenceProfile:
    folder = generate_tables(tmp_path_factory.mktemp("history"), replace(PARAMS, first_day=FIRST, days=DAYS))
    return validate(folder, load_time=load_time(DAY)).profile


@pytest.fixture(scope="module")
def clean_day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = generate_tables(tmp_path_factory.mktemp("clean"), replace(PARAMS, first_day=DAY, days=1, slates=True))
    write_manifest(folder)
    return folder


def part(folder: Path, table: str = "events") -> Path:
    return folder / table / f"date={DAY}" / "part-0.parquet"


def rewrite(sql: str, table: str = "events") -> Callable[[Path], None]:
    """A fault that replaces a table's rows with a query over `t`; the manifest is renewed: the rules must see it."""

    def plant(folder: Path) -> None:
        path = part(folder, table) if table != "items" else folder / "items.parquet"
        with duckdb.connect() as con:
            con.execute("SET TimeZone='UTC'")
            rows = con.sql(f"WITH t AS (SELECT * FROM read_parquet('{path}', hive_partitioning=false)) {sql}")
            pq.write_table(rows.to_arrow_table(), path)
        write_manifest(folder)

    return plant


def some(
    column: str, value: str, where: str = "hash(event_id) % 50 = 0", table: str = "events"
) -> Callable[[Path], None]:
    return rewrite(f"SELECT * REPLACE (CASE WHEN {where} THEN {value} ELSE {column} END AS {column}) FROM t", table)


def truncate(folder: Path) -> None:
    part(folder).write_bytes(part(folder).read_bytes()[:-2_000])
    write_manifest(folder)


def empty(folder: Path) -> None:
    part(folder).write_bytes(b"")
    write_manifest(folder)


def flip_bit(folder: Path) -> None:
    content = bytearray(part(folder).read_bytes())
    content[len(content) // 3] ^= 1
    part(folder).write_bytes(bytes(content))


def flip_bit_without_manifest(folder: Path) -> None:
    """In a page whose writer stored a checksum, in a value that decodes either way."""
    path = part(folder)
    rows = pq.read_table(path, partitioning=None)
    pq.write_table(rows, path, compression="none", use_dictionary=False, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    places = [match.start() for match in re.finditer(b"lamp ", content)]
    content[places[len(places) // 2] + 1] ^= 1  # amid the page; the first and the last are its statistics
    path.write_bytes(bytes(content))
    (folder / "_manifest.json").unlink()


def no_table(folder: Path) -> None:
    (folder / "items.parquet").unlink()
    write_manifest(folder)


def change(edit: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        pq.write_table(edit(pq.read_table(part(folder), partitioning=None)), part(folder))
        write_manifest(folder)

    return plant


def retyped(column: str, type_: pa.DataType) -> Callable[[Path], None]:
    def edit(rows: pa.Table) -> pa.Table:
        return rows.set_column(rows.column_names.index(column), column, rows[column].cast(type_))

    return change(edit)


def half(folder: Path) -> None:
    change(lambda rows: rows.filter(pc.equal(pc.bit_wise_and(pa.array(range(len(rows))), 1), 0)))(folder)


@dataclass(frozen=True)
class Fault:
    name: str
    plant: Callable[[Path], None]
    column: str
    rule: str
    severity: str = "critical"
    table: str = "events"


TRIPLE = (
    "SELECT * REPLACE (event_id || '-' || n AS event_id, event_time + n * INTERVAL 1 SECOND AS event_time)"
    " FROM t, range(3) r(n)"
)
BOTS = (
    "SELECT * FROM t UNION ALL BY NAME SELECT * REPLACE ('bot-' || event_id AS event_id, 'u9' AS user_id,"
    " 's-bot' AS session_id) FROM t WHERE hash(event_id) % 2 = 0"
)
CONFLICT = (
    "SELECT * FROM t UNION ALL BY NAME SELECT * REPLACE ('i3' AS item_id) FROM t"
    " WHERE hash(event_id) % 50 = 0 AND item_id <> 'i3'"
)
FAULTS = [
    Fault("nulls in the key", some("event_id", "NULL"), "event_id", "event_id is never null"),
    Fault("nulls in the time", some("event_time", "NULL"), "event_time", "event_time is never null"),
    Fault("negative prices", some("price", "-price", "price > 30"), "price", "price is at least 0"),
    Fault("future dates", some("event_time", "event_time + INTERVAL 3 YEAR"), "event_time", "not in the future"),
    Fault("dates of 1970", some("event_time", "TIMESTAMPTZ '1970-01-01'"), "event_time", "not before 1990"),
    Fault("duplicate ids", rewrite(CONFLICT), "event_id", "one event_id has one content"),
    Fault("unknown event types", some("event_type", "'buy'"), "event_type", "event_type is one of view, click"),
    Fault("unknown platform", some("platform", "'fridge'"), "platform", "platform is one of web"),
    Fault("prices x 100", some("price", "price * 100", "true"), "price", "typical price is within"),
    Fault(
        "currency mix",
        some("currency", "'USD'", "currency = 'GBP' AND hash(event_id) % 3 = 0"),
        "currency",
        "currency is the catalogue's",
        "warning",
    ),
    Fault("no currency code", some("currency", "'£'", "currency = 'GBP'"), "currency", "an ISO 4217 code"),
    Fault("half the volume", half, "event_id", "volume: rows a day", "warning"),
    Fault("three times the volume", rewrite(TRIPLE), "event_id", "volume: rows a day", "warning"),
    Fault("truncated Parquet", truncate, "(files)", "every file is whole"),
    Fault("missing column", change(lambda t: t.drop_columns(["item_id"])), "item_id", "the column item_id is there"),
    Fault(
        "renamed column",
        change(lambda t: t.rename_columns({"surface": "place"})),
        "surface",
        "the column surface is there",
    ),
    Fault("retyped column", retyped("price", pa.string()), "price", "price is of type double"),
    Fault("time without a zone", retyped("event_time", pa.timestamp("us")), "event_time", "of type timestamp"),
    Fault("one flipped bit", flip_bit, "(files)", "the bytes are those that were written"),
    Fault("one flipped bit, checksums", flip_bit_without_manifest, "(files)", "every file is whole"),
    Fault("empty file", empty, "(files)", "every file is whole"),
    Fault("no rows", rewrite("SELECT * FROM t LIMIT 0"), "(files)", "the table has rows"),
    Fault("missing table", no_table, "(files)", "the table is there", table="items"),
    Fault("some unknown items", some("item_id", "'ghost'"), "item_id", "item_id is known", "warning"),
    Fault("unknown catalogue", some("item_id", "'x' || item_id", "true"), "item_id", "item_id is known"),
    Fault("empty ids", some("user_id", "''"), "user_id", "user_id has 1 to 256 characters"),
    Fault("ids of 300 characters", some("session_id", "repeat('s', 300)"), "session_id", "1 to 256 characters"),
    Fault("e-mail as user", some("user_id", "user_id || '@mail.example'"), "user_id", "never an e-mail address"),
    Fault(
        "position 0",
        some("position", "0", table="slates", where="position = 1"),
        "position",
        "position is at least 1",
        table="slates",
    ),
    Fault(
        "propensity 0",
        some("propensity", "0", table="slates", where="position = 1"),
        "propensity",
        "propensity is over 0",
        table="slates",
    ),
    Fault("quantity 0", some("quantity", "0", "quantity = 1"), "quantity", "quantity is at least 1"),
    Fault("price not a number", some("price", "'nan'::DOUBLE", "price > 30"), "price", "price is a finite number"),
    Fault("no item on a view", some("item_id", "NULL", "event_type = 'view'"), "item_id", "null only for search"),
    Fault("bot flood", rewrite(BOTS), "user_id", "bots: no user makes over", "warning"),
    Fault(
        "duplicated day", rewrite("SELECT * FROM t UNION ALL SELECT * FROM t"), "event_id", "retries are at most 10%"
    ),
    Fault(
        "time zone shift",
        some("event_time", "event_time - INTERVAL 7 HOUR", "true"),
        "event_time",
        "distribution of hour",
        "warning",
    ),
    Fault(
        "rows of another day", some("event_time", "event_time - INTERVAL 1 DAY"), "event_time", "the date partition is"
    ),
    Fault(
        "purchases gone",
        rewrite("SELECT * FROM t WHERE event_type <> 'purchase'"),
        "event_type",
        "every frequent event_type",
        "warning",
    ),
    Fault(
        "platform drift",
        some("platform", "'web'", "hash(event_id) % 3 > 0"),
        "platform",
        "distribution of platform",
        "warning",
    ),
    Fault("nobody signed in", some("user_id", "NULL", "true"), "user_id", "share of null user_id", "warning"),
    Fault(
        "item listed twice",
        rewrite("SELECT * FROM t UNION ALL SELECT * FROM t LIMIT 203", "items"),
        "item_id",
        "item_id is unique",
        table="items",
    ),
]


SLOW = {
    "dates of 1970", "ids of 300 characters", "item listed twice", "missing table", "no currency code", "no rows",
    "nobody signed in", "nulls in the time", "platform drift", "price not a number", "propensity 0", "purchases gone",
    "some unknown items", "time without a zone", "unknown platform",
}  # fmt: skip


def cases() -> list[ParameterSet]:
    """Every fault; the near twins of another one are slow tests, as a validation takes a second."""
    return [pytest.param(f, id=f.name, marks=[pytest.mark.slow] if f.name in SLOW else []) for f in FAULTS]


@pytest.mark.parametrize("fault", cases())
def test_a_planted_fault_is_caught_for_the_right_reason(
    fault: Fault, clean_day: Path, reference: ReferenceProfile, tmp_path: Path
) -> None:
    folder = shutil.copytree(clean_day, tmp_path / "day")
    fault.plant(folder)
    report = validate(folder, load_time=load_time(DAY), reference=reference)
    caught = [c for c in report.failed() if c.severity == fault.severity and fault.rule in c.rule]
    assert [(c.table, c.column) for c in caught[:1]] == [(fault.table, fault.column)], report.failed()
    assert report.verdict == ("fail" if fault.severity == "critical" else "warn"), report.failed("critical")
    if fault.severity == "critical":
        with pytest.raises(
            ValidationFailed, match=f"{fault.table}.{fault.column}".replace("(", r"\(").replace(")", r"\)")
        ):
            raise_if_critical(report)


def alarms(report: ValidationReport) -> list[tuple[str, str, str]]:
    return [(c.table, c.rule, c.observed) for c in report.failed() if c.severity != "info"]


def test_stale_data_is_a_warning(clean_day: Path) -> None:
    report = validate(clean_day, load_time=load_time(DAY) + timedelta(days=30))
    assert [c.rule for c in report.failed("warning")] == ["freshness: the newest event is at most 7 days old"]


def test_twenty_clean_days_raise_no_alarm(reference: ReferenceProfile, tmp_path: Path) -> None:
    for number in range(20):
        day = DAY + timedelta(days=number)
        folder = generate_tables(tmp_path / str(day), replace(PARAMS, first_day=day, days=1))
        assert alarms(validate(folder, load_time=load_time(day), reference=reference)) == [], day


def test_a_shop_without_a_reference_sees_its_last_week_change(tmp_path: Path) -> None:
    folder = generate_tables(tmp_path, replace(PARAMS, days=36, rows_per_day=300))
    clean = validate(folder, load_time=load_time(FIRST + timedelta(days=35)))
    assert alarms(clean) == []
    for path in sorted((folder / "events").iterdir())[-7:]:
        rows = pq.read_table(path / "part-0.parquet", partitioning=None)
        pq.write_table(rows.slice(0, len(rows) // 3), path / "part-0.parquet")
    assert [a[1][:18] for a in alarms(validate(folder))] == ["volume: rows a day"]


def test_days_that_were_accepted_before_keep_their_rows(reference: ReferenceProfile, tmp_path: Path) -> None:
    folder = generate_tables(tmp_path, replace(PARAMS, first_day=FIRST, days=DAYS + 1))
    assert alarms(validate(folder, load_time=load_time(DAY), reference=reference)) == []
    for path in sorted((folder / "events").iterdir())[3:8]:
        shutil.rmtree(path)
    report = validate(folder, load_time=load_time(DAY), reference=reference)
    assert ["days that were accepted before" in check.rule for check in report.failed("critical")] == [True]
