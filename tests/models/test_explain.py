"""Explanations: they add up, they name only the past, and without the named cause the score is lower."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.examples import states_from_log
from models.history import UserState
from models.homepage import HomepageModel

FAITHFUL = 0.95


@pytest.fixture(scope="module")
def explained(shop: Any, model: HomepageModel) -> list[tuple[UserState, int, float]]:
    """(history, item of its page, score) of thirty users."""
    states = states_from_log(shop.log)(shop.end_us, list(range(0, 180, 6)))
    everything = np.ones(len(model.items), dtype=bool)
    pages = [(state, model.rank(state, shop.end_us, everything, 5)) for state in states.values()]
    return [
        (state, int(item), float(score))
        for state, page in pages
        for item, score in zip(page.index_C, page.score_C, strict=True)
    ]


def test_without_the_named_cause_the_score_is_lower(
    shop: Any, model: HomepageModel, explained: list[tuple[UserState, int, float]]
) -> None:
    lower = []
    for state, item, score in explained:
        named = model.because(state, item, shop.end_us, k=1)
        rest = state.without(model.items.index[named[0].item_id])
        lower.append(float(model.score_items(rest, shop.end_us, np.array([item])).score_C[0]) < score)
    assert len(lower) > 100
    assert np.mean(lower) >= FAITHFUL, f"only {np.mean(lower):.1%} of {len(lower)}"


def test_causes_are_the_users_own_and_their_weights_are_shares(
    shop: Any, model: HomepageModel, explained: list[tuple[UserState, int, float]]
) -> None:
    for state, item, _ in explained[::7]:
        named = model.because(state, item, shop.end_us, k=8)
        assert {model.items.index[cause.item_id] for cause in named} <= set(state.item_P.tolist())
        assert 0 < sum(cause.weight for cause in named) <= 1 + 1e-9
        assert all(cause.weight > 0 for cause in named)
    assert model.because(UserState.build(None, [], model.items.index), 3, shop.end_us) == []


def test_the_contributions_of_the_features_add_up_to_the_score(
    shop: Any, model: HomepageModel, explained: list[tuple[UserState, int, float]]
) -> None:
    for state, item, score in explained[::5]:
        told = model.contributions(state, item, shop.end_us)
        assert sum(one.contribution for one in told) == pytest.approx(score, abs=1e-3)
        assert told[0].name == "baseline"
