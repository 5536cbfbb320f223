"""Amazon Personalize datasets as CSV: interactions, and the ITEMS and USERS sets where they lie beside them.

Choices. A file is known by its columns, not by its name. Personalize has no event id: the id hashes the row, so an
identical row is taken for a retry. EVENT_VALUE means what the shop chose (a price, a rating, a share watched) and is
kept as an extra column, never read as a price. IMPRESSION `a|b|c` is what was shown, in that order: slates without a
propensity, under RECOMMENDATION_ID or an id made from user, time and list. Without EVENT_TYPE every row is a view.
Source: the schema pages of the Amazon Personalize developer guide.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from features.errors import SourceError
from features.importers.base import Importer, Mapped, Units, stable_id
from features.importers.derive import catalogue
from features.importers.sources import csv_header, files_of, need_columns, read_csv
from features.schema import Events, Items, Slates, Users

NEEDED = ("USER_ID", "ITEM_ID", "TIMESTAMP")
SECONDS = 1
SYNONYMS = {
    "view": ("view", "detailpageview", "productview", "viewitem", "itemview", "pageview", "watch"),
    "click": ("click", "selectitem", "itemclick", "productclick"),
    "add_to_cart": ("addtocart", "cart", "addtobasket", "addcart", "basket"),
    "remove_from_cart": ("removefromcart", "removecart", "removefrombasket"),
    "purchase": ("purchase", "buy", "order", "bought", "transaction"),
    "return": ("return", "refund", "returned"),
    "search": ("search",),
}
_TYPES = {synonym: kind for kind, synonyms in SYNONYMS.items() for synonym in synonyms}


def read(src: Path) -> Iterator[Mapped]:
    """Batches of `events` and `slates`, and of `items` and `users` where the sets are there."""
    files = files_of(src, ".csv")
    headers = {path: [name.upper() for name in csv_header(path)] for path in files}
    interactions = [path for path in files if "TIMESTAMP" in headers[path] or set(NEEDED[:2]) <= set(headers[path])]
    if not interactions and not src.is_file():
        raise SourceError(f"{src}: no interactions; a CSV with {', '.join(NEEDED)} was expected")
    for path in interactions or files:
        need_columns(path, headers[path], NEEDED, "personalize (interactions)")
        yield from _interactions(path)
    for path in files:
        if path not in interactions and "ITEM_ID" in headers[path]:
            yield from _catalogue(path, Items.TABLE)
        elif path not in interactions and "USER_ID" in headers[path]:
            yield from _catalogue(path, Users.TABLE)


def _upper(row: dict[str, Any]) -> dict[str, Any]:
    return {name.upper(): value for name, value in row.items()}


def _event_type(row: dict[str, Any]) -> Any:
    if "EVENT_TYPE" not in row:
        return "view"
    value = row["EVENT_TYPE"]
    plain = "".join(c for c in (value or "").lower() if c.isalnum())
    return _TYPES.get(plain, value)


def _interactions(path: Path) -> Iterator[Mapped]:
    for records in read_csv(path):
        events, slates = Units(), Units()
        for raw, number in zip(records.rows, records.numbers, strict=True):
            row = _upper(raw)
            shown = row["IMPRESSION"].split("|") if row.get("IMPRESSION") else []
            request = row.get("RECOMMENDATION_ID")
            if shown and not request:
                request = stable_id("impression", row["USER_ID"], row["TIMESTAMP"], row["IMPRESSION"])
            events.add(_event(row, shown, request), raw, number)
            for position, item in enumerate(shown, start=1):
                slates.add(_slot(row, request, position, item), raw, number)
        yield from events.mapped(Events.TABLE, records.source, {Events.EVENT_TIME: SECONDS})
        yield from slates.mapped(Slates.TABLE, records.source, {Slates.SERVED_AT: SECONDS})
        yield from records.rejected(Events.TABLE)


def _event(row: dict[str, Any], shown: list[str], request: str | None) -> dict[str, Any]:
    item = row["ITEM_ID"]
    return {
        Events.EVENT_ID: stable_id("personalize", *(f"{name}={row[name]}" for name in sorted(row))),
        Events.EVENT_TIME: row["TIMESTAMP"],
        Events.EVENT_TYPE: _event_type(row),
        Events.USER_ID: row["USER_ID"],
        Events.ITEM_ID: item,
        Events.REQUEST_ID: request,
        Events.POSITION: shown.index(item) + 1 if item in shown else None,
        "event_value": row.get("EVENT_VALUE"),
    }


def _slot(row: dict[str, Any], request: str | None, position: int, item: str) -> dict[str, Any]:
    return {
        Slates.REQUEST_ID: request,
        Slates.SERVED_AT: row["TIMESTAMP"],
        Slates.USER_ID: row["USER_ID"],
        Slates.POSITION: position,
        Slates.ITEM_ID: item,
    }


def _catalogue(path: Path, table: str) -> Iterator[Mapped]:
    time = {Items.LISTED_AT: SECONDS} if table == Items.TABLE else {}
    for records in read_csv(path):
        units = Units()
        for raw, number in zip(records.rows, records.numbers, strict=True):
            row = _upper(raw)
            units.add(_item(row) if table == Items.TABLE else _plain(row), raw, number)
        yield from units.mapped(table, records.source, time)
        yield from records.rejected(table)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in row.items()}


def _item(row: dict[str, Any]) -> dict[str, Any]:
    levels = [row.get(f"CATEGORY_L{level}") for level in (1, 2, 3, 4)]
    category = " > ".join(level for level in levels if level) or row.get("CATEGORY") or row.get("CATEGORIES")
    said = {Items.AVAILABLE: "true", **_plain(row)}
    return {**said, Items.CATEGORY: category, Items.LISTED_AT: row.get("CREATION_TIMESTAMP")}


IMPORTER = Importer(
    read,
    "Amazon Personalize datasets (CSV): interactions, items, users",
    user_fields=("USER_ID", "user_id"),
    derive=catalogue(),
)
