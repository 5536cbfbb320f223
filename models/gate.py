"""The gate: may this challenger meet shoppers?

Choices. Every comparison is a lower bound on a paired difference by user, because a point estimate lets every second
equal model through; "cannot tell" is a refusal with its own name. No champion is no free pass: then the yardsticks
alone decide, and the verdict says that it is a bootstrap. A model that is far too good is refused as a leak.
The champion is judged as it stood at its own cut, so that it has not seen the slice either.
Shapes: N users of the gate slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from features.errors import UsageError
from models.metrics import bootstrap_means, estimate

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

PASS, REFUSE, CANNOT_TELL = "pass", "refuse", "cannot tell"
NO_HISTORY = "no history: first visits"
# Of a shop with impressions: what is clicked next follows what was shown, so next-visit lists cannot judge.
PROOF_DECIDES = "told, not judged: the off-policy proof decides"
# The pages were served by the champion and what it learned since; the policy will have the like of that on top. Before
# the first champion it is compared with all of that, and decides where the log cannot tell.
ORDER_DECIDES = "told, not judged: the order of what was shown decides"
CHAMPION, SERVED = "champion", "served"  # whose order of what was shown a policy is compared with
ORDERS = {CHAMPION: "the champion's", SERVED: "the one it was served in"}
LOG_DECIDES = "told, not judged: surely better than what was served"


@dataclass(frozen=True)
class GateParams:
    """Limits; differences are in the deciding metric (NDCG@10)."""

    level: float = 0.975  # one-sided confidence of every lower bound; an equal challenger passes 2.5 % of the time
    margin_yardstick: float = 0.0
    margin_champion: float = 0.0
    margin_lightgbm: float = -0.01  # trees on the same features are a rival, not a yardstick: not surely worse by more
    segment_floor: float = -0.03
    segment_users: int = 100
    min_users: int = 100
    max_users: int | None = 4000  # of the gate slice; of more a fixed sample is judged: the interval is narrow by then
    max_calibration_error: float = 0.05
    min_coverage: float = 0.01
    max_data_age_days: float = 45.0  # told, not judged, where the champion is no fresher or there is none
    leak_value: float = 0.9
    leak_ratio: float = 6.0
    yardsticks: tuple[str, ...] = ("popular", "recently_popular", "own_counts", "item_knn")


@dataclass(frozen=True)
class Evidence:
    """What the gate looks at. `values` holds (N,) NDCG@10 of "challenger", every yardstick and, if any, "champion".

    `strangers` holds the same of those of whom nothing was known, where there were any.
    """

    values: Mapping[str, Floats]
    segments: Mapping[str, Bools]
    calibration_error: float | None
    coverage: float
    score_spread: float  # standard deviation of the challenger's scores over all lists; nan if any is not finite
    data_age_days: float
    champion: str | None  # its version
    champion_note: str = ""  # why a champion that exists cannot be scored
    proof: Mapping[str, Any] | None = None  # off-policy judgement of the learned page policy, where there is one
    against: Mapping[str, Any] | None = None  # the same by the order of what was shown, against the rival's
    rival: str = CHAMPION  # one of ORDERS
    policy_lost: str = ""  # why there is no page policy to prove where the champion has a proven one
    strangers: Mapping[str, Floats] = field(default_factory=dict)
    newer_than_champion: bool = False  # the newest event is later than the champion's; False also where nobody knows


@dataclass(frozen=True)
class Check:
    """One rule of the gate and how it came out."""

    rule: str
    limit: str
    observed: str
    verdict: str
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "rule": self.rule,
            "limit": self.limit,
            "observed": self.observed,
            "verdict": self.verdict,
            "low": None if self.low is None else round(self.low, 6),
            "high": None if self.high is None else round(self.high, 6),
        }


@dataclass(frozen=True)
class Verdict:
    """pass only where every check passed; `cannot tell` where nothing failed but something is undecided."""

    verdict: str
    kind: str  # "bootstrap" or "champion"
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> list[str]:
        """One sentence for every check that did not pass."""
        return [
            f"{check.rule}: {check.observed} (wanted {check.limit}): {check.verdict}"
            for check in self.checks
            if check.verdict != PASS
        ]

    def to_json(self) -> dict[str, Any]:
        """For the manifest and the report."""
        checks = [check.to_json() for check in self.checks]
        return {"verdict": self.verdict, "kind": self.kind, "reasons": self.reasons, "checks": checks}


def paired(challenger_N: Floats, other_N: Floats, level: float, seed: int = 0) -> tuple[float, float, float]:
    """Mean difference by user and its bounds, each one-sided at `level`."""
    difference_N = challenger_N - other_N
    if not difference_N.any():
        return 0.0, 0.0, 0.0
    low, high = np.quantile(bootstrap_means(difference_N, seed), [1 - level, level])
    return float(difference_N.mean()), float(low), float(high)


def compare(challenger_N: Floats, other_N: Floats, margin: float, level: float) -> tuple[str, float, float, float]:
    """pass: surely above the margin; refuse: surely not; else cannot tell. With (mean, low, high)."""
    mean, low, high = paired(challenger_N, other_N, level)
    verdict = PASS if low > margin else REFUSE if high < margin else CANNOT_TELL
    return verdict, mean, low, high


def judge(evidence: Evidence, params: GateParams) -> Verdict:
    """All rules over the evidence.

    Raises UsageError where the parameters name no yardstick, or one that was not measured.
    """
    unknown = [name for name in params.yardsticks if name not in evidence.values]
    if unknown or not params.yardsticks:
        fault = f"names {', '.join(unknown)}" if unknown else "is empty"
        measured = ", ".join(sorted(set(evidence.values) - {"challenger", "champion"}))
        raise UsageError(f"gate.yardsticks in params.yaml {fault}; the gate needs one or more of: {measured}")
    mine_N = evidence.values["challenger"]
    checks = [_enough(mine_N, params)]
    names = list(params.yardsticks)
    margins = dict.fromkeys(names, params.margin_yardstick)
    if "champion" in evidence.values:
        margins["champion"] = params.margin_champion
    checks += [_difference(evidence, name, margin, params) for name, margin in margins.items()]
    if "lightgbm" in evidence.values:
        checks.append(_rival(evidence, params))
    if evidence.champion is not None and "champion" not in evidence.values:
        checks.append(Check("champion can be scored", "yes", evidence.champion_note, CANNOT_TELL))
    if evidence.policy_lost:  # lists of next visits do not say what a page without it would earn
        rule, limit = "page policy, as the champion has one", "learned and proved off-policy"
        checks.append(Check(rule, limit, f"none was learned: {evidence.policy_lost}", CANNOT_TELL))
    checks += [_segment(evidence.values, name, mask_N, params) for name, mask_N in evidence.segments.items()]
    if evidence.strangers:
        everybody_N = np.ones(evidence.strangers["challenger"].size, dtype=np.bool_)
        checks.append(_segment(evidence.strangers, NO_HISTORY, everybody_N, params))
    if evidence.proof is not None:
        checks = [
            *(_told(check, PROOF_DECIDES) for check in checks),
            *proofs(evidence.proof, evidence.against, evidence.rival),
        ]
    checks += _sanity(evidence, params)
    told = {check.verdict for check in checks}
    verdict = REFUSE if REFUSE in told else CANNOT_TELL if CANNOT_TELL in told else PASS
    return Verdict(verdict, "champion" if evidence.champion is not None else "bootstrap", tuple(checks))


def _told(check: Check, limit: str) -> Check:
    """A check that is told, not judged: where it did not hold, the limit says why that stops nothing."""
    return check if check.verdict == PASS else replace(check, limit=limit, verdict=PASS)


def proofs(proof: Mapping[str, Any], against: Mapping[str, Any] | None, rival: str = CHAMPION) -> list[Check]:
    """Against the log, and in the order of what was shown against a rival's; a log with a fault proves nothing."""

    def check(rule: str, told: Mapping[str, Any]) -> Check:
        return Check(f"{rule}, off-policy", "surely not worse", "; ".join(told["reasons"]), told["verdict"])

    served = check("value of a page against the logging policy", proof)
    if against is None or proof["faults"]:
        return [served]
    order = check(f"order of what was shown against {ORDERS[rival]}", against)
    if order.verdict == PASS and (rival == CHAMPION or served.verdict == CANNOT_TELL):
        served = _told(served, ORDER_DECIDES)
    elif served.verdict == PASS and (rival == SERVED or order.verdict == CANNOT_TELL):
        order = _told(order, LOG_DECIDES)
    return [served, order]


def _enough(mine_N: Floats, params: GateParams) -> Check:
    enough = PASS if mine_N.size >= params.min_users else CANNOT_TELL
    return Check("users in the gate slice", f">= {params.min_users}", str(mine_N.size), enough)


def _difference(evidence: Evidence, name: str, margin: float, params: GateParams) -> Check:
    verdict, mean, low, high = compare(evidence.values["challenger"], evidence.values[name], margin, params.level)
    limit = f"lower bound > {margin:+.3f}"
    return Check(f"NDCG@10 against {name}", limit, f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]", verdict, low, high)


def _rival(evidence: Evidence, params: GateParams) -> Check:
    """The trees say whether the network is worth its place; a small shop that cannot tell them apart is not stopped."""
    check = _difference(evidence, "lightgbm", params.margin_lightgbm, params)
    limit = f"not surely below {params.margin_lightgbm:+.3f}"
    return replace(check, limit=limit, verdict=REFUSE if check.verdict == REFUSE else PASS)


def _segment(values: Mapping[str, Floats], name: str, mask_N: Bools, params: GateParams) -> Check:
    """Not surely worse than the strongest yardstick in any segment that is large enough to say."""
    rule = f"segment {name}"
    users = int(mask_N.sum())
    limit = f"not surely below {params.segment_floor:+.2f} of the best yardstick"
    if users < params.segment_users:
        return Check(rule, limit, f"{users} users: too few to say, not judged", PASS)
    best = max(params.yardsticks, key=lambda one: float(values[one][mask_N].mean()))
    mean, low, high = paired(values["challenger"][mask_N], values[best][mask_N], params.level)
    verdict = REFUSE if high < params.segment_floor else PASS
    observed = f"{mean:+.4f} [{low:+.4f}, {high:+.4f}] against {best}, {users} users"
    return Check(rule, limit, observed, verdict, low, high)


def _sanity(evidence: Evidence, params: GateParams) -> list[Check]:
    """Rules about the challenger alone."""
    spread = evidence.score_spread
    sane = PASS if np.isfinite(spread) and spread > 1e-6 else REFUSE
    checks = [Check("scores are finite and differ", "spread > 0", f"{spread:.4g}", sane)]
    error = evidence.calibration_error
    if error is not None:
        verdict = PASS if error <= params.max_calibration_error else REFUSE
        checks.append(Check("calibration error", f"<= {params.max_calibration_error}", f"{error:.4f}", verdict))
    covered = PASS if evidence.coverage >= params.min_coverage else REFUSE
    rule = "catalogue coverage of the top 10"
    checks.append(Check(rule, f">= {params.min_coverage}", f"{evidence.coverage:.4f}", covered))
    return [*checks, _age(evidence, params), _leak(evidence, params)]


def _age(evidence: Evidence, params: GateParams) -> Check:
    rule, age = "age of the newest event at the run's date", f"{evidence.data_age_days:.1f} days"
    limit = f"<= {params.max_data_age_days:g} days"
    check = Check(rule, limit, age, PASS if evidence.data_age_days <= params.max_data_age_days else REFUSE)
    if evidence.champion is None:
        return _told(check, f"{limit}; told, not judged: there is no champion that is fresher")
    if evidence.newer_than_champion:  # who replays an archive would otherwise never get past the first model
        return _told(check, f"{limit}; told, not judged: the champion's data is older")
    return check


def _leak(evidence: Evidence, params: GateParams) -> Check:
    """Far better than every yardstick: more likely the future in the features than a better model."""
    mine, *others = (_mean(evidence.values[name]) for name in ("challenger", *params.yardsticks))
    best = max(others, default=0.0)
    leak = mine > params.leak_value or (mine > 0.3 and mine > params.leak_ratio * max(best, 1e-9))
    limit = f"NDCG@10 <= {params.leak_value:g} and <= {params.leak_ratio:g} x the best yardstick"
    return Check("too good to be true", limit, f"{mine:.4f}, best yardstick {best:.4f}", REFUSE if leak else PASS)


def _mean(values_N: Floats) -> float:
    return float(values_N.mean()) if values_N.size else 0.0


def summary(values: Mapping[str, Floats]) -> dict[str, dict[str, float | int]]:
    """Mean and interval of every model's values."""
    return {name: estimate(values_N).to_json() for name, values_N in values.items()}
