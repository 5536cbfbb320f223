"""Off-policy evaluation: intervals that cover the truth, a gate that lets no equal policy in, faults that are named."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.ope import BROKEN, FAULTS, coverage, gate, spoilt
from features.errors import UsageError
from models.ope import Rounds, SlotLog, compare, estimate, judge, lower_bound, surely_better
from models.ope.estimators import ESTIMATORS
from models.ope.slates import cascade_dr, iips, rips, sips


def test_intervals_cover_the_truth_and_a_broken_assumption_shows() -> None:
    """A quick look; the 500 runs are the slow test below."""
    sound = coverage(40, pages=2_000)
    for name in ("replay", "IPS", "SNIPS", "DR", "SIPS", "RIPS", "IIPS", "cascade-DR"):
        assert sound[name] >= 0.8, name
    broken = coverage(20, "page")
    assert broken["IIPS"] < 0.5 and broken["SIPS"] >= 0.7


@pytest.mark.slow
def test_every_claimed_interval_covers_in_500_runs() -> None:
    for effect in BROKEN:
        told = coverage(500, effect)
        holds = ["SIPS"] if effect == "page" else ["SIPS", "RIPS", "cascade-DR"]
        holds += ["IIPS", "replay", "IPS", "SNIPS", "DR"] if not effect else []
        assert all(told[name] >= 0.93 for name in holds), told


@pytest.mark.slow
@pytest.mark.parametrize(("change", "least", "most"), [(0.0, 0.0, 0.05), (-0.1, 0.0, 0.01), (0.3, 0.85, 1.0)])
def test_the_gate_lets_better_policies_in_and_no_others(change: float, least: float, most: float) -> None:
    assert least <= gate(change, 300)["pass"] <= most


def test_an_equal_policy_hardly_ever_passes() -> None:
    assert gate(0.0, 12, impressions=8_000)["pass"] <= 1 / 12
    assert gate(0.3, 4)["pass"] == 1


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_refused_with_its_reason(kind: str) -> None:
    told = judge(*spoilt(kind))
    if kind == "none":
        assert told.verdict == "pass" and not told.faults
        return
    named = {"re-rank after sampling": "wrong propensities", "rules swap after sampling": "wrong propensities"}
    assert told.verdict == "refuse"
    assert named.get(kind, kind.replace("1e-6 ", "")) in {fault.name for fault in told.faults}


@pytest.mark.parametrize(
    ("change", "expected"), [(0.0, {"pass"}), (0.1, {"pass"}), (-0.04, {"pass", "cannot tell"}), (-0.15, {"refuse"})]
)
def test_against_the_champion_what_both_would_do_cancels_out(change: float, expected: set[str]) -> None:
    """Pages of one slot out of ten; the target moves a little of the champion's probability to or from the best."""
    rng, pages = np.random.default_rng(2), 4_000
    item_N = rng.integers(0, 10, pages)
    chance_I = np.linspace(0.02, 0.2, 10)
    champion_I = np.full(10, 0.1)
    target_I = champion_I.copy()
    moved = change * float(champion_I @ chance_I) / (chance_I[9] - chance_I[0])
    target_I[9] += moved
    target_I[0] -= moved
    names = tuple(map(str, range(pages)))
    log = SlotLog(
        np.arange(pages), np.ones(pages, np.int64), item_N, np.full(pages, 0.1), np.zeros(pages, np.bool_),
        (rng.random(pages) < chance_I[item_N]).astype(np.float64), np.arange(pages), names,
        tuple(map(str, range(10))), names, 0, 0,
    )  # fmt: skip
    told = compare(log, target_I[item_N], champion_I[item_N])
    assert told.verdict in expected, told.reasons
    assert told.difference.mean == pytest.approx(change * told.logging.mean, abs=0.02)
    alone = judge(log, target_I[item_N])
    assert told.difference.high - told.difference.low <= alone.target.high - alone.target.low


@given(st.lists(st.floats(-1.0, 5.0), min_size=1, max_size=60), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_a_lower_bound_lies_below_the_mean(values: list[float], seed: int) -> None:
    value_N = np.random.default_rng(seed).permutation(np.array(values))
    bound = lower_bound(value_N, -1.0)
    assert -1.0 <= bound <= value_N.mean() + 1e-9
    assert not surely_better(-np.abs(value_N).clip(max=1.0), -1.0)


def test_the_bound_fails_at_most_as_often_as_it_says() -> None:
    """Rare large wins, mean 0: where a normal interval would be fooled."""
    rng = np.random.default_rng(0)
    wins = rng.random((400, 500)) < 0.01
    assert np.mean([surely_better(np.where(win, 99.0, -1.0), -1.0) for win in wins]) <= 0.05


def test_estimators_agree_where_target_and_logging_are_the_same() -> None:
    rng = np.random.default_rng(1)
    reward_N, chance_N = rng.random(500), rng.uniform(0.1, 0.9, 500)
    rounds = Rounds(reward_N, chance_N, chance_N)
    for name in ("IPS", "SNIPS", "DR", "Switch-DR"):
        assert estimate(ESTIMATORS[name](rounds)).mean == pytest.approx(reward_N.mean())
    reward_RK, one_RK = reward_N.reshape(100, 5), np.ones((100, 5))
    for value_R in (sips(reward_RK, one_RK), rips(reward_RK, one_RK), iips(reward_RK, one_RK)):
        assert value_R.mean() == pytest.approx(reward_RK.sum(axis=1).mean())
    zero_RK = np.zeros_like(one_RK)
    assert np.allclose(cascade_dr(reward_RK, one_RK, zero_RK, zero_RK), rips(reward_RK, one_RK))


def test_a_probability_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"propensities must lie in \(0, 1\]"):
        Rounds(np.ones(2), np.array([0.5, 0.0]), np.ones(2))


def test_a_log_is_read_from_canonical_tables_without_deterministic_slots() -> None:
    at = pa.array([1, 1, 1, 2, 2], pa.timestamp("us", "UTC"))
    slates = pa.table(
        {
            "request_id": ["a", "a", "a", "b", "b"],
            "served_at": at,
            "user_id": ["u", "u", "u", None, None],
            "session_id": ["s", "s", "s", "t", "t"],
            "surface": ["home"] * 5,
            "position": pa.array([1, 2, 2, 1, 2], pa.int32()),
            "item_id": ["x", "y", "y", "x", "z"],
            "propensity": [0.5, 0.25, 0.25, 1.0, 0.1],
            "explored": [False, True, True, False, True],
            "sponsored": [False] * 5,
        }
    )
    events = pa.table(
        {
            "request_id": ["a", None],
            "item_id": ["y", "z"],
            "event_type": ["click", "click"],
            "price": pa.nulls(2, pa.float64()),
            "quantity": pa.nulls(2, pa.int32()),
        }
    )
    log = SlotLog.from_tables(slates, events)
    assert log.propensity_N.tolist() == [0.5, 0.25, 0.1] and log.reward_N.tolist() == [0.0, 1.0, 0.0]
    assert (log.left_out, log.repeated, log.pages) == (1, 1, 2)
