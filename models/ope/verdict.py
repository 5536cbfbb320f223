"""The gate of a page policy: may it meet shoppers, by the log alone?

Choices. A policy passes only where a betting lower bound on the difference to the logging policy is above 0: a point
estimate lets a worse policy through every fifth time. The difference is taken page by page, so that a page's slots,
which share a shopper, count once. "Cannot tell" is a refusal with its own name, and a log with a fault is refused
before any figure is believed. A page's difference is the sum of (weight - 1) x reward over its slots, right where a
slot's reward depends on its item and position (IIPS) and the target's probability is that of its own page (proof.py).
Shapes: N slots of R pages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models.gate import CANNOT_TELL, PASS, REFUSE
from models.ope.betting import lower_bound
from models.ope.estimators import Floats, Interval, estimate
from models.ope.faults import Fault, faults
from models.ope.log import SlotLog


@dataclass(frozen=True)
class OpeParams:
    """alpha: chance to pass a policy that is no better; the least evidence for any statement."""

    alpha: float = 0.05
    margin: float = 0.0  # how much worse, as a share of the logging policy's value, still passes
    margin_champion: float = 0.05  # the same against the champion, in the order of what was shown (reorder.py)
    min_support: float = (
        0.2  # of the target's choices, where support may be partial, and for any order of what was shown
    )
    min_pages: int = 500
    min_effective: float = 50.0  # slots: effective sample size of the weights
    max_weight: float = 1e5  # the bound holds for any weight; beyond this a propensity is hardly believed


@dataclass(frozen=True)
class Judgement:
    """Verdict and reasons; figures are rewards a page."""

    verdict: str
    reasons: tuple[str, ...]
    logging: Interval
    target: Interval
    difference: Interval
    lower: float | None
    diagnostics: dict[str, float]
    faults: tuple[Fault, ...]

    def doubted(self, fault: Fault | None) -> Judgement:
        """With a fault of the log that lets nothing pass; without one as it is."""
        if fault is None:
            return self
        verdict = CANNOT_TELL if self.verdict == PASS else self.verdict
        return replace(self, verdict=verdict, reasons=(*self.reasons, str(fault)), faults=(*self.faults, fault))

    def supported(self, shown: float, least: float) -> Judgement:
        """Undecided where too little of what the target would show was shown: of the rest its order tells nothing."""
        if shown >= least or self.verdict != PASS:
            return self
        reason = f"the log shows {shown:.0%} of what it would show, and of the rest an order tells nothing"
        return replace(self, verdict=CANNOT_TELL, reasons=(*self.reasons, f"{reason} (wanted {least:.0%})"))

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "logging": self.logging.to_json(),
            "target": self.target.to_json(),
            "difference": self.difference.to_json(),
            "lower_bound": None if self.lower is None else round(self.lower, 6),
            "diagnostics": {name: round(value, 6) for name, value in self.diagnostics.items()},
            "faults": [fault.to_json() for fault in self.faults],
        }


def diagnostics(log: SlotLog, weight_N: Floats) -> dict[str, float]:
    """What tells whether the weights can be believed; all are about drawn slots."""
    total, square = float(weight_N.sum()), float((weight_N**2).sum())
    slots = max(1, weight_N.size)
    return {
        "pages": float(log.pages),
        "slots": float(weight_N.size),
        "mean weight": total / slots,
        "effective sample size": total**2 / square if square else 0.0,
        "largest weight": float(weight_N.max(initial=0.0)),
        "slots the target would never show": float((weight_N == 0).mean()) if weight_N.size else 0.0,
        "least propensity": float(log.propensity_N.min(initial=1.0)),
        "deterministic slots left out": log.left_out / max(1, log.left_out + weight_N.size),
    }


def page_values(log: SlotLog, value_N: Floats) -> Floats:
    """(R,) sums by page."""
    _, at_N = np.unique(log.page_N, return_inverse=True)
    return np.bincount(at_N, value_N).astype(np.float64)


def judge(log: SlotLog, target_N: Floats, params: OpeParams | None = None, full_support: bool = True) -> Judgement:
    """The verdict on a target policy with probabilities `target_N` of the logged items in their places.

    With `full_support` false the logging policy may have left out some of the target's choices: the target is valued on
    the choices that the log supports (weights over their mean at the position), and the support is told.
    """
    params = params or OpeParams()
    weight_N = target_N / log.propensity_N
    found = tuple(faults(log, weight_N if full_support else None))
    told = diagnostics(log, weight_N)
    if not full_support:
        weight_N = _normalised(log, weight_N)
    reward_R, value_R = page_values(log, log.reward_N), page_values(log, weight_N * log.reward_N)
    figures = (estimate(reward_R), estimate(value_R), estimate(value_R - reward_R))
    if found:
        return Judgement(REFUSE, tuple(map(str, found)), *figures, None, told, found)
    allowance = params.margin * float(reward_R.mean()) if reward_R.size else 0.0
    floor = -max(float(reward_R.max(initial=0.0)), 1e-9)
    lower = lower_bound(value_R - reward_R, floor, params.alpha)
    heaviest = float(page_values(log, weight_N).max(initial=1.0)) * -floor
    worse = lower_bound(reward_R - value_R, -heaviest, params.alpha) > allowance
    verdict, reason = decide(lower > -allowance, worse, allowance, figures[2], lower, told, params)
    return Judgement(verdict, (reason,), *figures, lower, told, ())


def _normalised(log: SlotLog, weight_N: Floats) -> Floats:
    """(N,) weights over their mean at each position."""
    count_S = np.bincount(log.position_N)
    mean_S = np.bincount(log.position_N, weight_N) / np.maximum(count_S, 1)
    return weight_N / np.maximum(mean_S[log.position_N], 1e-9)


def decide(
    better: bool,
    worse: bool,
    allowance: float,
    interval: Interval,
    lower: float,
    told: dict[str, float],
    params: OpeParams,
) -> tuple[str, str]:
    """The verdict and its reason, once both bets are settled; no verdict on too little evidence."""
    if told["pages"] < params.min_pages or told["effective sample size"] < params.min_effective:
        seen = f"{told['pages']:,.0f} pages, effective sample size {told['effective sample size']:,.0f} slots"
        wanted = f"{params.min_pages:,} and {params.min_effective:,.0f} are wanted"
        return CANNOT_TELL, f"too little evidence: {seen}; {wanted}"
    if told["largest weight"] > params.max_weight:
        return CANNOT_TELL, f"a single weight of {told['largest weight']:,.0f} decides: the log hardly supports it"
    if told["mean weight"] < params.min_support:
        return CANNOT_TELL, f"the log supports {told['mean weight']:.0%} of the target's choices"
    between = f"difference {interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}] a page"
    limit = f"{-allowance:+.4f}" if allowance else "0"
    if better:
        return PASS, f"{between}; surely above {limit} (lower bound {lower:+.4f})"
    if worse:
        return REFUSE, f"{between}; below {limit}"
    return CANNOT_TELL, f"{between}; the lower bound {lower:+.4f} is not above {limit}"
