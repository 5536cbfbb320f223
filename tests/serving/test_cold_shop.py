"""A shop that comes only over HTTP, with no model at all: items are put, people click, and the pages become theirs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving import answers
from serving.contract import EventsRequest, HomepageRequest, ItemsRequest, format_time, now_us
from serving.learning import Learning, unlearn
from serving.params import from_environment
from serving.runtime import Runtime

KINDS = ("home > tea", "home > light", "gift > paper", "garden > tools", "kids > toys", "kids > books")
ITEMS = 240


def kind_of(item: str) -> int:
    return int(item[1:]) % len(KINDS)


class ColdShop:
    """The service in this process, and shoppers who each like one kind and the items that are good anyway."""

    def __init__(self, home: Path) -> None:
        told = from_environment({"HOMERANKER_HOME": str(home), "HOMERANKER_FALLBACK": "1"})
        self.runtime = Runtime(told, None)
        self.runtime.start()
        self.rng = np.random.default_rng(1)
        self.appeal = self.rng.normal(0, 0.8, ITEMS + 10)
        self.put(range(ITEMS))
        self.until(lambda: len(self.runtime.snapshot.items) == ITEMS if self.runtime.snapshot else False)

    def put(self, numbers: Any, **fields: Any) -> None:
        rows = [
            {"item_id": f"i{n}", "title": f"Thing {n}", "brand": f"b{n % 9}", "category": KINDS[n % 6], **fields}
            for n in numbers
        ]
        assert not answers.put_items(self.runtime, ItemsRequest(items=rows), now_us())["rejected"]

    def until(self, true: Any, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end
            time.sleep(0.02)

    def learned(self) -> None:
        """Wait until every accepted event is in the page's snapshot."""
        log, learning = self.runtime.need_log(), self.runtime.learning
        newest = log.store.read("SELECT MAX(seq) FROM events")[0][0]
        self.until(lambda: learning.seq >= newest and learning.settled)

    def page(self, session: str, user: str | None = None, size: int = 24) -> tuple[str, list[str]]:
        asked = HomepageRequest(session_id=session, user_id=user, page_size=size)
        told = answers.homepage(self.runtime, asked, now_us())
        assert told["fallback"] == "popular" and told["model_version"] == "none"
        return told["request_id"], [slot["item_id"] for module in told["modules"] for slot in module["slots"]]

    def click(self, session: str, item: str, request_id: str | None = None, user: str | None = None) -> None:
        row = {"event_id": uuid.uuid4().hex, "event_time": format_time(now_us()), "event_type": "click"}
        row |= {"item_id": item, "session_id": session, "user_id": user, "request_id": request_id}
        assert answers.events(self.runtime, EventsRequest(events=[row]), now_us())["accepted"] == 1

    def chance(self, liked: int, items: list[str]) -> np.ndarray:
        fit = np.array([self.appeal[int(i[1:])] + 2.0 * (kind_of(i) == liked) - 3.0 for i in items])
        return 1 / (1 + np.exp(-fit)) / (1 + np.arange(len(items)) / 4)

    def visits(self, count: int) -> list[float]:
        """Visits of up to three pages; the expected clicks of each last page."""
        found = []
        for _ in range(count):
            session, liked = uuid.uuid4().hex, int(self.rng.integers(6))
            for _ in range(3):
                request_id, items = self.page(session)
                chance = self.chance(liked, items)
                for at in np.flatnonzero(self.rng.random(len(items)) < chance):
                    self.click(session, items[at], request_id)
            found.append(float(chance.sum()))
        return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ColdShop]:
    made = ColdShop(tmp_path_factory.mktemp("cold"))
    yield made
    made.runtime.stop()


def test_the_first_clicks_of_a_visit_turn_its_page(shop: ColdShop) -> None:
    """Before anybody else was here: only the visit itself can say it."""
    before = np.mean([kind_of(item) == 2 for _ in range(5) for item in shop.page("first")[1]])
    for item in ("i2", "i8"):
        shop.click("first", item)
    after = np.mean([kind_of(item) == 2 for _ in range(5) for item in shop.page("first")[1]])
    assert after > before + 0.25


def test_pages_become_better_than_random_from_clicks_alone(shop: ColdShop) -> None:
    shop.visits(160)
    shop.learned()
    late = np.mean(shop.visits(60))
    random = [
        shop.chance(int(shop.rng.integers(6)), [f"i{n}" for n in shop.rng.choice(ITEMS, 24, replace=False)]).sum()
        for _ in range(300)
    ]
    assert late > 1.4 * np.mean(random)


def test_what_is_hot_today_is_on_a_strangers_page(shop: ColdShop) -> None:
    hot = ["i7", "i100", "i201"]
    for n in range(120):
        shop.click(f"hot-{n}", hot[n % 3])
    shop.learned()
    shown = [shop.page(uuid.uuid4().hex)[1] for _ in range(10)]
    assert sum(item in items for items in shown for item in hot) >= 15  # of 30; 3 by chance; the least of 105 runs: 24


def test_a_brand_new_item_gets_its_chance_and_a_sold_out_one_never(shop: ColdShop) -> None:
    later = format_time(now_us() + 120_000_000)
    shop.put(range(ITEMS, ITEMS + 2), listed_at=later)
    shop.put([7], available=False)
    shop.until(lambda: shop.runtime.snapshot is not None and len(shop.runtime.snapshot.items) == ITEMS + 2)
    shown = [shop.page(uuid.uuid4().hex)[1] for _ in range(20)]
    assert all("i7" not in items for items in shown)
    assert sum(f"i{ITEMS}" in items or f"i{ITEMS + 1}" in items for items in shown) >= 10


def test_it_survives_a_restart_and_can_be_rolled_back(shop: ColdShop, tmp_path: Path) -> None:
    shop.learned()
    held = shop.runtime.learning.counts
    again = Runtime(shop.runtime.environment, None)
    again.start()
    try:
        shop.until(lambda: again.learning.caught_up and again.learning.counts.events == held.events)
        one, other = (counts.sums("popularity", 1.0)[counts.codes["i100"]] for counts in (held, again.learning.counts))
        assert one == pytest.approx(other, rel=0.01)
        unlearn(again.need_log(), 0, now_us())
        shop.until(lambda: "i100" not in again.learning.counts.codes and again.learning.caught_up)
        shop.until(lambda: "i100" not in shop.runtime.learning.counts.codes)
    finally:
        again.stop()


def test_while_the_log_is_counted_again_pages_stand_on_what_was_known(shop: ColdShop) -> None:
    shop.learned()
    log, known = shop.runtime.need_log(), shop.runtime.learning
    assert known.basis is not None
    learning = Learning(known.params)
    for basis in (replace(known.basis, unlearned=()), replace(known.basis, unlearned=((0, 1),))):
        before = learning.told
        learning.stand_on(basis, log)
        counting_anew = learning.counts
        if before[0].codes:
            assert learning.told is before and not learning.settled
        while not learning.caught_up:
            learning.take_up(log, lambda _: True)
        assert learning.told[0] is counting_anew and "i100" in counting_anew.codes
    learning.stand_on(replace(basis, exported_seq=learning.seq), log)
    assert learning.counts is counting_anew and learning.caught_up  # an export changes nothing of what a model knows
    learning.stand_on(replace(basis, exported_seq=learning.seq, trained_until_us=now_us()), log)
    assert learning.counts is not counting_anew
    learning.take_up(log, lambda _: True)
    assert not learning.counts.sums("popularity", 1.0).any()  # the new model has counted all of it


def test_what_a_visit_passed_over_makes_room(shop: ColdShop) -> None:
    """A second page of the same visit shows less of the first than a page of another visit does."""
    shop.learned()
    log, again, others = shop.runtime.need_log(), [], []
    for n in range(12):
        first = set(shop.page(f"passing-{n}")[1])
        shop.until(lambda n=n: bool(log.shown(None, f"passing-{n}", 1)))
        again.append(len(first & set(shop.page(f"passing-{n}")[1])))
        others.append(len(first & set(shop.page(f"other-{n}")[1])))
    assert np.mean(again) < np.mean(others) - 1
