"""The counting part: what goes together is found, and a score is the sum of what its history items say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.counting import RELATIONS, CountingModel, CountingParams, Relation
from models.examples import states_from_log
from models.history import Action, UserState

AS_OF = 1_705_000_000_000_000


@pytest.fixture(scope="module")
def counting(shop: Any) -> CountingModel:
    return CountingModel.fit(shop.log, shop.end_us)


@pytest.mark.parametrize("name", ["together", "recent", "people"])
def test_items_bought_together_are_each_others_nearest_neighbours(
    name: str, counting: Any, shop: Any, pairs: Any
) -> None:
    found = 0
    for left, right in pairs:
        score_I = counting.relations[name].scores(np.array([left]), np.ones(1), len(shop.table))
        back_I = counting.relations[name].scores(np.array([right]), np.ones(1), len(shop.table))
        found += int(score_I.argmax() == right) + int(back_I.argmax() == left)
    assert found == 2 * len(pairs)


def test_what_comes_next_for_a_repeat_buyer_is_the_same_item(counting: Any, shop: Any) -> None:
    again = [
        counting.relations["next"].scores(np.array([n]), np.ones(1), len(shop.table)).argmax() == n
        for n in range(40, 80)
    ]
    assert np.mean(again) > 0.9


def history(items: list[int], shop: Any) -> UserState:
    actions = [
        Action(shop.table.item_ids[n], "purchase", AS_OF - (at + 1) * 10**11, f"s{at}") for at, n in enumerate(items)
    ]
    return UserState.build(None, actions[::-1], shop.table.index, session_id="none")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(st.integers(0, 119), min_size=1, max_size=12, unique=True), target=st.integers(0, 119))
def test_the_terms_of_the_history_add_up_to_the_score(counting: Any, shop: Any, items: list[int], target: int) -> None:
    state = history(items, shop)
    item_P, weight_P = counting.history_weights(state, AS_OF)
    scores = counting.scores(state, AS_OF, len(shop.table))
    for name, relation in counting.relations.items():
        terms_P = weight_P * relation.strength(item_P, target)
        assert terms_P.sum() == pytest.approx(scores[name][target], rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(st.integers(0, 119), min_size=1, max_size=12, unique=True), target=st.integers(0, 119))
def test_without_its_cause_the_score_is_lower_by_the_causes_term(
    counting: Any, shop: Any, items: list[int], target: int
) -> None:
    state = history(items, shop)
    item_P, weight_P = counting.history_weights(state, AS_OF)
    relation = counting.relations["together"]
    terms_P = weight_P * relation.strength(item_P, target)
    cause = int(terms_P.argmax())
    before = counting.scores(state, AS_OF, len(shop.table))["together"][target]
    after = counting.scores(state.without(int(item_P[cause])), AS_OF, len(shop.table))["together"][target]
    assert before - after == pytest.approx(terms_P[cause], rel=1e-9, abs=1e-12)


def test_nothing_after_the_cut_is_counted(shop: Any) -> None:
    cut = shop.cut_us(0.5)
    whole, cut_off = CountingModel.fit(shop.log, cut), CountingModel.fit(shop.log.before(cut), cut)
    for name in RELATIONS:
        assert np.array_equal(whole.relations[name].indices, cut_off.relations[name].indices)
        assert np.array_equal(whole.relations[name].weights, cut_off.relations[name].weights)


def test_only_the_strongest_neighbours_are_kept_and_no_item_is_its_own(shop: Any) -> None:
    few = CountingModel.fit(shop.log, shop.end_us, CountingParams(neighbours=3))
    many = CountingModel.fit(shop.log, shop.end_us)
    for name in ("together", "people"):
        relation = few.relations[name]
        assert np.diff(relation.indptr).max() == 3
        owner = np.repeat(np.arange(relation.indptr.size - 1), np.diff(relation.indptr))
        assert (owner != relation.indices).all()
        full = many.relations[name]
        assert relation.weights[:3].min() >= np.sort(full.weights[: full.indptr[1]])[-3]


def test_a_new_item_in_the_history_says_nothing_and_a_stranger_gets_zeros(counting: Any, shop: Any) -> None:
    relation: Relation = counting.relations["together"]
    assert not relation.scores(np.array([500]), np.ones(1), 600).any()
    assert relation.strength(np.array([500]), 3).tolist() == [0.0]
    stranger = UserState.build(None, [], shop.table.index)
    assert not any(scores.any() for scores in counting.scores(stranger, AS_OF, len(shop.table)).values())


def test_a_relation_is_its_matrix() -> None:
    dense = np.random.default_rng(0).random((6, 6)) * (np.random.default_rng(1).random((6, 6)) < 0.5)
    relation = Relation.from_matrix(sp.csr_matrix(dense), neighbours=6)
    weight = np.array([2.0, 0.5])
    assert relation.scores(np.array([4, 1]), weight, 6) == pytest.approx(weight @ dense[[4, 1]], rel=1e-6)


def test_a_long_history_is_read_by_its_strongest_part(counting: Any, shop: Any) -> None:
    state = states_from_log(shop.log)(shop.end_us, [0])[0]
    item_P, weight_P = counting.history_weights(state, shop.end_us)
    assert item_P.size <= counting.params.history_items and (weight_P > 0).all()
