"""UCI Online Retail: every order line of a UK gift shop, December 2010 to December 2011.

Choices. The trimmed, upper-cased Description is the item; CustomerID and InvoiceDate make the basket (session), as the
invoice and stock numbers are missing from this copy. A guest's basket is the minute and the country: user null, so it
teaches what is bought together and nothing about a person. Negative quantities are returns. InvoiceDate is UK wall
time without a zone and is taken as UTC, so summer times are one hour late, alike for all. Two identical lines of one
basket are two order lines, not a retry: the event id hashes the line and its occurrence. Line n of a basket is n - 1
microseconds late, so that the order of the lines, in which people put related things together, survives sorting.
Left out, with a reason: lines without a description, the five fees of the published yardsticks, prices <= 0, and, for
guests and returns, further bookkeeping titles. Purchases of known customers keep those (16 DOTCOM POSTAGE, 79 NEXT DAY
CARRIAGE), so that the rows are exactly the ones that the published figures were measured on.
Source: Chen (2015), UCI Machine Learning Repository, DOI 10.24432/C5BW33.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import SchemaError, SourceError
from features.importers.base import BATCH, Importer, Mapped, mapped
from features.importers.derive import COUNTRY, catalogue
from features.importers.rules import first_of, fit_integers, mark, no_reasons
from features.schema import TIMESTAMP, Column, Events
from features.tables import connect_duckdb, open_parquet

NEEDED = ("Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
FEES = ("POSTAGE", "CARRIAGE", "MANUAL", "BANK CHARGES", "DISCOUNT")
BOOKKEEPING = r"^(DOTCOM POSTAGE|NEXT DAY CARRIAGE|CRUK.*|AMAZON.*|SAMPLES|.*ADJUST.*|DAMAGE.*|TEST|[?].*|DOTCOM|EBAY)$"

_TEXT = "CAST(InvoiceDate AS VARCHAR)"
_QUERY = f"""
SELECT *, upper(trim(Description)) AS item,
  CAST(InvoiceDate AS TIMESTAMP)
    + to_microseconds(row_number() OVER (PARTITION BY InvoiceDate, CustomerID, Country ORDER BY number) - 1) AS at,
  CAST(TRY_CAST(CustomerID AS BIGINT) AS VARCHAR) AS buyer,
  row_number() OVER (PARTITION BY Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country ORDER BY number)
    AS occurrence
FROM (SELECT {", ".join(NEEDED)}, file_row_number AS number FROM read_parquet(?, file_row_number = true))
"""  # noqa: S608 - constants of this file
_KEYED = f"""
SELECT *, left(sha256(concat_ws('|', 'line', coalesce(Description, '-'), Quantity, {_TEXT}, UnitPrice,
    coalesce(buyer, '-'), coalesce(Country, '-'), occurrence)), 32) AS event_id,
  left(sha256(CASE WHEN buyer IS NULL THEN concat_ws('|', 'guest-', {_TEXT}, Country)
    ELSE concat_ws('|', 'basket', buyer, {_TEXT}) END), 32) AS session_id
FROM ({_QUERY}) ORDER BY number
"""  # noqa: S608 - constants of this file


def read(src: Path) -> Iterator[Mapped]:
    """Batches of `events` in the order of the file; SchemaError where a column is missing."""
    path = src / "online_retail.parquet" if src.is_dir() else src
    if not path.is_file():
        raise SourceError(f"{path}: no such file; online-retail needs the Parquet file")
    names = open_parquet(path).schema_arrow.names
    if lacking := [name for name in NEEDED if name not in names]:
        raise SchemaError(f"{path}: no column {', '.join(lacking)}; online-retail needs {', '.join(NEEDED)}")
    connection = connect_duckdb()
    try:
        for batch in connection.sql(_KEYED, params=[str(path)]).to_arrow_reader(BATCH):
            yield _map(pa.Table.from_batches([batch]), path.name)
    except (duckdb.ConversionException, duckdb.BinderException, duckdb.IOException) as error:
        raise SourceError(f"{path}: not the Online Retail table ({error}); copy or export it again") from error
    finally:
        connection.close()


def _map(rows: pa.Table, source: str) -> Mapped:
    column = {name: rows[name].combine_chunks() for name in rows.column_names}
    length = rows.num_rows
    quantity = column["Quantity"].cast(pa.int64())
    units = fit_integers(pc.abs(quantity), Column(Events.QUANTITY, pa.int32()), no_reasons(length))
    returned = pc.less(quantity, 0)
    columns: dict[str, list[object] | pa.Array] = {
        Events.EVENT_ID: column["event_id"],
        Events.EVENT_TIME: column["at"].cast(TIMESTAMP),
        Events.EVENT_TYPE: pc.if_else(pc.fill_null(returned, False), "return", "purchase"),
        Events.USER_ID: column["buyer"],
        Events.SESSION_ID: column["session_id"],
        Events.ITEM_ID: column["item"],
        Events.PRICE: column["UnitPrice"].cast(pa.float64()),
        Events.QUANTITY: units.values,
        Events.CURRENCY: pa.array(["GBP"] * length),
        Events.PLATFORM: pa.array(["web"] * length),
        COUNTRY: column["Country"],
    }
    batch = mapped(Events.TABLE, source, columns, rows.select(NEEDED), column["number"])
    reasons = first_of(_objections(column, returned), units.reasons, batch.reasons)
    return Mapped(batch.table, source, batch.rows, reasons, batch.raw, batch.numbers)


def _objections(column: dict[str, pa.Array], returned: pa.Array) -> pa.Array:
    item, price = column["item"], column["UnitPrice"]
    reasons = no_reasons(len(item))
    reasons = mark(reasons, pc.or_kleene(pc.is_null(item), pc.equal(item, "")), "no description")
    reasons = mark(reasons, pc.is_in(item, pa.array(FEES)), "a fee or a discount, not an item")
    reasons = mark(
        reasons, pc.or_kleene(pc.is_null(column["Quantity"]), pc.equal(column["Quantity"], 0)), "quantity 0 or missing"
    )
    reasons = mark(reasons, pc.less_equal(price, 0), "price not above 0 (a free line, a correction or a stock note)")
    trusted = pc.and_(pc.is_valid(column["buyer"]), pc.invert(pc.fill_null(returned, False)))
    booked = pc.and_(pc.match_substring_regex(item, BOOKKEEPING), pc.invert(trusted))
    return mark(reasons, booked, "bookkeeping, not an item")


IMPORTER = Importer(
    read,
    "UCI Online Retail (Parquet): purchases and returns",
    user_fields=("CustomerID",),
    derive=catalogue(title_is_id=True, with_users=True),
)
