"""Who may meet shoppers: nobody by luck, nobody for lack of a champion, nobody when the evidence does not say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import GateRefused, UsageError
from models.gate import CANNOT_TELL, PASS, REFUSE, Evidence, GateParams, Verdict, compare, judge, summary

PARAMS = GateParams()
N = 400


def users(mean: float, seed: int, n: int = N) -> Any:
    """(n,) values between 0 and 1, in hundredths."""
    rng = np.random.default_rng(seed)
    return np.round(np.clip(rng.normal(mean, 0.15, n), 0, 1), 2)


def evidence(challenger: Any = None, *, champion: Any = None, **changed: Any) -> Evidence:
    """A challenger that is clearly better than every yardstick, unless told otherwise."""
    mine = users(0.4, 1) if challenger is None else challenger
    values = {"challenger": mine} | {name: users(0.2, 9 + at, mine.size) for at, name in enumerate(PARAMS.yardsticks)}
    if champion is not None:
        values["champion"] = champion
    plain = Evidence(values, {}, 0.01, 0.3, 1.0, 0.0, None if champion is None else "v1")
    return replace(plain, **changed)


def verdict_of(verdict: Verdict, rule: str) -> str:
    return next(check.verdict for check in verdict.checks if check.rule == rule)


def test_a_clearly_better_challenger_passes_with_and_without_a_champion() -> None:
    assert judge(evidence(), PARAMS).verdict == PASS
    assert judge(evidence(), PARAMS).kind == "bootstrap"
    against = judge(evidence(champion=users(0.3, 2)), PARAMS)
    assert against.verdict == PASS and against.kind == "champion" and against.reasons == []


def test_a_clearly_worse_challenger_is_refused_and_the_reason_says_against_whom() -> None:
    verdict = judge(evidence(champion=users(0.5, 2)), PARAMS)
    assert verdict.verdict == REFUSE
    assert any("NDCG@10 against champion: -0.1" in reason for reason in verdict.reasons)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(1, 500))
def test_a_model_never_beats_itself(seed: int, mean: float, n: int) -> None:
    mine = users(mean, seed, n)
    assert compare(mine, mine, 0.0, PARAMS.level)[0] == CANNOT_TELL
    assert judge(evidence(mine, champion=mine.copy()), PARAMS).verdict != PASS


def test_an_equal_challenger_passes_at_most_5_times_in_100() -> None:
    rng = np.random.default_rng(4)
    passed = 0
    for _ in range(300):
        same = rng.random(120) * (rng.random(120) < 0.6)
        mine, champion = (np.round(np.clip(same + rng.normal(0, 0.1, 120), 0, 1), 2) for _ in range(2))
        passed += compare(mine, champion, PARAMS.margin_champion, PARAMS.level)[0] == PASS
    assert passed <= 15


def test_no_champion_is_no_free_pass() -> None:
    poor = users(0.1, 3)
    verdict = judge(evidence(poor), PARAMS)
    assert verdict.verdict == REFUSE and verdict.kind == "bootstrap"
    assert "NDCG@10 against popular" in verdict.reasons[0]


@pytest.mark.parametrize(("names", "message"), [((), "is empty"), (("popular", "astrology"), "names astrology")])
def test_a_gate_without_yardsticks_does_not_judge(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=f"gate.yardsticks in params.yaml {message}.*needs one or more of: .*popular"):
        judge(evidence(), replace(PARAMS, yardsticks=names))


def test_a_champion_that_cannot_be_scored_means_cannot_tell() -> None:
    verdict = judge(replace(evidence(), champion="v1", champion_note="the champion saw the gate slice"), PARAMS)
    assert verdict.verdict == CANNOT_TELL
    assert verdict.reasons == ["champion can be scored: the champion saw the gate slice (wanted yes): cannot tell"]


def test_cannot_tell_stops_a_run_as_a_refusal_does() -> None:
    assert judge(evidence(champion=users(0.4, 1) + users(0, 8) * 1e-3), PARAMS).verdict in (CANNOT_TELL, REFUSE)
    assert GateRefused.exit_code == 3 and {PASS, REFUSE, CANNOT_TELL} == {"pass", "refuse", "cannot tell"}


def test_too_few_users_cannot_tell_however_good() -> None:
    verdict = judge(evidence(users(0.4, 1, 99)), PARAMS)
    assert verdict.verdict == CANNOT_TELL and verdict_of(verdict, "users in the gate slice") == CANNOT_TELL
    assert judge(evidence(np.zeros(0)), PARAMS).verdict == CANNOT_TELL


@pytest.mark.parametrize("mean", [0.97, 0.7])
def test_far_too_good_is_refused_as_a_leak(mean: float) -> None:
    values = {"challenger": np.full(N, mean)} | {name: users(0.05, 5) * 0.5 for name in PARAMS.yardsticks}
    verdict = judge(replace(evidence(), values=values), PARAMS)
    assert verdict.verdict == REFUSE and verdict_of(verdict, "too good to be true") == REFUSE


@pytest.mark.parametrize("spread", [0.0, float("nan"), float("inf"), 1e-9])
def test_constant_or_infinite_scores_are_refused(spread: float) -> None:
    assert "scores are finite and differ" in judge(evidence(score_spread=spread), PARAMS).reasons[0]


def test_values_that_are_not_numbers_never_pass() -> None:
    broken = users(0.4, 1)
    broken[7] = np.nan
    assert judge(evidence(broken), PARAMS).verdict != PASS


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"calibration_error": 0.051}, "calibration error"),
        ({"calibration_error": float("nan")}, "calibration error"),
        ({"coverage": 0.009}, "catalogue coverage of the top 10"),
        ({"data_age_days": 45.5, "champion": users(0.3, 2)}, "age of the newest event at the run's date"),
    ],
)
def test_limits_of_calibration_coverage_and_freshness(changed: dict[str, Any], rule: str) -> None:
    verdict = judge(evidence(**changed), PARAMS)
    assert verdict.verdict == REFUSE and verdict_of(verdict, rule) == REFUSE
    assert len(verdict.reasons) == 1 and rule in verdict.reasons[0]


def test_no_calibration_is_told_apart_from_a_bad_one() -> None:
    assert all(check.rule != "calibration error" for check in judge(evidence(calibration_error=None), PARAMS).checks)


def segment(share_below: float, size: int) -> Evidence:
    """A challenger that wins overall, and loses by `share_below` in its first `size` users."""
    mine, base = users(0.5, 1), evidence()
    best = base.values["own_counts"]
    mine[:size] = np.clip(best[:size] - share_below, 0, 1)
    mask = np.arange(N) < size
    return replace(base, values=dict(base.values) | {"challenger": mine}, segments={"few": mask})


def test_the_worst_segment_has_a_floor() -> None:
    verdict = judge(segment(0.15, 120), PARAMS)
    assert verdict.verdict == REFUSE and verdict_of(verdict, "segment few") == REFUSE


def test_strangers_are_a_segment_of_their_own() -> None:
    """They are none of the gate's users, so that their number does not dilute what is told of those."""
    base = evidence()
    lost = {name: users(0.4, 3 + at, 300) for at, name in enumerate(PARAMS.yardsticks)}
    verdict = judge(replace(base, strangers=lost | {"challenger": users(0.2, 2, 300)}), PARAMS)
    assert verdict.verdict == REFUSE and verdict_of(verdict, "segment no history: first visits") == REFUSE
    assert judge(replace(base, strangers=lost | {"challenger": users(0.41, 2, 300)}), PARAMS).verdict == PASS
    few = {name: values[:40] for name, values in lost.items()} | {"challenger": users(0.2, 2, 40)}
    assert judge(replace(base, strangers=few), PARAMS).verdict == PASS


def test_a_segment_too_small_to_say_is_not_judged_and_says_so() -> None:
    verdict = judge(segment(0.15, 99), PARAMS)
    check = next(one for one in verdict.checks if one.rule == "segment few")
    assert check.verdict == PASS and check.observed == "99 users: too few to say, not judged"


def test_the_age_of_a_first_model_is_told_and_stops_nothing() -> None:
    """A shop starts from the history that it has; a nightly retrain on a stale export is what must not happen."""
    verdict = judge(evidence(data_age_days=663.0), PARAMS)
    check = next(one for one in verdict.checks if one.rule.startswith("age of the newest event"))
    assert verdict.verdict == PASS and check.observed == "663.0 days" and "told, not judged" in check.limit


def test_old_data_is_told_and_stops_nothing_where_the_champions_is_older_still() -> None:
    """A shop that replays an archive, one more day a night, would otherwise be refused for ever after its first run."""
    stale = evidence(data_age_days=300.0, champion=users(0.3, 2))
    assert judge(stale, PARAMS).verdict == REFUSE  # the same data again, or an older export than the champion's
    verdict = judge(replace(stale, newer_than_champion=True), PARAMS)
    check = next(one for one in verdict.checks if one.rule.startswith("age of the newest event"))
    assert verdict.verdict == PASS
    assert check.observed == "300.0 days" and check.limit.endswith("told, not judged: the champion's data is older")


def test_trees_that_cannot_be_told_apart_from_the_network_stop_nothing() -> None:
    """182 users, -0.013 [-0.042, +0.018]: seen on a small shop, whose first model could never have passed."""
    few = evidence()
    noisy = few.values["challenger"] + np.random.default_rng(3).normal(0.013, 0.4, N)
    check = next(
        one
        for one in judge(replace(few, values={**few.values, "lightgbm": noisy}), PARAMS).checks
        if one.rule.endswith("lightgbm")
    )
    assert check.low is not None and check.low < PARAMS.margin_lightgbm and check.verdict == PASS


def test_trees_are_a_rival_that_may_be_a_little_better() -> None:
    close, far = evidence(), evidence()
    mine = close.values["challenger"]
    assert judge(replace(close, values={**close.values, "lightgbm": mine + 0.005}), PARAMS).verdict == PASS
    assert judge(replace(far, values={**far.values, "lightgbm": mine + 0.05}), PARAMS).verdict == REFUSE


def test_the_verdict_as_json_holds_every_check_and_bounds() -> None:
    told = judge(evidence(champion=users(0.3, 2)), PARAMS).to_json()
    row = next(check for check in told["checks"] if check["rule"] == "NDCG@10 against champion")
    assert told["verdict"] == PASS and 0 < row["low"] < row["high"]
    assert summary({"a": np.array([0.0, 1.0])})["a"]["mean"] == 0.5


def proof(verdict: str, *faults: str) -> dict[str, Any]:
    """An off-policy judgement as the policy stage writes it."""
    return {"verdict": verdict, "reasons": [f"it was {verdict}"], "faults": [{"name": name} for name in faults]}


@pytest.mark.parametrize(
    ("served", "champion", "expected"),
    [
        (PASS, None, PASS),
        (CANNOT_TELL, None, CANNOT_TELL),
        (CANNOT_TELL, PASS, PASS),  # served with live learning on top, which only the champion is judged without
        (REFUSE, PASS, PASS),
        (PASS, CANNOT_TELL, PASS),
        (CANNOT_TELL, CANNOT_TELL, CANNOT_TELL),
        (CANNOT_TELL, REFUSE, REFUSE),
        (PASS, REFUSE, REFUSE),
    ],
)
def test_a_page_policy_is_judged_against_the_champion_where_there_is_one(
    served: str, champion: str | None, expected: str
) -> None:
    worse_lists = evidence(users(0.1, 3))  # clicks that follow from what was shown do not decide
    told = replace(worse_lists, proof=proof(served), against=None if champion is None else proof(champion))
    verdict = judge(told, PARAMS)
    assert verdict.verdict == expected
    rules = [check.rule for check in verdict.checks if "off-policy" in check.rule]
    assert len(rules) == (1 if champion is None else 2)


@pytest.mark.parametrize(
    ("served", "order", "expected"),
    [
        (CANNOT_TELL, PASS, PASS),  # the second chance of a first policy
        (CANNOT_TELL, CANNOT_TELL, CANNOT_TELL),
        (CANNOT_TELL, REFUSE, REFUSE),
        (PASS, REFUSE, PASS),  # the other order holds what was learned live, which the policy will have on top
        (REFUSE, PASS, REFUSE),  # nothing says that a live part would make up for it
    ],
)
def test_a_first_policy_may_be_surely_better_in_the_order_that_was_served(
    served: str, order: str, expected: str
) -> None:
    told = replace(evidence(users(0.1, 3)), proof=proof(served), against=proof(order), rival="served")
    verdict = judge(told, PARAMS)
    assert verdict.verdict == expected
    assert any("the one it was served in" in check.rule for check in verdict.checks)


def test_better_lists_do_not_replace_a_proven_page_policy() -> None:
    better = evidence(champion=users(0.3, 2))
    assert judge(better, PARAMS).verdict == PASS
    verdict = judge(replace(better, policy_lost="wrong propensities: at position 1"), PARAMS)
    assert verdict.verdict == CANNOT_TELL
    assert [reason for reason in verdict.reasons if "none was learned: wrong propensities" in reason]


def test_a_log_with_a_fault_proves_nothing_against_anybody() -> None:
    for verdict, fault in ((REFUSE, "wrong propensities"), (CANNOT_TELL, "clicks follow no model's scores")):
        told = replace(evidence(), proof=proof(verdict, fault), against=proof(PASS))
        assert judge(told, PARAMS).verdict == verdict
