"""Estimators for single rounds: one action a round, logged with its exact probability.

Choices. Each estimator returns the value of every round, (N,), so that means, intervals, bootstraps and paired
differences are all taken in one place. The interval is the normal one over rounds. It is claimed only by estimators
whose error goes to zero with N: `CLAIMS_COVERAGE`. The direct method, Switch-DR and shrinkage trade a bias for less
variance, and their interval is of their own mean, not of the truth.
Sources: Dudik et al. (2011), DR; Swaminathan and Joachims (2015), SNIPS; Wang et al. (2017), Switch; Su et al. (2020),
shrinkage; Li et al. (2011), replay.
Shapes: N rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.errors import UsageError

Floats = npt.NDArray[np.float64]
Z95 = 1.959963984540054


@dataclass(frozen=True, eq=False)
class Rounds:
    """N rounds: reward, logging and target probability of the action that was taken, and a model's reward.

    `model_taken_N` is the model's expected reward of the action that was taken, `model_target_N` that of the target
    policy; both 0 where no model is used (then DR is IPS). UsageError for probabilities that are none.
    """

    reward_N: Floats
    propensity_N: Floats
    target_N: Floats
    model_taken_N: Floats | None = None
    model_target_N: Floats | None = None

    def __post_init__(self) -> None:
        low, high = (float(f(self.propensity_N)) for f in (np.min, np.max)) if self.propensity_N.size else (1.0, 1.0)
        if not 0 < low <= high <= 1:
            raise UsageError(f"propensities must lie in (0, 1], found {low:g} to {high:g}")
        if self.target_N.size and (np.min(self.target_N) < 0 or np.max(self.target_N) > 1 + 1e-9):
            raise UsageError("target probabilities must lie in [0, 1]")

    @property
    def weight_N(self) -> Floats:
        """(N,) target over logging probability."""
        return self.target_N / self.propensity_N

    @property
    def taken_N(self) -> Floats:
        """(N,) the model's reward of what was done."""
        return np.zeros_like(self.reward_N) if self.model_taken_N is None else self.model_taken_N

    @property
    def aimed_N(self) -> Floats:
        """(N,) the model's reward of what the target would do."""
        return np.zeros_like(self.reward_N) if self.model_target_N is None else self.model_target_N


def replay(rounds: Rounds) -> Floats:
    """Rounds in which the target would surely have done the same; for a deterministic target over uniform logging."""
    same_N = (rounds.target_N >= 1 - 1e-9).astype(np.float64)
    return _self_normalised(same_N, rounds.reward_N)


def direct(rounds: Rounds) -> Floats:
    """The reward model alone: biased by whatever the model gets wrong."""
    return rounds.aimed_N


def ips(rounds: Rounds) -> Floats:
    """Inverse propensities: unbiased, with the variance of the weights."""
    return rounds.weight_N * rounds.reward_N


def snips(rounds: Rounds) -> Floats:
    """Self-normalised IPS; the values are linearised, so that their spread is that of the ratio."""
    return _self_normalised(rounds.weight_N, rounds.reward_N)


def _self_normalised(weight_N: Floats, reward_N: Floats) -> Floats:
    total = float(weight_N.mean()) if weight_N.size else 0.0
    if total <= 0:
        return np.full(weight_N.size, np.nan)
    ratio = float((weight_N * reward_N).mean()) / total
    return ratio + weight_N * (reward_N - ratio) / total


def doubly_robust(rounds: Rounds) -> Floats:
    """The model, corrected by weighted residuals; unbiased where the model did not see the round (cross-fitting)."""
    return rounds.aimed_N + rounds.weight_N * (rounds.reward_N - rounds.taken_N)


def switch(rounds: Rounds, tau: float = 20.0) -> Floats:
    """DR where the weight is at most `tau`, the model alone beyond it."""
    weight_N = np.where(rounds.weight_N <= tau, rounds.weight_N, 0.0)
    return rounds.aimed_N + weight_N * (rounds.reward_N - rounds.taken_N)


def shrinkage(rounds: Rounds, strength: float = 100.0) -> Floats:
    """DR with weights shrunk to `strength` x w / (w^2 + strength)."""
    weight_N = strength * rounds.weight_N / (rounds.weight_N**2 + strength)
    return rounds.aimed_N + weight_N * (rounds.reward_N - rounds.taken_N)


ESTIMATORS: dict[str, Callable[[Rounds], Floats]] = {
    "replay": replay,
    "DM": direct,
    "IPS": ips,
    "SNIPS": snips,
    "DR": doubly_robust,
    "Switch-DR": switch,
    "DR shrinkage": shrinkage,
}
CLAIMS_COVERAGE = ("replay", "IPS", "SNIPS", "DR")


@dataclass(frozen=True)
class Interval:
    """A mean with its normal 95 % interval; nan where there is nothing to average."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """For the report; nan is null."""
        return {name: None if np.isnan(value) else round(value, 6) for name, value in vars(self).items()}


def estimate(value_N: Floats) -> Interval:
    """Mean of the rounds' values and its interval."""
    if value_N.size < 2 or not np.isfinite(value_N).all():
        return Interval(float("nan"), float("nan"), float("nan"))
    mean, half = float(value_N.mean()), Z95 * float(value_N.std(ddof=1)) / np.sqrt(value_N.size)
    return Interval(mean, mean - half, mean + half)
