"""Google Analytics 4 e-commerce export, as JSON lines or Parquet (the rows of BigQuery's `events_*` tables).

Choices. The unit is the item of a record: a purchase of three items is three rows. `view_item_list` is what was shown
(slates, without propensity), one request for each record and list; all else is events. `index` counts from 0, as in
Google's examples, so position = index + 1, and the order of `items` where it is missing. Records that are no shop event
(page_view, session_start, ...) are named in quarantine. GA4 names no request, so a click is not tied to a slate by
guessing from times. `(not set)` is null. An identical item of an identical record is a retry.
Source: the GA4 BigQuery Export schema and the e-commerce event reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from features.importers.base import Importer, Mapped, Units, stable_id
from features.importers.derive import COUNTRY, ITEM_BRAND, ITEM_CATEGORY, ITEM_TITLE, catalogue
from features.importers.sources import Records, as_platform, as_record, files_of, read_records
from features.schema import Events, Slates

MICROSECONDS = 1_000_000
EVENT_TYPES = {
    "view_item": "view",
    "select_item": "click",
    "add_to_cart": "add_to_cart",
    "remove_from_cart": "remove_from_cart",
    "purchase": "purchase",
    "refund": "return",
}
LISTS = ("view_item_list", "view_search_results")
SEARCH = "view_search_results"


def read(src: Path) -> Iterator[Mapped]:
    """Batches of `events` and `slates`."""
    for path in files_of(src, ".jsonl", ".json", ".ndjson", ".parquet"):
        for records in read_records(path):
            yield from _map(records)


def _map(records: Records) -> Iterator[Mapped]:
    events, slates = Units(), Units()
    for raw, number in zip(records.rows, records.numbers, strict=True):
        name = raw.get("event_name")
        name = name if isinstance(name, str) else None
        items = raw.get("items")
        if name == SEARCH:
            events.add(_event(raw, "search", {}, 0), raw, number)
        elif name not in EVENT_TYPES and name not in LISTS:
            events.add({}, raw, number, "event_name: missing" if name is None else "event_name: not one that is read")
            continue
        elif not isinstance(items, list) or not items:
            events.add({}, raw, number, "items: none")
            continue
        for place, item in enumerate(items if isinstance(items, list) else ()):
            alone = {**raw, "items": [item]}
            target = slates if name in LISTS else events
            if not isinstance(item, dict):
                target.add({}, alone, number, "items: not an object")
            elif name in LISTS:
                slates.add(_slot(raw, item, place), alone, number)
            else:
                events.add(_event(raw, EVENT_TYPES[name or ""], item, place), alone, number)
    yield from events.mapped(Events.TABLE, records.source, {Events.EVENT_TIME: MICROSECONDS})
    yield from slates.mapped(Slates.TABLE, records.source, {Slates.SERVED_AT: MICROSECONDS})
    yield from records.rejected(Events.TABLE)


def _event(raw: dict[str, Any], kind: str, item: dict[str, Any], place: int) -> dict[str, Any]:
    transaction = as_record(raw.get("ecommerce")).get("transaction_id")
    more = [raw.get(name) for name in ("event_bundle_sequence_id", "batch_event_index", "event_params")]
    return {
        **_common(raw),
        Events.EVENT_ID: stable_id(
            "ga4", raw.get("user_pseudo_id"), raw.get("event_timestamp"), kind, transaction, *more, place, item
        ),
        Events.EVENT_TIME: raw.get("event_timestamp"),
        Events.EVENT_TYPE: kind,
        Events.ITEM_ID: _set(item.get("item_id")),
        Events.POSITION: _position(item, None) if item else None,
        Events.PRICE: item.get("price"),
        Events.QUANTITY: item.get("quantity"),
        Events.CURRENCY: _upper(_param(raw, "currency") or raw.get("currency")) if item else None,
        Events.QUERY: _param(raw, "search_term") if kind == "search" else None,
        COUNTRY: as_record(raw.get("geo")).get("country"),
        **_carried(item),
    }


def _slot(raw: dict[str, Any], item: dict[str, Any], place: int) -> dict[str, Any]:
    shown = _set(item.get("item_list_id")) or _set(item.get("item_list_name"))
    return {
        **_common(raw),
        Slates.REQUEST_ID: stable_id("ga4", raw.get("user_pseudo_id"), raw.get("event_timestamp"), shown),
        Slates.SERVED_AT: raw.get("event_timestamp"),
        Slates.MODULE: shown,
        Slates.SURFACE: "search" if raw.get("event_name") == SEARCH else None,
        Slates.POSITION: _position(item, place),
        Slates.ITEM_ID: _set(item.get("item_id")),
        **_carried(item),
    }


def _common(raw: dict[str, Any]) -> dict[str, Any]:
    user, session = _set(raw.get("user_pseudo_id")), _param(raw, "ga_session_id")
    return {
        Events.USER_ID: user,
        Events.SESSION_ID: stable_id("ga4", user, session) if session is not None else None,
        Events.PLATFORM: as_platform(raw.get("platform")),
    }


def _carried(item: dict[str, Any]) -> dict[str, Any]:
    levels = [_set(item.get(name)) for name in ("item_category", *(f"item_category{n}" for n in range(2, 6)))]
    return {
        ITEM_TITLE: _set(item.get("item_name")),
        ITEM_BRAND: _set(item.get("item_brand")),
        ITEM_CATEGORY: " > ".join(str(level) for level in levels if level) or None,
    }


def _position(item: dict[str, Any], place: int | None) -> Any:
    index = _set(item.get("index", item.get("item_list_index")))
    if index is None:
        return None if place is None else place + 1
    try:
        return int(index) + 1
    except (ValueError, TypeError, OverflowError):
        return index  # the rules say what is wrong with it


def _set(value: Any) -> Any:
    return None if value in ("(not set)", "") else value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _param(raw: dict[str, Any], key: str) -> Any:
    params = raw.get("event_params")
    for param in params if isinstance(params, list) else ():
        if isinstance(param, dict) and param.get("key") == key:
            values = as_record(param.get("value"))
            return next((value for value in values.values() if value is not None), None)
    return None


IMPORTER = Importer(
    read,
    "Google Analytics 4 e-commerce export (JSON lines or Parquet)",
    user_fields=("user_pseudo_id", "user_id"),
    derive=catalogue(with_users=True),
)
