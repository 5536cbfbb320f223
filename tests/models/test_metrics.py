"""What a metric says of a list: known answers, properties, other people's implementations, honest intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from models.metrics import (
    METRICS,
    NO_ITEM,
    Lists,
    average_precision,
    bootstrap_means,
    coverage,
    estimate,
    gini,
    hit_rate,
    ndcg,
    precision,
    recall,
    reciprocal_rank,
)


def one(ranked: list[int], wanted: list[int]) -> Lists:
    return Lists(np.array([ranked]), [np.array(wanted, dtype=np.int64)])


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """A list of ten distinct items out of 30 and at least one wanted item."""
    ranked = draw(st.permutations(range(30)))[:10]
    wanted = draw(st.lists(st.integers(0, 29), min_size=1, max_size=15, unique=True))
    return list(ranked), wanted


def test_known_answers() -> None:
    found = one([9, 4, 7, 1], [4, 1, 5])
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert ndcg(found, 4)[0] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / ideal)
    assert recall(found, 4)[0] == pytest.approx(2 / 3)
    assert precision(found, 4)[0] == pytest.approx(2 / 4)
    assert hit_rate(found, 1)[0] == 0 and hit_rate(found, 2)[0] == 1
    assert reciprocal_rank(found, 4)[0] == pytest.approx(1 / 2)
    assert average_precision(found, 4)[0] == pytest.approx((1 / 2 + 2 / 4) / 3)


def test_more_wanted_than_places_can_still_be_perfect() -> None:
    assert ndcg(one([0, 1], [0, 1, 2, 3]), 2)[0] == pytest.approx(1.0)
    assert average_precision(one([0, 1], [0, 1, 2, 3]), 2)[0] == pytest.approx(1.0)


@pytest.mark.parametrize("name", METRICS)
def test_a_user_who_wanted_nothing_or_got_nothing_scores_zero(name: str) -> None:
    assert METRICS[name](one(list(range(10)), []))[0] == 0
    assert METRICS[name](one([NO_ITEM] * 10, [1, 2]))[0] == 0


def test_a_list_that_ends_early_has_no_hits_beyond_its_end() -> None:
    assert ndcg(one([3, 5], [5]), 10)[0] == ndcg(one([3, 5] + [NO_ITEM] * 8, [5]), 10)[0] > 0


@given(lists())
def test_every_metric_lies_between_zero_and_one(case: tuple[list[int], list[int]]) -> None:
    for name, metric in METRICS.items():
        assert 0 <= metric(one(*case))[0] <= 1 + 1e-12, name


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20, unique=True))
def test_the_list_of_what_was_wanted_is_perfect(wanted: list[int]) -> None:
    others = list(range(60, 80))
    assert ndcg(one((wanted + others)[:10], wanted), 10)[0] == pytest.approx(1.0)


@given(lists(), st.integers(1, 9))
def test_moving_a_wanted_item_up_never_lowers_a_metric(case: tuple[list[int], list[int]], at: int) -> None:
    ranked, wanted = case
    if ranked[at] not in wanted:
        return
    moved = ranked.copy()
    moved[at - 1], moved[at] = moved[at], moved[at - 1]
    for name, metric in METRICS.items():
        assert metric(one(moved, wanted))[0] >= metric(one(ranked, wanted))[0] - 1e-12, name


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 20))
def test_equal_to_scikit_learn(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    score_NI = rng.permuted(np.arange(20.0)[None, :].repeat(5, axis=0), axis=1)  # no ties
    wanted_NI = rng.random((5, 20)) < 0.3
    wanted_NI[:, 0] = True
    mine = Lists(np.argsort(-score_NI, axis=1), [np.flatnonzero(row) for row in wanted_NI])
    assert ndcg(mine, k).mean() == pytest.approx(ndcg_score(wanted_NI, score_NI, k=k))
    theirs = [average_precision_score(want, score) for want, score in zip(wanted_NI, score_NI, strict=True)]
    assert average_precision(mine, 20) == pytest.approx(theirs)


@pytest.mark.parametrize("draw", ["normal", "mostly zero"])
def test_the_interval_covers_the_true_mean_about_95_times_in_100(draw: str) -> None:
    rng = np.random.default_rng(1)
    makers = {
        "normal": (lambda: rng.normal(0.3, 0.2, 80), 0.3),
        "mostly zero": (lambda: rng.random(80) * (rng.random(80) < 0.4), 0.2),
    }
    make, truth = makers[draw]
    covered = 0
    for seed in range(200):
        found = estimate(make(), seed)
        covered += found.low <= truth <= found.high
    assert 180 <= covered <= 200  # 190 expected, standard deviation 3.1


def test_the_interval_of_nobody_of_one_and_of_equals() -> None:
    nobody, single, equals = estimate(np.zeros(0)), estimate(np.array([0.4])), estimate(np.full(50, 0.25))
    assert (nobody.mean, nobody.low, nobody.high, nobody.users) == (0, 0, 0, 0)
    assert single.low == single.mean == single.high == pytest.approx(0.4) and single.users == 1
    assert equals.low == pytest.approx(equals.high) == pytest.approx(0.25)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random(300)
    assert estimate(values, 3) == estimate(values, 3)
    assert bootstrap_means(values, 3).shape == (2000,)
    assert abs(bootstrap_means(values).std() - values.std() / np.sqrt(300)) < 0.002


def test_coverage_and_gini_know_equal_and_unequal_lists() -> None:
    everything = np.arange(20).reshape(2, 10)
    one_item = np.full((5, 10), NO_ITEM)
    one_item[:, 0] = 7
    assert coverage(everything, 20) == 1.0 and coverage(one_item, 20) == pytest.approx(1 / 20)
    assert gini(everything, 20) == pytest.approx(0.0) and gini(one_item, 20) == pytest.approx(19 / 20)
    assert gini(np.full((2, 10), NO_ITEM), 20) == 0.0
