"""Online Retail becomes exactly the rows that the published yardsticks were measured on."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import SchemaError, SourceError
from features.importers import import_data
from features.importers.online_retail import FEES
from features.tables import read_table

SOURCE = Path(__file__).parents[2] / "data" / "online_retail.parquet"
CLEAN = "CustomerID IS NOT NULL AND Description IS NOT NULL AND Quantity > 0 AND UnitPrice > 0"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("online-retail")
    report = import_data("online-retail", SOURCE, dest)
    events = report.tables["events"]
    assert events.rows_in == 541_909
    assert events.rows_out + events.merged + sum(events.quarantined.values()) == events.rows_in
    assert read_table(dest, "quarantine").num_rows == report.quarantined
    return dest


def test_known_answers_of_the_source() -> None:
    found = duckdb.execute(
        "SELECT count(*), count(DISTINCT CustomerID), count(DISTINCT Description), "
        f"count(DISTINCT (CustomerID, InvoiceDate)) FROM '{SOURCE}' WHERE {CLEAN}"
    ).fetchone()
    assert found == (397_884, 4_338, 3_877, 18_440)


def test_purchases_of_known_customers_are_the_clean_rows_less_the_five_fees(imported: Path) -> None:
    fees = ", ".join(f"'{fee}'" for fee in FEES)
    wanted = (
        "SELECT CAST(CAST(CustomerID AS BIGINT) AS VARCHAR) u, upper(trim(Description)) i, "
        f"CAST(InvoiceDate AS TIMESTAMP) t, Quantity q, UnitPrice p FROM '{SOURCE}' "
        f"WHERE {CLEAN} AND upper(trim(Description)) NOT IN ({fees})"
    )
    found = (
        "SELECT user_id u, item_id i, date_trunc('minute', event_time AT TIME ZONE 'UTC') t, quantity q, price p "
        f"FROM '{imported}/events/*/*.parquet' WHERE user_id IS NOT NULL AND event_type = 'purchase'"
    )
    assert duckdb.execute(f"SELECT count(*) FROM ({wanted})").fetchone() == (396_356,)
    for one, other in ((wanted, found), (found, wanted)):
        assert duckdb.execute(f"SELECT count(*) FROM ({one} EXCEPT ALL {other})").fetchone() == (0,)


def test_baskets_guests_and_catalogue(imported: Path) -> None:
    events = f"'{imported}/events/*/*.parquet'"
    baskets, users, items = duckdb.execute(
        f"SELECT count(DISTINCT session_id), count(DISTINCT user_id), count(DISTINCT item_id) FROM {events} "
        "WHERE user_id IS NOT NULL AND event_type = 'purchase'"
    ).fetchone()  # type: ignore[misc]
    assert (baskets, users, items) == (18_310, 4_334, 3_862)
    lost = f"SELECT count(*) FROM {events} WHERE item_id NOT IN (SELECT item_id FROM '{imported}/items/*.parquet')"
    assert duckdb.execute(lost).fetchone() == (0,)
    nobody = f"SELECT count(*), count(session_id) FROM {events} WHERE user_id IS NULL"
    rows, with_session = duckdb.execute(nobody).fetchone()  # type: ignore[misc]
    assert rows == with_session > 100_000
    price = f"SELECT price, title, currency FROM '{imported}/items/*.parquet' WHERE item_id = 'WHITE METAL LANTERN'"
    assert duckdb.execute(price).fetchone() == (3.75, "WHITE METAL LANTERN", "GBP")


def test_identical_lines_of_a_basket_are_two_lines(tmp_path: Path) -> None:
    line = {"Description": " mug ", "Quantity": 2, "UnitPrice": 1.0, "CustomerID": 7.0, "Country": "France"}
    table = pa.Table.from_pylist([line, line]).append_column(
        "InvoiceDate", pa.array([1_291_191_960_000_000] * 2, pa.timestamp("us"))
    )
    pq.write_table(table, tmp_path / "or.parquet")
    report = import_data("online-retail", tmp_path / "or.parquet", tmp_path / "out")
    assert report.tables["events"].rows_out == 2
    events = read_table(tmp_path / "out", "events").to_pylist()
    assert {e["item_id"] for e in events} == {"MUG"}
    assert len({e["event_id"] for e in events}) == 2
    assert len({e["session_id"] for e in events}) == 1


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"Description": ["a"]}), tmp_path / "or.parquet")
    with pytest.raises(SchemaError, match="no column Quantity, InvoiceDate, UnitPrice, CustomerID, Country"):
        import_data("online-retail", tmp_path / "or.parquet", tmp_path / "out")


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "or.parquet").write_bytes(SOURCE.read_bytes()[:100_000])
    with pytest.raises(SourceError, match=r"or\.parquet: not a readable Parquet file, truncated or damaged"):
        import_data("online-retail", tmp_path / "or.parquet", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*/*.parquet"))
