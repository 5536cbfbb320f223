"""What validation says of money in several currencies, of people who did not agree, and of answers to slates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.expectations import validate
from features.generate import GenerateParams, generate_tables
from features.importers import import_data
from features.tables import read_table, table_files
from features.validation import Check, ValidationParams, ValidationReport

LOADED = datetime(2026, 1, 7, tzinfo=UTC)
PARAMS = GenerateParams(first_day=date(2026, 1, 5), days=2, rows_per_day=800)


def shop(folder: Path, change: Callable[[pa.Table], pa.Table] = lambda rows: rows, table: str = "events") -> Path:
    """A generated shop, one of its tables changed file by file."""
    generate_tables(folder, replace(PARAMS, slates=table == "slates"))
    for path in table_files(folder, table):
        pq.write_table(change(pq.ParquetFile(path).read()), path)
    return folder


def put(column: str, values: Callable[[pa.Table], pa.Array]) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: rows.set_column(rows.column_names.index(column), column, values(rows))


def named(report: ValidationReport, word: str) -> list[Check]:
    return [check for check in report.checks if word in check.rule]


@pytest.mark.parametrize("table", ["events", "items"])
def test_prices_in_two_currencies_are_named_with_their_counts(tmp_path: Path, table: str) -> None:
    def every_third_in_euro(rows: pa.Table) -> pa.Array:
        third = pa.array([at % 3 == 0 for at in range(rows.num_rows)])
        return pc.if_else(pc.and_(third, pc.is_valid(rows["currency"])), "EUR", rows["currency"])

    folder = shop(tmp_path / "mixed", put("currency", every_third_in_euro), table)
    rows = read_table(folder, table)
    euro, pound = (pc.sum(pc.equal(rows["currency"], code)).as_py() for code in ("EUR", "GBP"))
    report = validate(folder, load_time=LOADED)
    mixed = [check for check in named(report, "one currency") if check.table == table]
    assert [(check.severity, check.passed) for check in mixed] == [("warning", False)]
    assert mixed[0].observed == f"GBP {pound:,}, EUR {euro:,}"
    assert mixed[0].unexpected == euro and mixed[0].samples
    assert "compared and added as plain numbers, convert them before import" in mixed[0].rule
    assert report.verdict == "warn"
    one = named(validate(shop(tmp_path / "one"), load_time=LOADED), "one currency")
    assert [(check.table, check.passed) for check in one] == [("events", True), ("items", True)]


def with_consent(folder: Path, agrees: Callable[[int], bool | None]) -> Path:
    users = [f"u{at}" for at in range(PARAMS.users)]
    told = {"user_id": users, "personalization_consent": pa.array([agrees(at) for at in range(len(users))], pa.bool_())}
    pq.write_table(pa.table(told), folder / "users.parquet")
    return folder


EASY = ValidationParams(tier_purchases=10, tier_users=5, tier_views=100, tier_impressions=100, tier_clicks=0)


def test_events_of_people_who_did_not_agree_are_warned_of_and_open_no_tier(tmp_path: Path) -> None:
    folder = with_consent(shop(tmp_path), lambda at: False)
    signed_in = read_table(folder, "events")["user_id"].drop_null()
    report = validate(folder, EASY, load_time=LOADED)
    (warned,) = [check for check in named(report, "without consent") if not check.passed]
    assert warned.severity == "warning" and warned.unexpected == len(signed_in)
    assert "training leaves them out" in warned.rule
    assert not any(tier.open for tier in report.tiers) and report.tiers[0].why.startswith("0 purchases")


def test_a_few_who_did_not_agree_and_no_answer_are_no_alarm(tmp_path: Path) -> None:
    folder = with_consent(shop(tmp_path), lambda at: False if at % 10 == 0 else None)
    report = validate(folder, EASY, load_time=LOADED)
    assert [check.passed for check in named(report, "without consent")] == [True]
    assert report.tiers[0].open and not [check for check in report.failed("warning") if "consent" in check.rule]


def test_a_product_page_opened_out_of_a_slate_is_an_answer_to_it(tmp_path: Path) -> None:
    folder = shop(tmp_path, table="slates")
    slates = read_table(folder, "slates").slice(0, 40)
    answers = {
        "event_id": [f"a{at}" for at in range(40)],
        "event_time": slates["served_at"],
        "event_type": ["view"] * 40,
        "user_id": slates["user_id"],
        "item_id": slates["item_id"],
        "request_id": slates["request_id"],
    }
    path = table_files(folder, "events")[0]
    there = pq.ParquetFile(path).read()
    nullable = pa.schema([field.with_nullable(True) for field in there.schema])
    both = [there.cast(nullable), pa.table(answers)]
    pq.write_table(pa.concat_tables(both, promote_options="permissive"), path)
    assert "and 40 answers to them" in validate(folder, load_time=LOADED).tiers[2].why


def test_prices_of_before_the_euro_are_taken_and_what_is_no_money_is_not(tmp_path: Path) -> None:
    rows = [f"e{at},2009-01-01T00:00:00Z,purchase,u,i,2.5,1,{code}" for at, code in enumerate(("HRK", "SKK", "XAU"))]
    (tmp_path / "src").mkdir()
    header = "event_id,event_time,event_type,user_id,item_id,price,quantity,currency"
    (tmp_path / "src" / "events.csv").write_text("\n".join([header, *rows, ""]))
    report = import_data("canonical", tmp_path / "src", tmp_path / "out")
    assert report.tables["events"].rows_out == 2
    assert report.tables["events"].quarantined == {"currency: not an ISO 4217 code": 1}
