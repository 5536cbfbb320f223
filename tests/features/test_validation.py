"""The report, the manifest and the engine room of validation: what a user and the next run get from them."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import drift, expectations
from features.errors import HomerankerError, SourceError, ValidationFailed
from features.expectations import validate
from features.generate import GenerateParams, generate_tables
from features.importers import import_data
from features.integrity import MANIFEST, check_manifest, write_manifest
from features.rules import Rule, all_rules
from features.schema import TABLES
from features.tables import table_files
from features.validation import (
    Check,
    ReferenceProfile,
    Tier,
    ValidationParams,
    ValidationReport,
    pseudonym,
    raise_if_critical,
    render_text,
    verdict_of,
)

LOADED = datetime(2026, 1, 8, tzinfo=UTC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    params = GenerateParams(first_day=date(2026, 1, 5), days=3, rows_per_day=1_500, slates=True)
    return generate_tables(tmp_path_factory.mktemp("shop"), params)


@pytest.fixture(scope="module")
def report(shop: Path) -> ValidationReport:
    return validate(shop, load_time=LOADED)


def test_every_table_is_checked_and_events_by_far_more_than_25_rules(report: ValidationReport) -> None:
    assert sum(check.table == "events" for check in report.checks) > 60
    assert {check.table for check in report.checks} == {"events", "slates", "items"}
    assert report.verdict == "pass"


def with_vectors(shop: Path, folder: Path, odd: list[float] | None = None) -> Path:
    """A copy of the shop with a vector of each of 40 items, two of which are `odd`."""
    tables = shutil.copytree(shop, folder / "shop")
    (tables / MANIFEST).unlink(missing_ok=True)
    items = pq.read_table(tables / "items.parquet")["item_id"].to_pylist()[:40]
    vectors = [odd if odd is not None and n in (3, 8) else [n / 40, 1.0, -0.5] for n in range(40)]
    modality = pa.array(["image"] * 40)
    rows = pa.table({"item_id": items, "modality": modality, "vector": pa.array(vectors, pa.list_(pa.float32()))})
    pq.write_table(rows, tables / "item_vectors.parquet")
    return tables


def test_a_shop_with_item_vectors_passes(shop: Path, tmp_path: Path) -> None:
    """Rules of a list are SQL of their own: only a table that is there shows that the engine takes them."""
    report = validate(with_vectors(shop, tmp_path), load_time=LOADED)
    assert report.verdict == "pass" and report.rows["item_vectors"] == 40
    assert "vectors are finite" in {check.rule for check in report.checks}


@pytest.mark.parametrize(
    ("odd", "rule"),
    [
        ([0.0, float("nan"), 1.0], "vectors are finite"),
        ([0.0, float("inf"), 1.0], "vectors are finite"),
        ([0.0, 1.0], "vectors of a modality have one length"),
    ],
)
def test_a_vector_that_no_model_can_read_is_named(shop: Path, tmp_path: Path, odd: list[float], rule: str) -> None:
    report = validate(with_vectors(shop, tmp_path, odd), load_time=LOADED)
    found = [(check.table, check.column, check.rule, check.unexpected) for check in report.failed("critical")]
    assert found == [("item_vectors", "vector", rule, 2)]


@pytest.mark.parametrize("table", ["events", "items"])
def test_a_price_that_no_shop_has_is_a_row_that_is_named(shop: Path, tmp_path: Path, table: str) -> None:
    """As an EAN in the price column: such rows are set aside; the contract knows no dearest price."""
    tables = shutil.copytree(shop, tmp_path / "shop")
    (tables / MANIFEST).unlink(missing_ok=True)
    path = table_files(tables, table)[0]
    rows = pq.read_table(path, partitioning=None)
    prices = [None if price is None else float(price) for price in rows["price"].to_pylist()]
    prices[next(n for n, price in enumerate(prices) if price)] = 1e18
    pq.write_table(rows.set_column(rows.column_names.index("price"), "price", pa.array(prices, pa.float64())), path)
    found = validate(tables, load_time=LOADED)
    told = [(one.table, one.column, one.rule, one.severity, one.unexpected) for one in found.failed()]
    assert (
        table,
        "price",
        "price is at most 1e+12: what no shop asks is set aside",
        "warning",
        1,
    ) in told and not found.failed("critical")
    report = import_data("canonical", tables, tmp_path / "out")
    assert report.tables[table].quarantined == {"price: above 1e+12": 1}


def test_the_same_data_gives_the_same_bytes_without_a_clock(shop: Path, report: ValidationReport) -> None:
    again = validate(shop, load_time=LOADED)
    assert again.to_json() == report.to_json()
    assert str(date.today().year) + "-" not in report.to_json() or date.today().year == 2026


def test_data_raise_no_alarm_against_their_own_profile(shop: Path, report: ValidationReport) -> None:
    again = validate(shop, load_time=LOADED, reference=report.profile)
    assert again.verdict == "pass" and len(again.checks) > len(report.checks)


def test_the_profile_survives_json(report: ValidationReport) -> None:
    assert ReferenceProfile.from_json(report.profile.to_json()) == report.profile
    assert sum(report.profile.rows_by_day.values()) == report.rows["events"]


def test_tiers_say_in_numbers_what_keeps_them_shut(report: ValidationReport) -> None:
    assert [tier.open for tier in report.tiers] == [False] * 4
    assert "needs 1,000 of 50" in report.tiers[0].why
    assert "50.0% were drawn with one below 1" in report.tiers[3].why and "tier 1 is shut" in report.tiers[3].why


def test_tiers_open_one_upon_the_other(shop: Path) -> None:
    easy = ValidationParams(tier_purchases=10, tier_users=5, tier_views=100, tier_impressions=100, tier_clicks=0)
    assert [tier.open for tier in validate(shop, easy).tiers] == [True] * 4


def test_the_terminal_text_names_rule_count_and_rows() -> None:
    check = Check("events", "price", "price is at least 0", "critical", False, 7, 1.5, "", ({"event_id": "e1"},))
    tier = Tier(1, "purchases", "retrieval", True, "9 purchases")
    report = ValidationReport(
        "fail", {"events": 467}, "2026-01-05", "2026-01-06", (check,), (tier,), ReferenceProfile()
    )
    text = render_text(report)
    assert "events.price: price is at least 0: 7 (1.5 %)" in text and '"event_id": "e1"' in text
    assert "tier 1 purchases: open" in text
    with pytest.raises(ValidationFailed, match=r"events\.price: price is at least 0: 7"):
        raise_if_critical(report)
    raise_if_critical(replace(report, checks=()))


def said_of(folder: Path, word: str) -> str:
    """The lines of the terminal's text in which a word stands."""
    return "\n".join(line for line in render_text(validate(folder, load_time=LOADED)).splitlines() if word in line)


def test_a_table_that_is_not_there_does_not_read_as_if_it_were(tmp_path: Path) -> None:
    folder = generate_tables(tmp_path, GenerateParams(first_day=date(2026, 1, 7), days=1, rows_per_day=100))
    table_files(folder, "items")[0].unlink()
    assert said_of(folder, "(files)") == (
        "[critical] items.(files): not so: the table is there; observed neither items/*.parquet nor items.parquet;"
        " homeranker import FORMAT SRC DEST makes it"
    )


@pytest.mark.parametrize(
    ("type_", "found", "cure"),
    [
        (pa.string(), "string", "write timestamps with a zone, in UTC; or the table as CSV"),
        (pa.timestamp("us"), "timestamp[us]", "times without a zone; give them the shop's own zone and write them"),
    ],
)
def test_times_of_another_type_are_told_apart_from_a_column_that_is_missing(
    tmp_path: Path, type_: pa.DataType, found: str, cure: str
) -> None:
    folder = generate_tables(tmp_path, GenerateParams(first_day=date(2026, 1, 7), days=1, rows_per_day=100))
    (path,) = table_files(folder, "events")
    rows = pq.ParquetFile(path).read()
    at = rows.column_names.index("event_time")
    values = rows["event_time"].cast(pa.timestamp("us")).cast(type_)
    pq.write_table(rows.set_column(at, "event_time", values), path)
    said = said_of(folder, "event_time")
    assert f"event_time is of type timestamp[us, tz=UTC]: 1 (100 %); observed {found}: {cure}" in said
    assert (
        "not so: the columns event_id, event_time, event_type are there and of their types; observed missing or of"
        " another type: event_time" in said
    )


def test_drift_is_called_by_what_it_is_measured_against(tmp_path: Path) -> None:
    folder = generate_tables(tmp_path, GenerateParams(first_day=date(2025, 12, 3), days=36, rows_per_day=100))
    alone = validate(folder, load_time=LOADED)
    rules = [check.rule for check in alone.checks if check.rule.startswith(("drift:", "volume: rows", "nulls:"))]
    assert rules and all("the days before the newest week" in rule and "accepted" not in rule for rule in rules)
    again = validate(folder, load_time=LOADED, reference=alone.profile)
    assert any("as in the last accepted run" in check.rule for check in again.checks)


def test_verdict_follows_the_worst_failure() -> None:
    failed = Check("t", "c", "r", "warning", False)
    assert verdict_of((failed, replace(failed, severity="info"))) == "warn"
    assert verdict_of((failed, replace(failed, severity="critical"))) == "fail"
    assert verdict_of((replace(failed, passed=True),)) == "pass"


def test_users_are_shown_as_a_hash_only() -> None:
    assert pseudonym("jane@mail.example") == pseudonym("jane@mail.example") != pseudonym("u2")
    assert "jane" not in str(pseudonym("jane@mail.example")) and pseudonym(None) is None


def test_the_manifest_names_the_changed_and_the_missing_file(shop: Path, tmp_path: Path) -> None:
    folder = generate_tables(tmp_path, GenerateParams(days=2, rows_per_day=100))
    assert check_manifest(folder) is None
    write_manifest(folder)
    assert check_manifest(folder) == []
    first, second = table_files(folder, "events")
    first.write_bytes(first.read_bytes() + b"x")
    second.unlink()
    assert [sentence.split(": ")[1] for sentence in check_manifest(folder) or []] == [
        "its bytes are not those that were written",
        "named in the manifest, not there",
    ]
    (folder / MANIFEST).write_text(json.dumps({"sha256": {"../secret": "0"}}))
    assert check_manifest(folder) == ["../secret: lies outside the directory"]
    (folder / MANIFEST).write_text("[]")
    with pytest.raises(SourceError, match="is no manifest"):
        check_manifest(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no directory of canonical tables"):
        validate(tmp_path / "nothing")
    assert validate(tmp_path).verdict == "fail"


def test_an_expectation_that_errs_is_our_error_not_bad_data(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Rule("items", "no_such_column", "a rule with a slip", "critical", "not_null", ())
    monkeypatch.setattr(expectations, "all_rules", lambda *_: [broken])
    with pytest.raises(HomerankerError, match="error of homeranker, not of the data") as error:
        validate(shop)
    assert not isinstance(error.value, ValidationFailed)


def test_great_expectations_keeps_the_private_name_that_duckdb_needs() -> None:
    from great_expectations.execution_engine import sqlalchemy_execution_engine as module

    expectations._great_expectations()
    expectations._allow_duckdb(module)
    names = [dialect.value for dialect in module._PERSISTED_CONNECTION_DIALECTS]
    assert names.count("duckdb") == 1 and "sqlite" in names


def test_importing_validation_does_not_import_great_expectations() -> None:
    code = "import sys, features.expectations; print('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_every_table_and_severity_has_its_rules() -> None:
    rules = all_rules(ValidationParams(), LOADED)
    assert {rule.table for rule in rules} == set(TABLES)
    assert len({(r.table, r.column, r.sentence, r.severity) for r in rules}) == len(rules)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10_000), min_size=1))
def test_psi_of_a_table_with_itself_is_nothing_and_never_negative(counts: dict[str, int]) -> None:
    assert drift.psi_over_noise(counts, counts) == 0
    assert drift.psi_over_noise(counts, {"a": 5_000, "z": 5_000}) >= 0


def test_psi_sees_a_new_distribution_through_the_noise() -> None:
    assert drift.psi_over_noise({"a": 900, "b": 100}, {"a": 500, "b": 500}) > 0.5
    assert drift.psi_over_noise({"a": 6, "b": 4}, {"a": 5, "b": 5}) == 0


def test_strays_are_told_in_one_sentence_and_shut_nothing(tmp_path: Path) -> None:
    params = GenerateParams(first_day=date(2026, 1, 5), days=20, rows_per_day=100)
    tables = generate_tables(tmp_path, params)
    stray = pq.read_table(table_files(tables, "events")[0]).slice(0, 1)
    assert not [check for check in validate(tables).failed("info") if check.rule.startswith("slices:")]
    for name, value in (("event_time", datetime(2000, 1, 1, tzinfo=UTC)), ("event_id", "epoch")):
        at = stray.schema.get_field_index(name)
        stray = stray.set_column(at, stray.schema.field(at), pa.array([value], stray.schema.field(at).type))
    (tables / "events" / "date=2000-01-01").mkdir()
    pq.write_table(stray, tables / "events" / "date=2000-01-01" / "part-0.parquet")
    found = validate(tables)
    (told,) = (check for check in found.failed("info") if check.rule.startswith("slices:"))
    assert (told.unexpected, told.samples[0]["event_id"]) == (1, "epoch")
    assert "1 event of 2000 before 2026-01-04: learned from, but not deciding where the slices lie" in render_text(
        found
    )
    assert found.verdict != "fail"
