"""Canonical tables as CSV or Parquet: a directory with `events/`, `events.parquet` or `events.csv`, and so on.

Choices. Parquet of a wrong type is an error of the whole file (SchemaError), because every row of it is affected; a
value of CSV that does not parse sets its row aside. Ids that were written as integers become text. Unknown columns are
kept (of CSV as text).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.conform import cast_column, check_type, columns_of
from features.errors import SourceError
from features.importers.base import BATCH, Importer, Mapped, mapped
from features.importers.rules import Parsed, check_utf8, first_of, fit_integers, no_reasons
from features.importers.sources import csv_header, need_columns, read_csv
from features.schema import PARTITION, TABLES, TIMESTAMP, Column, Events, Users
from features.tables import read_batches, table_files


def read(src: Path) -> Iterator[Mapped]:
    """Batches of every table that `src` holds; SourceError where there is no `events`."""
    if not src.is_dir():
        raise SourceError(f"{src}: not a directory; name the one that holds events/, items/ and so on")
    if not (table_files(src, Events.TABLE) or _csv_files(src, Events.TABLE)):
        raise SourceError(
            f"{src}: no table 'events'; expected events/*.parquet, events.parquet, events/*.csv or events.csv"
        )
    for table in TABLES:
        for path in table_files(src, table):
            yield from _read_parquet(path, src, table)
        for path in _csv_files(src, table):
            yield from _read_csv(path, src, table)


def _csv_files(src: Path, table: str) -> list[Path]:
    single = [src / f"{table}.csv"] if (src / f"{table}.csv").is_file() else []
    found = [path for path in (src / table).rglob("*.csv") if path.is_file()]
    return single + sorted(path for path in found if not any(p[0] in "._" for p in path.relative_to(src).parts))


def _required(table: str) -> tuple[str, ...]:
    return tuple(column.name for column in columns_of(table) if not column.nullable)


def _read_csv(path: Path, src: Path, table: str) -> Iterator[Mapped]:
    header = csv_header(path)
    need_columns(path, header, _required(table), f"table {table!r}")
    for records in read_csv(path):
        source = str(path.relative_to(src))
        columns: dict[str, list[Any] | pa.Array] = {
            name: [row[name] for row in records.rows] for name in dict.fromkeys(header) if name != PARTITION
        }
        yield mapped(table, source, columns, records.rows, records.numbers)
        yield from records.rejected(table)


def _read_parquet(path: Path, src: Path, table: str) -> Iterator[Mapped]:
    number = 0
    for batch in read_batches(path, BATCH):
        need_columns(path, batch.column_names, _required(table), f"table {table!r}")
        arrays, reasons = {}, no_reasons(batch.num_rows)
        for column in columns_of(table):
            if column.name in batch.column_names:
                parsed = _convert(batch[column.name], column, table, str(path))
                arrays[column.name], reasons = parsed.values, first_of(reasons, parsed.reasons)
            else:
                arrays[column.name] = pa.nulls(batch.num_rows, column.type)
        for name in sorted(set(batch.column_names) - set(arrays) - {PARTITION}):
            arrays[name] = batch[name].combine_chunks()
        numbers = pa.array(range(number, number + batch.num_rows), pa.int64())
        yield Mapped(table, str(path.relative_to(src)), pa.table(arrays), reasons, batch, numbers)
        number += batch.num_rows


def _convert(values: pa.ChunkedArray, column: Column, table: str, where: str) -> Parsed:
    if pa.types.is_string(column.type) and pa.types.is_integer(values.type) and column.is_id:
        values = values.cast(pa.string())
    check_type(values.type, column, table, where)
    if pa.types.is_integer(column.type) and pa.types.is_integer(values.type):
        wide = values.cast(pa.int64()).combine_chunks()
        return fit_integers(wide, column, no_reasons(len(wide)))
    array = cast_column(values, column, table, where).combine_chunks()
    if column.type == TIMESTAMP or not pa.types.is_string(column.type):
        return Parsed(array, no_reasons(len(array)))
    checked = check_utf8(array)
    return Parsed(checked.values, pc.binary_join_element_wise(pa.scalar(column.name), checked.reasons, ": "))


IMPORTER = Importer(read, "canonical tables as Parquet or CSV", user_fields=(Users.USER_ID,))
