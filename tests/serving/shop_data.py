"""A small made shop: events and items as canonical tables, and a model that learned from them in a second or two."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from features.schema import Events, Items, arrow_schema
from models.homepage import HomepageModel, fit_simple

WORDS = ("red", "blue", "paper", "garden", "party", "kitchen", "wooden", "silver", "cotton", "glass")
THINGS = ("lantern", "teapot", "cushion", "candle", "bunting", "basket", "notebook", "mug", "clock", "frame")
KINDS = ("home > light", "home > tea", "home > soft", "gift > paper", "gift > party")
START_US = 1_764_000_000_000_000  # late November 2025
DAY_US = 86_400_000_000


def items_table(count: int = 200) -> pa.Table:
    rows = [
        {
            Items.ITEM_ID: f"i{n:03d}",
            Items.TITLE: f"{WORDS[n % 10]} {THINGS[n // 10 % 10]} {'large' if n >= 100 else 'small'} no {n}",
            Items.BRAND: f"brand {n % 7}",
            Items.CATEGORY: KINDS[n % 5],
            Items.PRICE: 1.0 + n % 30,
            Items.CURRENCY: "GBP",
            Items.IMAGE_URL: None,
            Items.AVAILABLE: n % 20 != 19,
            Items.LISTED_AT: (START_US - 90 * DAY_US) if n % 9 else START_US + 20 * DAY_US,
        }
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema(Items.COLUMNS))


def events_table(users: int = 300, items: int = 200, seed: int = 3) -> pa.Table:
    """Users who each like one or two categories, over 28 days."""
    rng = np.random.default_rng(seed)
    popular_I = 1 / (1 + rng.permutation(items)) ** 0.7
    kind_I = np.arange(items) % 5
    rows = []
    for user in range(users):
        liked = rng.choice(5, size=2, replace=False)
        weight_I = popular_I * np.where(kind_I == liked[0], 8, np.where(kind_I == liked[1], 3, 0.3))
        for visit in range(rng.integers(1, 6)):
            at = START_US + int(rng.integers(0, 28) * DAY_US) + int(rng.integers(0, DAY_US))
            for step in range(rng.integers(1, 8)):
                item = int(rng.choice(items, p=weight_I / weight_I.sum()))
                kind = rng.choice(["view", "click", "add_to_cart", "purchase"], p=[0.5, 0.25, 0.1, 0.15])
                rows.append(
                    {
                        Events.EVENT_ID: f"e{user}-{visit}-{step}",
                        Events.EVENT_TIME: at + step * 30_000_000,
                        Events.EVENT_TYPE: str(kind),
                        Events.USER_ID: f"u{user}",
                        Events.SESSION_ID: f"s{user}-{visit}",
                        Events.ITEM_ID: f"i{item:03d}",
                        Events.PRICE: 1.0 + item % 30 if kind == "purchase" else None,
                        Events.QUANTITY: 1 if kind == "purchase" else None,
                        Events.CURRENCY: "GBP" if kind == "purchase" else None,
                    }
                )
    table = pa.Table.from_pylist(rows, schema=arrow_schema(Events.COLUMNS))
    return table.sort_by(Events.EVENT_TIME)


def make_model(directory: Path) -> Path:
    """Fit, save with a manifest, and return the model's folder."""
    model = fit_simple(events_table(), items_table())
    model.save(directory)
    manifest = {
        "trained_from": "2025-11-24T00:00:00Z",
        "trained_until": "2025-12-22T00:00:00Z",
        "data_hash": "made",
        "verdict": "not gated: a model for tests",
        "metrics": {"events": 1},
    }
    path = directory / "manifest.json"
    told = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**told, **manifest}))
    HomepageModel.load(directory)
    return directory
