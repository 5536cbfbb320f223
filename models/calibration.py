"""From a score to a probability, and what a slot's place does to it.

Choices. Platt scaling (two numbers) on a slice that the ranker was not fitted on: a shop's slice holds too few clicks
for more. The decline over positions is estimated where the log has impressions with positions; without them it is
the usual 1 / log2(1 + position), and the model says that it is assumed.
Source: Platt, 1999. Shapes: C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """p = sigmoid(slope x score + offset); `fitted` False: nothing to fit on, the numbers are a default."""

    slope: float = 0.5
    offset: float = -3.0
    fitted: bool = False

    def probability(self, score_C: npt.NDArray[np.floating]) -> Floats32:
        """(C,) strictly between 0 and 1."""
        z = np.clip(self.slope * score_C.astype(np.float64) + self.offset, -15.0, 15.0)
        result: Floats32 = (1.0 / (1.0 + np.exp(-z))).astype(np.float32)
        return result


def fit(score_R: npt.NDArray[np.floating], label_R: npt.NDArray[np.floating]) -> Calibration:
    """Maximum likelihood over R rows; the default where one class is missing. A higher score is never less likely."""
    label = (np.asarray(label_R) > 0).astype(np.float64)
    if label.size == 0 or label.min() == label.max():
        return Calibration()
    score = np.asarray(score_R, dtype=np.float64)

    def loss(ab: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        z = ab[0] * score + ab[1]
        p = 1.0 / (1.0 + np.exp(-np.clip(z, -30, 30)))
        value = float((np.logaddexp(0.0, z) - label * z).mean())
        return value, np.array([((p - label) * score).mean(), (p - label).mean()])

    from scipy.optimize import minimize  # a third of a second that a dozen stages would wait for

    found = minimize(loss, np.array([1.0, -3.0]), jac=True, method="L-BFGS-B", bounds=[(1e-3, 10.0), (-20.0, 20.0)])
    return Calibration(round(float(found.x[0]), 6), round(float(found.x[1]), 6), True)


def examination(position: int) -> float:
    """Assumed share of shoppers who look at a slot, 1 for the first; see the head of this file."""
    return 1.0 / float(np.log2(1 + position))


def calibration_bins(
    p_R: npt.NDArray[np.floating], label_R: npt.NDArray[np.floating], bins: int = 15
) -> list[dict[str, float]]:
    """Bins of equal size by probability: mean `predicted`, frequency `observed`, `rows`."""
    order = np.argsort(p_R, kind="stable")
    return [
        {"predicted": float(p_R[part].mean()), "observed": float(label_R[part].mean()), "rows": int(part.size)}
        for part in np.array_split(order, bins)
        if part.size
    ]


def expected_calibration_error(bins: list[dict[str, float]]) -> float:
    """Mean gap between probability and frequency over the bins, weighted by their rows."""
    rows = sum(one["rows"] for one in bins)
    return sum(abs(one["predicted"] - one["observed"]) * one["rows"] for one in bins) / max(rows, 1)
