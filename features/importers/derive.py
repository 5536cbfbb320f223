"""A catalogue for sources that have none, made from the events and slates that were just written.

Choices. Titles, brands and categories that an event carried travel as extra columns (`item_title`, ...), so that no
importer has to remember items; the latest one that was said of an item counts. The price is the median over its
purchases, else over all its events that carry one, because a single line may be an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from features.importers.base import BATCH, Mapped, mapped
from features.importers.rules import no_reasons
from features.schema import TABLES, Events, Items, Slates, Users
from features.tables import connect_duckdb, read_schema, table_files

ITEM_TITLE, ITEM_BRAND, ITEM_CATEGORY, COUNTRY = "item_title", "item_brand", "item_category", "country"
_EXTRAS = {ITEM_TITLE: Items.TITLE, ITEM_BRAND: Items.BRAND, ITEM_CATEGORY: Items.CATEGORY}


def catalogue(title_is_id: bool = False, with_users: bool = False) -> Callable[[Path], Iterator[Mapped]]:
    """A `derive` function: `items` from events and slates, and `users` from events where `with_users`."""

    def derive(dest: Path) -> Iterator[Mapped]:
        if not table_files(dest, Items.TABLE):
            yield from _rows(dest, Items.TABLE, _items_query(dest, title_is_id))
        if with_users and not table_files(dest, Users.TABLE):
            yield from _rows(dest, Users.TABLE, _users_query(dest))

    return derive


def _rows(dest: Path, table: str, query: str) -> Iterator[Mapped]:
    if not query:
        return
    connection = connect_duckdb()
    try:
        number = 0
        for batch in connection.sql(query).to_arrow_reader(BATCH):
            rows = pa.Table.from_batches([batch])
            columns = {name: rows[name].combine_chunks() for name in rows.column_names}
            numbers = pa.array(range(number, number + rows.num_rows), pa.int64())
            made = mapped(table, "derived", columns, rows, numbers)
            yield Mapped(table, made.source, made.rows, no_reasons(rows.num_rows), rows, numbers, derived=True)
            number += rows.num_rows
    finally:
        connection.close()


def _source(dest: Path, table: str) -> str:
    names = ", ".join("'" + str(path).replace("'", "''") + "'" for path in table_files(dest, table))
    return f"read_parquet([{names}], union_by_name = true, hive_partitioning = false)" if names else ""


def _present(dest: Path, table: str, wanted: Iterable[str]) -> list[str]:
    return [name for name in wanted if name in read_schema(dest, table).names]


def _items_query(dest: Path, title_is_id: bool) -> str:
    parts, told = [], set()
    for table, time in ((Events.TABLE, Events.EVENT_TIME), (Slates.TABLE, Slates.SERVED_AT)):
        if source := _source(dest, table):
            carried = _present(dest, table, (Events.EVENT_TYPE, Events.PRICE, Events.CURRENCY, *_EXTRAS))
            columns = ", ".join(["item_id", f"{time} AS t", *carried])
            parts.append(f"SELECT {columns} FROM {source}")  # noqa: S608 - names of our own
            told |= set(carried) & set(_EXTRAS)
    if Events.TABLE not in {name for name in TABLES if table_files(dest, name)}:
        return ""
    latest = [f"arg_max({e}, t) FILTER ({e} IS NOT NULL) AS {_EXTRAS[e]}" for e in _EXTRAS if e in told]
    latest += ["item_id AS title"] if title_is_id else []
    return (
        f"SELECT item_id, {', '.join([*latest, ''])} "  # noqa: S608 - names of our own
        f"coalesce(median(price) FILTER (event_type = 'purchase'), median(price)) AS price, "
        f"arg_max(currency, t) FILTER (currency IS NOT NULL) AS currency, true AS available, min(t) AS listed_at "
        f"FROM ({' UNION ALL BY NAME '.join(parts)}) WHERE item_id IS NOT NULL GROUP BY item_id ORDER BY item_id"
    )


def _users_query(dest: Path) -> str:
    if not (source := _source(dest, Events.TABLE)):
        return ""
    country = f"arg_min({COUNTRY}, event_time) AS country, " if _present(dest, Events.TABLE, [COUNTRY]) else ""
    return (
        f"SELECT user_id, min(event_time) AS first_seen, {country}"  # noqa: S608 - names of our own
        f"arg_min(platform, event_time) AS platform FROM {source} WHERE user_id IS NOT NULL "
        f"GROUP BY user_id ORDER BY user_id"
    )
