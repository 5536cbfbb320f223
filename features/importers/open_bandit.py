"""Open Bandit Dataset (ZOZOTOWN's homepage): one row is one impression with its true propensity.

Choices. Each row is a request of its own with one slot, as the log does not say which rows were one page; `position`
is the place on the page and the propensity is of that place. A click becomes an event that names the request. There
are no users: the user features stay as extra columns. The policy is the name of the folder above (`random`, `bts`).
Item numbers start anew in each campaign (`all`, `men`, `women`), so an item is `men-29`.
Source: Saito et al. (2020), Open Bandit Dataset; CSV as in the `obp` package.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from features.errors import SourceError
from features.importers.base import Importer, Mapped, Units, stable_id
from features.importers.derive import catalogue
from features.importers.sources import Records, csv_header, files_of, need_columns, read_csv
from features.schema import Events, Items, Slates

NEEDED = ("timestamp", "item_id", "position", "click", "propensity_score")
CONTEXT = "item_context.csv"


def read(src: Path) -> Iterator[Mapped]:
    """Batches of `slates` and `events`, and of `items` from `item_context.csv`."""
    files = files_of(src, ".csv")
    logs = [path for path in files if path.name != CONTEXT]
    if not logs:
        raise SourceError(f"{src}: no log; a CSV with {', '.join(NEEDED)} was expected")
    for path in logs:
        need_columns(path, csv_header(path), NEEDED, "open-bandit")
        policy = path.resolve().parent.parent.name
        name = "/".join(path.resolve().parts[-3:])
        for records in read_csv(path):
            yield from _map(records, name, policy if policy in ("random", "bts") else None)
    folder = src if src.is_dir() else src.parent
    for path in sorted(folder.rglob(CONTEXT)):
        need_columns(path, csv_header(path), ("item_id",), "open-bandit (item_context.csv)")
        for records in read_csv(path):
            yield from _items(records, path.resolve().parent.name)


def _map(records: Records, name: str, policy: str | None) -> Iterator[Mapped]:
    events, slates = Units(), Units()
    for raw, number in zip(records.rows, records.numbers, strict=True):
        request = stable_id("open-bandit", name, number)
        click, item = raw["click"], _item(name.split("/")[-2], raw["item_id"])
        objection = None if click in ("0", "1") else "click: neither 0 nor 1"
        features = {k.replace("-", "_"): v for k, v in raw.items() if k.startswith("user")}
        slot = {
            Slates.REQUEST_ID: request,
            Slates.SERVED_AT: raw["timestamp"],
            Slates.SURFACE: "home",
            Slates.POSITION: raw["position"],
            Slates.ITEM_ID: item,
            Slates.PROPENSITY: raw["propensity_score"],
            Slates.POLICY: policy,
            Slates.SPONSORED: "false",
        }
        slates.add({**features, **slot}, raw, number, objection)
        if click == "1":
            events.add(_click(raw, request, item), raw, number)
    yield from slates.mapped(Slates.TABLE, records.source)
    yield from events.mapped(Events.TABLE, records.source)
    yield from records.rejected(Slates.TABLE)


def _click(raw: dict[str, Any], request: str, item: str | None) -> dict[str, Any]:
    return {
        Events.EVENT_ID: stable_id("click", request),
        Events.EVENT_TIME: raw["timestamp"],
        Events.EVENT_TYPE: "click",
        Events.ITEM_ID: item,
        Events.SURFACE: "home",
        Events.REQUEST_ID: request,
        Events.POSITION: raw["position"],
    }


def _item(campaign: str, number: str | None) -> str | None:
    return None if number is None else f"{campaign}-{number}"


def _items(records: Records, campaign: str) -> Iterator[Mapped]:
    units = Units()
    for raw, number in zip(records.rows, records.numbers, strict=True):
        said = {name: value for name, value in raw.items() if name}
        units.add({**said, Items.ITEM_ID: _item(campaign, raw["item_id"]), Items.AVAILABLE: "true"}, raw, number)
    yield from units.mapped(Items.TABLE, records.source)
    yield from records.rejected(Items.TABLE)


IMPORTER = Importer(read, "Open Bandit Dataset (CSV): impressions with propensities, clicks", derive=catalogue())
