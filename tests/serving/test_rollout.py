"""A rollout meets the share of people that was asked for, always the same ones, and goes home for a reason alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ArtifactError
from serving.rollout import ROLLOUT, Arm, RolloutParams, is_chosen, p99, radius, read_rollout, why_back

PARAMS = RolloutParams()
FINE = Arm(pages=1000, rewarded=200, seconds=[0.01] * 200)


def test_the_share_is_the_asked_one_and_the_same_people_stay_in_as_it_grows() -> None:
    people = [f"u{n}" for n in range(20_000)]
    small, large = ({one for one in people if is_chosen(b"secret", one, share)} for share in (5, 20))
    assert len(small) / len(people) == pytest.approx(0.05, abs=0.006)
    assert small < large
    assert small != {one for one in people if is_chosen(b"other", one, 5)}


@given(st.text(max_size=20))
def test_nobody_at_0_and_everybody_at_100(person: str) -> None:
    assert not is_chosen(b"s", person, 0) and is_chosen(b"s", person, 100)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"errors": 30}, "errors: 2.9%"),
        ({"fallbacks": 80}, "fallback pages: 8.0%"),
        ({"empty": 20}, "empty pages: 2.0%"),
        ({"seconds": [0.01] * 190 + [0.5] * 10}, "p99 500 ms against 10 ms"),
        ({"score_spread": 0.0}, "scores are all alike"),
        ({"score_spread": math.nan}, "no numbers"),
        ({"pages": 4000, "rewarded": 300}, "pages with a click: 7.5%"),
    ],
)
def test_each_fault_sends_it_back_with_its_reason(changed: dict[str, object], says: str) -> None:
    old = Arm(pages=4000, rewarded=800, seconds=[0.01] * 200)
    assert says in (why_back(replace(FINE, **changed), old, PARAMS, 60) or "")


def test_a_like_model_stays_and_a_few_pages_say_nothing() -> None:
    assert why_back(FINE, FINE, PARAMS, 60) is None
    assert why_back(Arm(pages=10, fallbacks=10), FINE, PARAMS, 60) is None


def test_without_traffic_it_is_held_and_then_goes_back() -> None:
    assert why_back(Arm(), FINE, PARAMS, 600) is None
    assert "no page of it for 901 s" in (why_back(Arm(), FINE, PARAMS, 901) or "")


def test_an_equal_model_is_sent_back_by_luck_in_at_most_5_of_100_however_often_one_looks() -> None:
    rng = np.random.default_rng(0)
    back = 0
    for _ in range(200):
        mine, theirs = (np.cumsum(rng.random(3000) < 0.2) for _ in range(2))
        looks = range(100, 3000, 50)
        arms = [(Arm(pages=n, rewarded=int(mine[n])), Arm(pages=n, rewarded=int(theirs[n]))) for n in looks]
        back += any(why_back(new, old, PARAMS, 60) is not None for new, old in arms)
    assert back <= 10


@given(st.integers(1, 10**6))
def test_more_pages_say_more(n: int) -> None:
    assert 0 < radius(n + 1000, 0.95) < radius(n, 0.95)


def test_p99_is_a_value_that_was_seen() -> None:
    assert p99([float(n) for n in range(1, 101)]) == 99.0 and p99([3.0]) == 3.0


def test_the_file_is_read_or_refused_by_name(tmp_path: Path) -> None:
    assert read_rollout(tmp_path) is None
    path = tmp_path / ROLLOUT
    path.parent.mkdir()
    told = {"mode": "canary", "share": 5, "run": "r", "version": "v", "model_dir": "m", "since_us": 1}
    path.write_text(json.dumps(told))
    assert read_rollout(tmp_path).share == 5  # type: ignore[union-attr]
    path.write_text(json.dumps(told | {"mode": "ended"}))
    assert read_rollout(tmp_path) is None
    path.write_text(json.dumps({"mode": "canary"}))
    with pytest.raises(ArtifactError, match="share, run, version"):
        read_rollout(tmp_path)
