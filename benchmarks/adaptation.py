"""What a click changes on the visit's next page, and whether for the right reason. SIMULATED visits, the real service.

    python -m benchmarks.adaptation [--sessions 2000] [--seed 1]

Ten days of the old page teach the first model. Then every visit of the next day that came for a category is played
twice: one page and the next, with one click (or two) on what the visit came for between them, and without. Printed are
the category's shares of the second page, the items that were clicked, or would have been, left out; and their paired
differences with 95 % intervals. Beside them the same for a category by chance, that the visit did not come for.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import finish
from benchmarks.loop import Bench, Direct
from flows.simulate_day import catalogue_changes
from models.ope import estimate
from models.simulator import Session, Shop

CLICKS = (1, 2)
Slots = list[tuple[int, str]]
Share = Callable[[Slots], float]


class Visitor:
    """One visit that can be played as often as one likes."""

    def __init__(self, shop: Shop, session: Session, client: Direct) -> None:
        self.shop, self.session, self.client = shop, session, client

    def page(self, name: str) -> tuple[str, Slots]:
        """A page for a visit of this name."""
        asked: dict[str, Any] = {"session_id": f"{self.session.session_id}-{name}", "platform": self.session.platform}
        if self.session.user_id is not None:
            asked["user_id"] = self.session.user_id
        asked["page_size"] = self.shop.params.page_size
        told = self.client.call("POST", "/v1/homepage", asked, self.session.now)
        return told["request_id"], [(s["position"], s["item_id"]) for m in told["modules"] for s in m["slots"]]

    def played(self, name: str, clicks: int, share: Share, really: bool) -> float | None:
        """Share of the category in the rest of the second page; None where the first had less than `clicks` of it.

        Unless `really`, nothing is clicked; what would have been is left out all the same.
        """
        request_id, slots = self.page(name)
        done = [slot for slot in slots if share([slot]) > 0][:clicks]
        if len(done) < clicks:
            return None
        if really:
            self.client.post_events([self._click(name, request_id, *slot) for slot in done], self.session.now)
        _, after = self.page(name)
        clicked = {item for _, item in done}
        return share([slot for slot in after if slot[1] not in clicked])

    def _click(self, name: str, request_id: str, position: int, item_id: str) -> dict[str, Any]:
        return {
            "event_id": f"{self.session.session_id}-{name}-{item_id}", "event_type": "click", "item_id": item_id,
            "user_id": self.session.user_id, "session_id": f"{self.session.session_id}-{name}",
            "event_time": self.session.now, "request_id": request_id, "position": position,
            "platform": self.session.platform,
        }  # fmt: skip


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print(f"SIMULATED, seed {asked.seed}: share of the visit's second page, by clicks on its first", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), asked.sessions, 1, asked.seed)
        shop, day = bench.shop.fork(), bench.warm
        client = bench.client("ours", *bench.learn(day))
        client.put_items(catalogue_changes(shop, day), datetime.fromtimestamp(bench.midnight(day) / 1e6, UTC))
        visits = [
            one for one in shop.sessions(day) if not one.batch.bot_B[one.row] and one.batch.intent_B[one.row] >= 0
        ]
        leaves, rng = int(shop.truth.catalogue.leaf_I.max()) + 1, np.random.default_rng(asked.seed)
        for what in ("what the visit came for", "a category by chance"):
            for clicks in CLICKS:
                rows = []
                for number, session in enumerate(visits):
                    wanted = int(session.batch.intent_B[session.row])
                    if what == "a category by chance":
                        wanted = (wanted + int(rng.integers(1, leaves))) % leaves
                    visitor, share = Visitor(shop, session, client), of_leaf(shop, wanted)
                    name = f"{what[0]}{clicks}-{number}"
                    rows.append([visitor.played(f"{name}-{n}", clicks, share, bool(n)) for n in (0, 1)])
                tell(what, clicks, rows)
        client.runtime.stop()


def of_leaf(shop: Shop, leaf: int) -> Share:
    """The share of slots in a category."""
    catalogue = shop.truth.catalogue
    of = dict(zip(catalogue.item_ids, (catalogue.leaf_I == leaf).tolist(), strict=True))
    return lambda slots: float(np.mean([of[item] for _, item in slots])) if slots else 0.0


def tell(what: str, clicks: int, rows: list[list[float | None]]) -> None:
    """One line, over visits whose first pages had so many to click, with clicks and without."""
    both = np.array([row for row in rows if None not in row], dtype=np.float64)
    without, after = both.mean(axis=0)
    gain = estimate(both[:, 1] - both[:, 0])
    print(
        f"{what:>24}: {len(both)} visits, {clicks} click(s): {without:.1%} -> {after:.1%}, "
        f"difference {gain.mean:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}]",
        flush=True,
    )


if __name__ == "__main__":
    finish(main)
