"""Bad nights on purpose, to see them stopped: shuffled labels, a broken feature, a poisoned item. For the closed loop.

Choices. Each is what happens in shops: a join that went wrong gives clicks to other items of the page; a price column
arrives in pence; bots of one owner push one item. They spoil what the retrain reads, never the record of what happened.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import UsageError
from features.schema import Events, Items, Slates
from features.tables import read_table, write_rows
from models.simulator import Shop

if TYPE_CHECKING:
    from flows.simulate_day import Client

LABELS, FEATURE, POISON = "labels", "feature", "poison"
KINDS = (LABELS, FEATURE, POISON)
BOT_SHARE = 0.01  # of the day's sessions


def planted(asked: list[str]) -> dict[int, str]:
    """`["2:labels"]` -> {2: "labels"}; UsageError for anything else."""
    found = {}
    for one in asked:
        day, _, kind = one.partition(":")
        if not day.isdigit() or int(day) < 1 or kind not in KINDS:
            raise UsageError(f"--bad-night {one}: write DAY:KIND, KIND one of {', '.join(KINDS)}, such as 2:labels")
        found[int(day)] = kind
    return found


def spoiled(tables: Path, kind: str) -> Path:
    """The tables as the bad night's retrain gets them; `poison` came in through the front door: nothing to change."""
    if kind == POISON:
        return tables
    copy = tables.with_name("spoiled")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(tables, copy)
    if kind == LABELS:
        write_rows(copy, Events.TABLE, [shuffled(read_table(copy, Events.TABLE), read_table(copy, Slates.TABLE))])
    else:
        items = read_table(copy, Items.TABLE)
        place = items.schema.get_field_index(Items.PRICE)
        pence = pc.multiply(items[Items.PRICE], 100.0)
        write_rows(copy, Items.TABLE, [items.set_column(place, Items.PRICE, pence)])
    return copy


def shuffled(events: pa.Table, slates: pa.Table) -> pa.Table:
    """Every event of a page names any item of that page."""
    rng = np.random.default_rng(0)
    shown: dict[str, list[str]] = {}
    for request, item in zip(*(slates[name].to_pylist() for name in (Slates.REQUEST_ID, Slates.ITEM_ID)), strict=True):
        shown.setdefault(request, []).append(item)
    named = zip(*(events[name].to_pylist() for name in (Events.REQUEST_ID, Events.ITEM_ID)), strict=True)
    other = [shown[request][rng.integers(len(shown[request]))] if request in shown else item for request, item in named]
    place = events.schema.get_field_index(Events.ITEM_ID)
    return events.set_column(place, Events.ITEM_ID, pa.array(other, pa.string()))


def poison(client: Client, shop: Shop, day: int) -> str:
    """Bot sessions, 1 % of the day's, open, click and buy the shop's least liked item again and again; its id."""
    truth = shop.truth
    shelf = np.flatnonzero(truth.catalogue.available(day))
    item: str = truth.catalogue.item_ids[shelf[truth.catalogue.appeal_I[shelf].argmin()]]
    sessions = list(shop.today())
    for number in range(max(1, round(BOT_SHARE * len(sessions)))):
        now, name = sessions[number % len(sessions)].now, f"push-{day}-{number}"
        for turn in range(10):
            page = client.call("POST", "/v1/homepage", {"session_id": name, "user_id": name, "page_size": 24}, now)
            rows = [
                {
                    "event_id": f"{name}-{turn}-{kind}-{copy}", "event_time": now, "event_type": kind,
                    "user_id": name, "session_id": name, "item_id": item, "surface": "home",
                    "request_id": page["request_id"], "position": 1,
                }
                for kind in ("click", "view", "add_to_cart", "purchase")
                for copy in range(3)
            ]  # fmt: skip
            client.post_events(rows, now)
    return item
