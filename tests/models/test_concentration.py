"""How alike a person's things are: counted from what was taken, as the truth of a simulated shop has it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.concentration import KINDS, simulated, taken
from models.simulator import SimulatorParams, Truth
from models.simulator.sessions import sessions_at

SHOP = SimulatorParams(users=300, items=240, bots=0)


def test_what_was_taken_says_what_the_truth_says() -> None:
    """Things drawn by the true chances of a purchase, four visits a person; counting them finds the true ratios."""
    truth, rng = Truth(SHOP, SHOP.seed), np.random.default_rng(0)
    users, visits, things = np.arange(SHOP.users), 4, 30
    batch = sessions_at(truth, 0, np.repeat(users, visits), np.tile(np.arange(visits), users.size))
    item_BI = np.broadcast_to(np.arange(SHOP.items), (len(batch), SHOP.items))
    never = np.full_like(item_BI, -1)
    chances = truth.probabilities(
        batch.who(np.arange(len(batch))), item_BI, -never, never, np.zeros_like(item_BI, bool)
    )
    chance_BI = chances.purchase / chances.purchase.sum(axis=1, keepdims=True)
    item = np.stack([rng.choice(SHOP.items, things, p=chance_I) for chance_I in chance_BI]).ravel()
    found = taken(
        np.repeat(batch.user_B, things), np.repeat(batch.key_B, things), truth.catalogue.leaf_I[item].astype(np.int64)
    )
    exact = simulated(SHOP)
    assert found.taste == pytest.approx(exact.taste, rel=0.05)
    assert found.intent == pytest.approx(exact.intent, rel=0.05)


def test_people_who_take_anything_are_not_concentrated_and_stronger_wishes_are() -> None:
    rng = np.random.default_rng(1)
    none = taken(rng.integers(0, 50, 9000), rng.integers(0, 200, 9000), rng.integers(0, KINDS, 9000))
    assert none.taste == pytest.approx(1, abs=0.06) and none.intent == pytest.approx(1, abs=0.06)
    usual = simulated(SHOP)
    assert (
        simulated(replace(SHOP, taste_weight=1.0)).taste
        < usual.taste
        < simulated(replace(SHOP, taste_weight=6.0)).taste
    )
    assert usual.intent < simulated(replace(SHOP, intent_weight=4.0)).intent


def test_the_default_shop_lies_between_the_two_real_ones() -> None:
    """Online Retail 2.1 and 1.2, Amazon Beauty 3.0 and 1.6 (`python -m benchmarks.simulator --marginals`)."""
    found = simulated(SimulatorParams())
    assert 2.1 < found.taste < 3.0 and 1.2 < found.intent < 1.6
