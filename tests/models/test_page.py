"""What a shopper and a shop's owner get of a page: no rule is ever broken, and the logged chances are the true ones."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.page import Composer, PageParams, PlacedSlot, Pool
from models.policy.plackett_luce import PlackettLuce, PlackettLuceParams
from models.rules import ItemFacts, Rules, compile_rules

NOW = 1_700_000_000_000_000
SCORES = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.just(1.0), st.just(0.0))


def shop(count: int) -> ItemFacts:
    ids = [f"i{n}" for n in range(count)]
    brands = [None if n % 5 == 0 else f"b{n % 3}" for n in range(count)]
    listed_I = np.where(np.arange(count) % 4 == 0, NOW, 0).astype(np.int64)
    return ItemFacts(ids, brands, [f"c{n % 4}" for n in range(count)], np.arange(count, dtype=float), listed_I)


def compose(scores: list[float], rules: Rules, size: int, eligible: list[bool], seed: int = 0) -> list[PlacedSlot]:
    facts = shop(len(scores))
    composer = Composer(facts, compile_rules(rules, facts, NOW), PlackettLuce(), PageParams())
    score_C = np.asarray(scores)
    half = len(scores) // 2
    every = np.arange(len(scores))
    pools = [
        Pool("for_you", "For you", every, score_C, max(1, size // 2)),
        Pool("trending", "Trending", every[half:], score_C[half:], 5),
        Pool("empty", "Empty", every[:0], score_C[:0], 3),
    ]
    filler = Pool("discover", "More", every, score_C, size)
    slots, _ = composer.compose(pools, filler, np.asarray(eligible), size, np.random.default_rng(seed))
    return slots


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_rule_is_ever_broken_for_any_scores(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    scores = data.draw(st.lists(SCORES, min_size=count, max_size=count))
    eligible = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    size = data.draw(st.integers(1, 30))
    rules = Rules.model_validate(
        {
            "pin": [{"item": "i3", "position": 2}],
            "boost": [{"brand": "b1", "by": 5}],
            "exclude": [{"item": "i1"}, {"price_above": 35}],
            "cap": [{"per": "brand", "most": data.draw(st.integers(0, 3)), "first": 8}],
        }
    )
    slots = compose(scores, rules, size, eligible, data.draw(st.integers(0, 9)))
    facts, items = shop(count), [slot.item for slot in slots]
    assert [slot.position for slot in slots] == list(range(1, len(slots) + 1))
    assert len(set(items)) == len(items) <= size
    assert all(eligible[item] and item != 1 and item <= 35 for item in items)
    assert all(0 < slot.propensity <= 1 and np.isfinite(slot.score) for slot in slots)
    assert all(slot.propensity < 1 for slot in slots if slot.explored)
    if len(slots) >= 2 and count > 3 and eligible[3]:
        assert items[1] == 3 and slots[1].propensity == 1.0
    brands = Counter(facts.brands[item] for item in items[:8] if facts.brands[item] is not None and item != 3)
    assert all(n <= rules.cap[0].most for n in brands.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(SCORES, min_size=1, max_size=40), st.integers(1, 30), st.integers(0, 9))
def test_a_page_is_short_only_where_items_are(scores: list[float], size: int, seed: int) -> None:
    slots = compose(scores, Rules(), size, [True] * len(scores), seed)
    assert len(slots) == min(size, len(scores))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 10), st.integers(0, 9))
def test_the_page_holds_as_many_new_items_as_the_rule_wants(count: int, size: int, least: int, seed: int) -> None:
    rules = Rules.model_validate({"new": {"at_least": least, "days": 1}})
    slots = compose([float(n) for n in range(count)], rules, size, [True] * count, seed)
    new = sum(slot.item % 4 == 0 for slot in slots)
    assert new >= min(least, len(slots), len(range(0, count, 4)))


def test_the_logged_propensity_is_the_frequency_over_20000_draws() -> None:
    facts = shop(12)
    composer = Composer(facts, compile_rules(Rules(), facts, NOW), PlackettLuce(PlackettLuceParams(0.3)), PageParams())
    every, score_C, rng = np.arange(12), np.linspace(2, 0, 12), np.random.default_rng(7)
    pools = [Pool("for_you", "", every, score_C, 2)]
    seen: Counter[tuple[int, ...]] = Counter()
    claimed: dict[tuple[int, ...], float] = {}
    draws = 20_000
    for _ in range(draws):
        filler = Pool("discover", "", every, score_C, 3)
        slots, _ = composer.compose(pools, filler, np.ones(12, dtype=bool), 3, rng)
        for depth in (1, 2, 3):
            path = tuple(slot.item for slot in slots[:depth])
            seen[path] += 1
            claimed[path] = slots[depth - 1].propensity
    for path, p in claimed.items():
        above = draws if len(path) == 1 else seen[path[:-1]]
        if above * p >= 20:
            error = (above * p * (1 - p)) ** 0.5 + 1
            assert abs(seen[path] - above * p) < 5 * error, (path, p, seen[path], above)
    assert abs(sum(claimed[(item,)] for item in range(12) if (item,) in claimed) - 1) < 1e-3


def test_like_items_above_make_room_for_others() -> None:
    facts = ItemFacts(list("abcd"), [None] * 4, ["x", "x", "y", "x"], np.ones(4), np.zeros(4, dtype=np.int64))
    score_C = np.array([1.0, 0.99, 0.95, 0.0])
    orders = []
    for knob in (0.0, 0.9):
        composer = Composer(
            facts, compile_rules(Rules(), facts, NOW), PlackettLuce(PlackettLuceParams(1e-4, 0.0)), PageParams(knob)
        )
        filler = Pool("discover", "", np.arange(4), score_C, 3)
        slots, _ = composer.compose([], filler, np.ones(4, dtype=bool), 3, np.random.default_rng(0))
        orders.append([slot.item for slot in slots])
    assert orders[0] == [0, 1, 2] and orders[1] == [0, 2, 1]
