"""A small made shop whose structure is known: users who buy one item again and again, and pairs bought together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
import torch

from features.schema import Events, Items, arrow_schema
from models.homepage import HomepageModel, fit_simple
from models.items import ItemTable
from models.log import ActionLog

torch.set_num_threads(1)

START_US = 1_700_000_000_000_000
DAY_US = 86_400_000_000
USERS, ITEMS, DAYS = 200, 120, 60
PAIRS = tuple((n, n + 1) for n in range(0, 40, 2))  # who takes one of them takes the other in the same visit
REPEAT_BUYERS = range(60)  # user n buys item 40 + n % 40 at every visit
KINDS = ("home > light", "home > tea", "gift > paper", "gift > party")


@dataclass(frozen=True)
class Shop:
    """Canonical tables and the same as arrays."""

    events: pa.Table
    items: pa.Table
    table: ItemTable
    log: ActionLog

    @property
    def end_us(self) -> int:
        """Just after the last event."""
        return int(self.log.time_us[-1]) + 1

    def cut_us(self, share: float) -> int:
        """A moment with this share of the days before it."""
        return START_US + int(DAYS * share) * DAY_US


def items_table(count: int = ITEMS) -> pa.Table:
    """Items in four categories; even and odd neighbours share a brand."""
    rows = [
        {
            Items.ITEM_ID: f"i{n:03d}",
            Items.TITLE: f"thing{n // 2} {'large' if n % 2 else 'small'} design{n % 11}",
            Items.BRAND: f"brand{n // 2 % 9}",
            Items.CATEGORY: KINDS[n % 4],
            Items.PRICE: 1.0 + n % 30,
            Items.CURRENCY: "EUR",
            Items.AVAILABLE: True,
            Items.LISTED_AT: START_US - 90 * DAY_US,
        }
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema(Items.COLUMNS))


def events_table(users: int = USERS, seed: int = 5) -> pa.Table:
    """Visits of one to eight days apart; a visit is a few pairs, the user's own item, and something popular."""
    rng = np.random.default_rng(seed)
    popular = 1 / (1 + rng.permutation(40)) ** 0.8
    rows = []
    for user in range(users):
        favourite, day = rng.choice(len(PAIRS), size=3, replace=False), float(rng.uniform(0, 20))
        for visit in range(int(rng.integers(2, 9))):
            taken = [item for pair in rng.choice(favourite, size=rng.integers(1, 3)) for item in PAIRS[pair]]
            taken += [40 + user % 40] if user in REPEAT_BUYERS else []
            taken += (80 + rng.choice(40, size=2, p=popular / popular.sum())).tolist()
            at = START_US + int(day * DAY_US)
            for step, item in enumerate(dict.fromkeys(taken)):
                rows.append(
                    _event(user, visit, step, item, at + step * 20_000_000, str(rng.choice(["view", "purchase"])))
                )
            day = min(day + float(rng.uniform(1, 8)), DAYS - 0.1)
    table = pa.Table.from_pylist(rows, schema=arrow_schema(Events.COLUMNS))
    return table.sort_by([(Events.EVENT_TIME, "ascending"), (Events.EVENT_ID, "ascending")])


def _event(user: int, visit: int, step: int, item: int, at_us: int, kind: str) -> dict[str, object]:
    return {
        Events.EVENT_ID: f"e{user:03d}-{visit}-{step:02d}",
        Events.EVENT_TIME: at_us,
        Events.EVENT_TYPE: "purchase" if 40 <= item < 80 else kind,
        Events.USER_ID: f"u{user:03d}",
        Events.SESSION_ID: f"s{user:03d}-{visit}",
        Events.ITEM_ID: f"i{item:03d}",
        Events.PRICE: 1.0 + item % 30,
        Events.QUANTITY: 1,
        Events.CURRENCY: "EUR",
    }


@pytest.fixture(scope="session")
def shop() -> Shop:
    events, items = events_table(), items_table()
    table = ItemTable.from_arrow(items)
    return Shop(events, items, table, ActionLog.from_arrow(events, table.index, len(table)))


@pytest.fixture(scope="session")
def model(shop: Shop) -> HomepageModel:
    """Fitted on the whole shop, two epochs."""
    return fit_simple(shop.events, shop.items)


@pytest.fixture(scope="session")
def pairs() -> tuple[tuple[int, int], ...]:
    return PAIRS


@pytest.fixture(scope="session")
def repeat_buyers() -> dict[str, str]:
    """User id -> the item that the user buys at every visit."""
    return {f"u{user:03d}": f"i{40 + user % 40:03d}" for user in REPEAT_BUYERS}
