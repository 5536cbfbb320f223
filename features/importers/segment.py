"""Segment e-commerce v2 track calls, as JSON lines.

Choices. The unit is the product of a call: an order of three products is three rows, with the ids `messageId:0`,
`messageId:1`, ... `Product List Viewed` is what was shown (slates, one request for each call, no propensity). The user
is `userId`, else the device's `anonymousId`. The item is `product_id`, else `sku`. Product Clicked names no list call,
so a click is not tied to a slate by guessing. Other calls are named in quarantine.
Source: Segment's "Spec: V2 Ecommerce Events".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from features.importers.base import Importer, Mapped, Units, stable_id
from features.importers.derive import ITEM_BRAND, ITEM_CATEGORY, ITEM_TITLE, catalogue
from features.importers.sources import Records, as_platform, as_record, files_of, read_records
from features.schema import Events, Slates

ONE_PRODUCT = {
    "Product Viewed": "view",
    "Product Clicked": "click",
    "Product Added": "add_to_cart",
    "Product Removed": "remove_from_cart",
}
MANY_PRODUCTS = {"Order Completed": "purchase", "Order Refunded": "return"}
LIST, SEARCH = "Product List Viewed", "Products Searched"


def read(src: Path) -> Iterator[Mapped]:
    """Batches of `events` and `slates`."""
    for path in files_of(src, ".jsonl", ".json", ".ndjson"):
        for records in read_records(path):
            yield from _map(records)


def _map(records: Records) -> Iterator[Mapped]:
    events, slates = Units(), Units()
    for raw, number in zip(records.rows, records.numbers, strict=True):
        name, said = raw.get("event"), as_record(raw.get("properties"))
        name = name if isinstance(name, str) else None
        if raw.get("type", "track") != "track":
            events.add({}, raw, number, "type: not a track call")
        elif name in ONE_PRODUCT:
            events.add(_event(raw, ONE_PRODUCT[name], said, said, None), raw, number)
        elif name == SEARCH:
            events.add({**_event(raw, "search", {}, said, None), Events.QUERY: said.get("query")}, raw, number)
        elif name in MANY_PRODUCTS or name == LIST:
            _products(raw, number, said, name, slates if name == LIST else events)
        else:
            events.add({}, raw, number, "event: missing" if name is None else "event: not one that is read")
    yield from events.mapped(Events.TABLE, records.source)
    yield from slates.mapped(Slates.TABLE, records.source)
    yield from records.rejected(Events.TABLE)


def _products(raw: dict[str, Any], number: int, said: dict[str, Any], name: str | None, target: Units) -> None:
    products = said.get("products")
    if not isinstance(products, list) or not products:
        target.add({}, raw, number, "products: none")
        return
    for place, product in enumerate(products):
        alone = {**raw, "properties": {**said, "products": [product]}}
        if not isinstance(product, dict):
            target.add({}, alone, number, "products: not an object")
        elif name == LIST:
            target.add(_slot(raw, product, said, place), alone, number)
        else:
            target.add(_event(raw, MANY_PRODUCTS[str(name)], product, said, place), alone, number)


def _event(
    raw: dict[str, Any], kind: str, product: dict[str, Any], said: dict[str, Any], place: int | None
) -> dict[str, Any]:
    message = raw.get("messageId")
    if message is None:
        message = stable_id("segment", *(f"{name}={raw[name]}" for name in sorted(raw)))
    currency = said.get("currency")
    return {
        **_common(raw),
        Events.EVENT_ID: message if place is None else f"{message}:{place}",
        Events.EVENT_TIME: raw.get("timestamp", raw.get("originalTimestamp")),
        Events.EVENT_TYPE: kind,
        Events.ITEM_ID: _item(product),
        Events.POSITION: product.get("position"),
        Events.PRICE: product.get("price"),
        Events.QUANTITY: product.get("quantity"),
        Events.CURRENCY: currency.upper() if isinstance(currency, str) else currency,
        **_carried(product),
    }


def _slot(raw: dict[str, Any], product: dict[str, Any], said: dict[str, Any], place: int) -> dict[str, Any]:
    message = raw.get("messageId")
    return {
        **_common(raw),
        Slates.REQUEST_ID: message if message is not None else stable_id("segment", raw.get("timestamp"), said),
        Slates.SERVED_AT: raw.get("timestamp", raw.get("originalTimestamp")),
        Slates.MODULE: said.get("list_id"),
        Slates.POSITION: product.get("position", place + 1),
        Slates.ITEM_ID: _item(product),
        **_carried(product),
    }


def _common(raw: dict[str, Any]) -> dict[str, Any]:
    context = as_record(raw.get("context"))
    device, library = as_record(context.get("device")).get("type"), as_record(context.get("library")).get("name")
    user = raw.get("userId")
    return {
        Events.USER_ID: raw.get("anonymousId") if user is None else user,
        Events.PLATFORM: as_platform("web" if device is None and library == "analytics.js" else device),
    }


def _item(product: dict[str, Any]) -> Any:
    item = product.get("product_id")
    return product.get("sku") if item is None else item


def _carried(product: dict[str, Any]) -> dict[str, Any]:
    return {
        ITEM_TITLE: product.get("name"),
        ITEM_BRAND: product.get("brand"),
        ITEM_CATEGORY: product.get("category"),
    }


IMPORTER = Importer(
    read,
    "Segment e-commerce v2 track calls (JSON lines)",
    user_fields=("userId", "anonymousId"),
    derive=catalogue(with_users=True),
)
