"""Batches cast to the canonical types.

Choices. Units, widths and encodings may differ (milliseconds, int64, dictionaries); another kind of type is an error
that names table, column, found and expected type. A naive time is an error too, as no one can know its zone.
"""

from __future__ import annotations

import pyarrow as pa

from features.errors import SchemaError
from features.schema import PARTITION, TABLES, TIMESTAMP, Column, Quarantine


def columns_of(table: str) -> tuple[Column, ...]:
    """The columns of a canonical table or of `quarantine`."""
    return Quarantine.COLUMNS if table == Quarantine.TABLE else TABLES[table].COLUMNS


def conform(rows: pa.Table, table: str, where: str) -> pa.Table:
    """`rows` cast to the canonical types of `table`, canonical columns first.

    Raises SchemaError, naming table, column, found and expected type, for a wrong type or a missing required column.
    """
    arrays: list[pa.ChunkedArray] = []
    columns = columns_of(table)
    for column in columns:
        if column.name in rows.column_names:
            arrays.append(cast_column(rows[column.name], column, table, where))
        elif column.nullable:
            arrays.append(pa.chunked_array([pa.nulls(rows.num_rows, column.type)]))
        else:
            raise SchemaError(f"{where}: table {table!r} has no column {column.name!r}, which is required")
    names = [column.name for column in columns]
    extras = sorted(name for name in rows.column_names if name not in names and name != PARTITION)
    return pa.table([*arrays, *(rows[name] for name in extras)], names=[*names, *extras])


def cast_column(values: pa.ChunkedArray, column: Column, table: str, where: str) -> pa.ChunkedArray:
    """`values` in the column's canonical type; SchemaError where the type is another or a value does not fit."""
    check_type(values.type, column, table, where)
    try:
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        # Times finer than a microsecond are cut; everything else must fit.
        return values.cast(column.type, safe=column.type != TIMESTAMP)
    except pa.ArrowInvalid as error:
        raise SchemaError(f"{where}: table {table!r}, column {column.name!r}: {error}") from error


def check_type(found: pa.DataType, column: Column, table: str, where: str) -> None:
    """SchemaError unless `found` holds the same values as the column's type (unit, width and encoding may differ)."""
    if column.type == TIMESTAMP and pa.types.is_timestamp(found) and found.tz is None:
        raise SchemaError(
            f"{where}: table {table!r}, column {column.name!r} holds times without a zone ({found}); "
            f"expected {column.type}: write them in UTC"
        )
    if not _same_kind(found, column.type):
        raise SchemaError(f"{where}: table {table!r}, column {column.name!r} is {found}, expected {column.type}")


def _same_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    t = pa.types
    if t.is_dictionary(found):
        found = found.value_type
    if t.is_null(found) or found == wanted:
        return True
    if t.is_string(wanted):
        return bool(t.is_large_string(found) or t.is_string_view(found))
    if t.is_timestamp(wanted):
        return bool(t.is_timestamp(found))
    if t.is_list(wanted):
        nested = t.is_list(found) or t.is_large_list(found) or t.is_fixed_size_list(found)
        return bool(nested and _same_kind(found.value_type, pa.float64()))
    if t.is_floating(wanted):
        return bool(t.is_floating(found) or t.is_integer(found) or t.is_decimal(found))
    return bool(t.is_integer(wanted) and t.is_integer(found))
