"""Metrics of probabilities against what happened: one row an impression, users as groups, ties by mid-rank.

Choices. Everything takes weights, so that an interval resamples users (rows of one user are not independent) by giving
each user a whole-number weight; a comparison draws the same users on both sides. Nothing is sampled or thresholded
unless the metric is defined by a threshold. Where a metric is undefined (one class only) it is nan, never a guess.
Source: Hanley & McNeil, 1982 (AUC as a rank statistic); Guo et al., 2017 (ECE).
Shapes: N rows, U users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.metrics import Estimate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[Any]

EPSILON = 1e-12


@dataclass(frozen=True)
class Ordered:
    """Rows in the order of their score, equal scores in one group: what every rank statistic reads."""

    order: Ints
    starts: Ints  # of groups of equal scores
    label: Floats

    @classmethod
    def of(cls, label_N: Labels, score_N: npt.NDArray[np.floating]) -> Ordered:
        """Sort once; many weightings follow."""
        order = np.argsort(score_N, kind="stable")
        fresh = np.append(True, np.diff(score_N[order]) != 0) if order.size else np.zeros(0, dtype=bool)
        return cls(order, np.flatnonzero(fresh), np.asarray(label_N, dtype=np.float64)[order])

    def auc(self, weight_N: Floats | None = None) -> float:
        """Chance that a random positive row scores above a random negative one, a tie counting half."""
        weight = np.ones(self.order.size) if weight_N is None else weight_N[self.order]
        if not self.order.size:
            return float("nan")
        good = np.add.reduceat(weight * self.label, self.starts)
        bad = np.add.reduceat(weight * (1 - self.label), self.starts)
        below = np.cumsum(bad) - bad
        pairs = good.sum() * bad.sum()
        return float((good * (below + 0.5 * bad)).sum() / pairs) if pairs > 0 else float("nan")


def auc(label_N: Labels, score_N: npt.NDArray[np.floating], weight_N: Floats | None = None) -> float:
    """Area under the ROC curve; nan where one class is missing.

    >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875
    """
    return Ordered.of(label_N, score_N).auc(weight_N)


def auc_by_user(label_N: Labels, score_N: npt.NDArray[np.floating], user_N: Ints) -> Floats:
    """(U,) AUC within each user, nan for a user with one class only; users in ascending order."""
    order = np.argsort(user_N, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(user_N[order]) != 0)) if order.size else np.zeros(0, dtype=int)
    groups = np.split(order, starts[1:]) if order.size else []
    return np.array([auc(label_N[rows], score_N[rows]) for rows in groups])


def log_losses(label_N: Labels, p_N: npt.NDArray[np.floating]) -> Floats:
    """(N,) minus the log of the probability of what happened."""
    p = np.clip(np.asarray(p_N, dtype=np.float64), EPSILON, 1 - EPSILON)
    return -np.where(np.asarray(label_N) > 0, np.log(p), np.log1p(-p))


def calibration_gap(label_N: Labels, p_N: npt.NDArray[np.floating]) -> float:
    """Calibration in the large: mean probability minus frequency; nan for nobody."""
    return float(np.mean(p_N) - np.mean(label_N)) if len(p_N) else float("nan")


def expected_calibration_error(label_N: Labels, p_N: npt.NDArray[np.floating], bins: int = 15) -> float:
    """Mean gap between probability and frequency over bins of equal size, weighted by rows; 0 for nobody."""
    order = np.argsort(p_N, kind="stable")
    parts = [part for part in np.array_split(order, bins) if part.size]
    gaps = [abs(float(p_N[part].mean()) - float(np.asarray(label_N)[part].mean())) * part.size for part in parts]
    return float(sum(gaps) / max(order.size, 1))


def at_threshold(label_N: Labels, p_N: npt.NDArray[np.floating], threshold: float = 0.5) -> dict[str, float]:
    """Accuracy, precision, recall and F1 of "p at least the threshold"; 0 where a denominator is."""
    said, was = np.asarray(p_N) >= threshold, np.asarray(label_N) > 0
    hit = float((said & was).sum())
    precision, recall = hit / max(float(said.sum()), 1.0), hit / max(float(was.sum()), 1.0)
    f1 = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
    accuracy = float((said == was).mean()) if said.size else 0.0
    return {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}


def user_weights(user_N: Ints, draws: int, seed: int = 0) -> Callable[[int], Floats]:
    """draw -> (N,) how often each row's user was drawn."""
    users, code_N = np.unique(user_N, return_inverse=True)

    def weights(draw: int) -> Floats:
        rng = np.random.default_rng([seed, draw])
        drawn = np.bincount(rng.integers(0, users.size, users.size), minlength=users.size)
        return np.asarray(drawn[code_N], dtype=np.float64)

    return weights


def auc_difference(
    label_N: Labels, one_N: Floats, other_N: Floats, user_N: Ints, draws: int = 300, seed: int = 0
) -> Estimate:
    """AUC of one minus AUC of the other with a 95 % interval: users resampled, the same on both sides."""
    first, second = Ordered.of(label_N, one_N), Ordered.of(label_N, other_N)
    weights = user_weights(user_N, draws, seed)
    found = []
    for draw in range(draws):
        weight_N = weights(draw)
        found.append(first.auc(weight_N) - second.auc(weight_N))
    low, high = np.nanquantile(found, [0.025, 0.975])
    return Estimate(first.auc() - second.auc(), float(low), float(high), int(np.unique(user_N).size))


def mean_by_user(value_N: Floats, user_N: Ints, draws: int = 1000, seed: int = 0) -> Estimate:
    """Mean over rows with a 95 % interval over resampled users (a user's rows come and go together)."""
    users, code_N = np.unique(user_N, return_inverse=True)
    total_U, rows_U = np.bincount(code_N, weights=value_N), np.bincount(code_N)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        drawn_U = np.bincount(rng.integers(0, users.size, users.size), minlength=users.size)
        found.append(float(drawn_U @ total_U) / max(float(drawn_U @ rows_U), 1.0))
    low, high = np.quantile(found, [0.025, 0.975])
    return Estimate(float(np.mean(value_N)), float(low), float(high), int(users.size))
