"""Plackett-Luce with a floor: mostly the best candidate, sometimes another one, and the probability is known exactly.

Chosen because its slot-by-slot factors are exact propensities (no estimate, no Monte Carlo): slot s draws from a
softmax over what is left, mixed with a uniform share so that no allowed candidate has a weight near infinity later.
The draw is a race of exponential clocks, the smallest time / probability wins: Gumbel noise on log probabilities with
the logarithm taken out, and one vector operation. Source: Plackett (1975); Kool et al. (2019) for the Gumbel view.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.errors import UsageError
from models.policy import BoolArray, Choice, FloatArray

TINY = 1e-300  # stands for a probability of 0, which so loses every race


@dataclass(frozen=True)
class PlackettLuceParams:
    """temperature: in units of utility (which lies in 0..1 over a pool); floor: the uniform share of each draw."""

    temperature: float = 0.03
    floor: float = 0.02


class PlackettLuce:
    """The serving policy; stateless, so one object serves all requests."""

    def __init__(self, params: PlackettLuceParams | None = None) -> None:
        params = params or PlackettLuceParams()
        if not params.temperature > 0 or not 0 <= params.floor < 1:
            raise UsageError(f"policy: temperature must be > 0 and floor in [0, 1), got {params}; see params.yaml")
        self.params = params
        self.name = f"plackett-luce-t{params.temperature:g}-f{params.floor:g}"

    def probabilities(self, utility_C: FloatArray, allowed_C: BoolArray) -> FloatArray:
        """Probability of each candidate for this slot, (C,), or for many slots at once, (M, C); 0 where not allowed."""
        weight_C = np.where(allowed_C, utility_C, -np.inf)
        weight_C = np.exp((weight_C - weight_C.max(axis=-1, keepdims=True)) / self.params.temperature)
        weight_C *= (1 - self.params.floor) / weight_C.sum(axis=-1, keepdims=True)
        result: FloatArray = weight_C + allowed_C * (self.params.floor / allowed_C.sum(axis=-1, keepdims=True))
        return result

    def _mixed(self, utility_C: FloatArray, allowed_C: BoolArray, allowed: int) -> tuple[FloatArray, int]:
        """Probabilities and the greedy place; in place, because a page asks for them once a slot."""
        weight_C = np.where(allowed_C, utility_C, -np.inf)
        greedy = int(weight_C.argmax())
        weight_C -= weight_C[greedy]
        weight_C /= self.params.temperature
        np.exp(weight_C, out=weight_C)
        weight_C *= (1 - self.params.floor) / float(np.add.reduce(weight_C))
        weight_C += allowed_C * (self.params.floor / allowed)
        return weight_C, greedy

    def choose(self, utility_C: FloatArray, allowed_C: BoolArray, rng: np.random.Generator) -> Choice:
        """One draw; greedy is the highest utility, ties to the lower place."""
        allowed = int(np.count_nonzero(allowed_C))
        probability_C, greedy = self._mixed(utility_C, allowed_C, allowed)
        if allowed == 1:
            return Choice(greedy, 1.0, greedy)
        clock_C = rng.standard_exponential(probability_C.size)
        clock_C /= np.maximum(probability_C, TINY)
        place = int(clock_C.argmin())
        return Choice(place, min(1.0, float(probability_C[place])), greedy)


class Greedy:
    """Always the highest utility, with propensity 1; for comparisons and for a shop that must not explore."""

    name = "greedy"

    def choose(self, utility_C: FloatArray, allowed_C: BoolArray, rng: np.random.Generator) -> Choice:
        """The best allowed candidate."""
        best = int(np.argmax(np.where(allowed_C, utility_C, -np.inf)))
        return Choice(best, 1.0, best)


def utilities(score_C: FloatArray) -> FloatArray:
    """Scores of any kind -> utilities in 0..1 over this pool: NaN and -inf become the lowest, +inf the highest.

    Scaled by the pool's own range, so that one temperature fits models whose logits differ in scale.
    """
    score_C = np.asarray(score_C, dtype=np.float64)
    finite_C = np.isfinite(score_C)
    if not finite_C.any():
        return np.where(score_C == np.inf, 1.0, 0.0)
    low, high = float(score_C[finite_C].min()), float(score_C[finite_C].max())
    span = high / 2 - low / 2  # halves: the difference of two huge scores would overflow
    if span <= 0:
        return np.where(score_C == np.inf, 1.0, np.where(finite_C, 0.5, 0.0))
    if not finite_C.all():
        score_C = np.nan_to_num(score_C, nan=low, posinf=high, neginf=low)
    scaled_C = np.clip((score_C / 2 - low / 2) / span, 0.0, 1.0)
    return np.asarray(scaled_C, dtype=np.float64)
