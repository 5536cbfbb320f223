"""What a metric says of a list: known answers, properties, other people's implementations, honest intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytrec_eval import RelevanceEvaluator
from sklearn.metrics import average_precision_score, ndcg_score

from models.metrics import (
    METRICS,
    NO_ITEM,
    Lists,
    average_precision,
    bootstrap_means,
    by_segment,
    coverage,
    diversity,
    estimate,
    f1,
    gini,
    hit_rate,
    ndcg,
    novelty,
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


@settings(max_examples=40, deadline=None)
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


@settings(max_examples=25, deadline=None)
@given(st.lists(lists(), min_size=1, max_size=8))
def test_equal_to_trec_eval(cases: list[tuple[list[int], list[int]]]) -> None:
    relevant = {f"u{at}": {str(item): 1 for item in wanted} for at, (_, wanted) in enumerate(cases)}
    run = {
        f"u{at}": {str(item): float(10 - place) for place, item in enumerate(ranked)}
        for at, (ranked, _) in enumerate(cases)
    }
    names = {"ndcg_cut.5,10", "recall.5,10", "P.5,10", "recip_rank", "map_cut.10"}
    theirs = RelevanceEvaluator(relevant, names).evaluate(run)
    mine = Lists(np.array([ranked for ranked, _ in cases]), [np.array(wanted) for _, wanted in cases])
    n_wanted = np.array([len(wanted) for _, wanted in cases])
    same = {
        "ndcg_cut_5": ndcg(mine, 5), "ndcg_cut_10": ndcg(mine, 10), "recall_5": recall(mine, 5),
        "recall_10": recall(mine, 10), "P_5": precision(mine, 5), "P_10": precision(mine, 10),
        "recip_rank": reciprocal_rank(mine, 10),
        # trec_eval divides by all that was wanted; here by what ten places can hold.
        "map_cut_10": average_precision(mine, 10) * np.minimum(n_wanted, 10) / n_wanted,
    }  # fmt: skip
    for name, values_N in same.items():
        told = [theirs[f"u{at}"][name] for at in range(len(cases))]
        np.testing.assert_allclose(values_N, told, atol=1e-6, err_msg=name)


def test_f1_lies_between_precision_and_recall() -> None:
    found = one([9, 4, 7, 1], [4, 1, 5])
    assert f1(found, 4)[0] == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))


def test_novelty_counts_bits_and_diversity_angles() -> None:
    count_I = np.array([96.0, 2, 1, 1])
    assert novelty(one([0], []), count_I, 1)[0] == pytest.approx(-np.log2(0.96))
    assert novelty(one([2, 3], []), count_I, 2)[0] > novelty(one([0, 1], []), count_I, 2)[0]
    assert novelty(one([NO_ITEM, NO_ITEM], []), count_I, 2)[0] == 0
    vectors = np.array([[1.0, 0], [2, 0], [0, 1], [-1, 0]])
    assert diversity(one([0, 1], []), vectors, 2)[0] == pytest.approx(0)
    assert diversity(one([0, 2], []), vectors, 2)[0] == pytest.approx(1)
    assert diversity(one([0, 3], []), vectors, 2)[0] == pytest.approx(2)
    assert diversity(one([0], []), vectors, 2)[0] == 0


def test_segments_are_judged_apart() -> None:
    told = by_segment(
        np.array([0.0, 1.0, 1.0]), {"new": np.array([True, False, False]), "old": np.array([False, True, True])}
    )
    assert told["new"].mean == 0 and told["old"].mean == 1 and told["old"].users == 2


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
