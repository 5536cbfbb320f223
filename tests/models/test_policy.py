"""What a later estimator gets of the policy: chances that sum to one and are those of the draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import UsageError
from models.policy.plackett_luce import Greedy, PlackettLuce, PlackettLuceParams, utilities

ANY = st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=30)


@settings(deadline=None)
@given(ANY, st.data())
def test_probabilities_of_a_slot_sum_to_one_and_respect_what_is_allowed(
    scores: list[float], data: st.DataObject
) -> None:
    utility_C = utilities(np.asarray(scores))
    allowed_C = np.asarray(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    allowed_C[data.draw(st.integers(0, len(scores) - 1))] = True
    p_C = PlackettLuce().probabilities(utility_C, allowed_C)
    assert np.isfinite(utility_C).all() and utility_C.min() >= 0 and utility_C.max() <= 1
    assert abs(p_C.sum() - 1) < 1e-9 and (p_C[~allowed_C] == 0).all() and (p_C[allowed_C] > 0).all()
    choice = PlackettLuce().choose(utility_C, allowed_C, np.random.default_rng(0))
    assert allowed_C[choice.place] and (not choice.explored or choice.propensity < 1)


def test_the_draw_follows_the_probabilities_over_20000_draws() -> None:
    policy, rng = PlackettLuce(PlackettLuceParams(0.2, 0.05)), np.random.default_rng(1)
    utility_C, allowed_C = np.array([1.0, 0.9, 0.5, 0.1, 0.8]), np.array([True, True, True, True, False])
    p_C = policy.probabilities(utility_C, allowed_C)
    choices = [policy.choose(utility_C, allowed_C, rng) for _ in range(20_000)]
    count_C = np.bincount([choice.place for choice in choices], minlength=5)
    assert (np.abs(count_C - 20_000 * p_C) <= 5 * np.sqrt(20_000 * p_C * (1 - p_C))).all()
    assert all(choice.propensity == pytest.approx(p_C[choice.place]) for choice in choices)


def test_greedy_is_certain_and_ties_go_to_the_first() -> None:
    choice = Greedy().choose(np.array([0.5, 0.5]), np.array([True, True]), np.random.default_rng(0))
    assert (choice.place, choice.propensity, choice.explored) == (0, 1.0, False)


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="temperature must be > 0"):
        PlackettLuce(PlackettLuceParams(temperature=0))
