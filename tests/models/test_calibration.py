"""From a score to a probability: recovered where the truth is known, monotone, honest where nothing can be fitted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import Calibration, calibration_bins, examination, expected_calibration_error, fit


def simulated(slope: float, offset: float, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = rng.normal(0, 1.5, rows)
    return score, (rng.random(rows) < 1 / (1 + np.exp(-(slope * score + offset)))).astype(float)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, -3.0), (0.4, -1.0), (2.0, -4.0)])
def test_recovers_the_true_slope_and_offset(slope: float, offset: float) -> None:
    found = fit(*simulated(slope, offset, 40_000))
    assert found.fitted
    assert found.slope == pytest.approx(slope, rel=0.08) and found.offset == pytest.approx(offset, rel=0.08)


def test_probabilities_on_new_rows_are_right_within_a_hundredth() -> None:
    found = fit(*simulated(0.8, -2.5, 20_000))
    score, label = simulated(0.8, -2.5, 20_000, seed=1)
    assert expected_calibration_error(calibration_bins(found.probability(score), label)) < 0.01
    assert abs(found.probability(score).mean() - label.mean()) < 0.005


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(-2, 2), st.floats(-4, 1))
def test_a_higher_score_is_never_less_likely(seed: int, slope: float, offset: float) -> None:
    found = fit(*simulated(slope, offset, 300, seed))
    p = found.probability(np.linspace(-50, 50, 101))
    assert (np.diff(p) >= 0).all() and p.min() > 0 and p.max() < 1


@pytest.mark.parametrize("label", [np.zeros(5), np.ones(5), np.zeros(0)])
def test_one_class_alone_gives_the_default_and_says_so(label: np.ndarray) -> None:
    assert fit(np.arange(label.size, dtype=float), label) == Calibration(fitted=False)


def test_the_error_of_known_bins() -> None:
    p, label = np.repeat([0.1, 0.9], 50), np.repeat([0.0, 1.0], 50)
    bins = calibration_bins(p, label, bins=2)
    assert [one["rows"] for one in bins] == [50, 50]
    assert expected_calibration_error(bins) == pytest.approx(0.1)
    assert expected_calibration_error([]) == 0.0


def test_the_first_slot_is_seen_by_all_and_later_ones_by_fewer() -> None:
    seen = [examination(position) for position in range(1, 25)]
    assert seen[0] == 1.0 and all(a > b > 0 for a, b in pairwise(seen))
