"""Metrics of probabilities: known answers, scikit-learn's answers, properties, honest intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score, roc_auc_score

from models.binary import (
    Ordered,
    at_threshold,
    auc,
    auc_by_user,
    auc_difference,
    calibration_gap,
    expected_calibration_error,
    log_losses,
    mean_by_user,
)

seeds = st.integers(0, 2**31)


def case(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of both classes, scores with ties, weights."""
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.3
    label[:2] = True, False
    return label, rng.integers(0, 12, n) / 12 + 0.01, rng.integers(0, 4, n) + 0.0


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_equal_to_scikit_learn(seed: int) -> None:
    label, p, weight = case(seed)
    weight[:2] = 1.0
    assert auc(label, p) == pytest.approx(roc_auc_score(label, p))
    assert auc(label, p, weight) == pytest.approx(roc_auc_score(label, p, sample_weight=weight))
    assert log_losses(label, p).mean() == pytest.approx(log_loss(label, p))
    told, said = at_threshold(label, p), p >= 0.5
    assert told["accuracy"] == pytest.approx(accuracy_score(label, said))
    assert told["precision"] == pytest.approx(precision_score(label, said, zero_division=0))
    assert told["recall"] == pytest.approx(recall_score(label, said))
    assert told["f1"] == pytest.approx(f1_score(label, said, zero_division=0))


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_auc_is_a_matter_of_order_alone_and_turns_over_with_the_score(seed: int) -> None:
    label, p, _ = case(seed)
    assert auc(label, np.exp(3 * p)) == pytest.approx(auc(label, p))
    assert auc(label, -p) == pytest.approx(1 - auc(label, p))
    assert auc(label, np.ones_like(p)) == pytest.approx(0.5)


def test_one_class_has_no_auc_and_nobody_costs_nothing() -> None:
    assert np.isnan(auc(np.ones(3), np.arange(3.0)))
    assert np.isnan(auc(np.zeros(0), np.zeros(0)))
    assert expected_calibration_error(np.zeros(0), np.zeros(0)) == 0
    assert np.isnan(calibration_gap(np.zeros(0), np.zeros(0)))


def test_auc_within_users_judges_each_user_alone() -> None:
    user = np.array([7, 7, 3, 3, 9, 9])
    label = np.array([1, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(auc_by_user(label, np.array([2.0, 1, 2, 1, 5, 4]), user), [0.0, 1.0, np.nan])


def test_true_probabilities_are_calibrated_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(1, 20, 200_000)
    label = rng.random(p.size) < p
    assert expected_calibration_error(label, p) < 0.002
    assert abs(calibration_gap(label, p)) < 0.001
    assert expected_calibration_error(label, 2 * p) == pytest.approx(p.mean(), abs=0.003)
    assert calibration_gap(label, 2 * p) == pytest.approx(p.mean(), abs=0.003)


def test_the_interval_of_a_difference_covers_nothing_where_there_is_none_and_shrinks_with_users() -> None:
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(400), 20)
    truth = rng.normal(size=user.size) + rng.normal(size=400)[user]
    label = rng.random(user.size) < 1 / (1 + np.exp(-truth))
    one, other = truth + rng.normal(size=user.size), truth + rng.normal(size=user.size)
    told = auc_difference(label, one, other, user, draws=100)
    assert told.low < 0 < told.high
    better = auc_difference(label, truth, other, user, draws=100)
    assert better.low > 0
    assert better.mean == pytest.approx(auc(label, truth) - auc(label, other))
    few = auc_difference(label[:2000], truth[:2000], other[:2000], user[:2000], draws=100)
    assert few.high - few.low > better.high - better.low
    assert auc_difference(label, one, one, user, draws=20).high == 0


def test_the_mean_by_user_resamples_whole_users() -> None:
    user = np.repeat(np.arange(50), 100)
    value = np.repeat(np.random.default_rng(0).normal(size=50), 100)
    told = mean_by_user(value, user)
    assert told.high - told.low > 0.3  # 50 users, not 5,000 rows
    assert told.mean == pytest.approx(value.mean())


def test_ordering_once_serves_many_weightings() -> None:
    label, p, weight = case(5)
    ordered = Ordered.of(label, p)
    assert ordered.auc(weight) == pytest.approx(auc(label, p, weight))
