"""What a shop learns while it runs: counts that nobody can move alone, and weights that clicked pages explain."""

from __future__ import annotations

import numpy as np
import pytest

from models.choice import Choices
from models.history import TYPE_CODE
from models.live import ALL, LearningParams, LiveCounts, Seen, attention
from models.live_signals import NAMES

DAY_US = 86_400_000_000
START_US = 1_764_000_000_000_000


def seen(
    item: str,
    at_us: int = START_US,
    user: str | None = "u",
    session: str = "s",
    kind: str = "click",
    trained: bool = False,
) -> Seen:
    return Seen(item, TYPE_CODE[kind], at_us, user, session, trained)


def count(counts: LiveCounts, item: str, half_life: float = 1.0) -> float:
    return float(counts.sums(ALL, half_life)[counts.codes[item]])


def test_one_person_counts_an_item_once_a_day_by_their_strongest_act() -> None:
    counts = LiveCounts(LearningParams())
    counts.see([seen("a") for _ in range(500)])
    once = count(counts, "a")
    counts.see([seen("a", kind="purchase")])
    assert once == pytest.approx(1 / 3) and count(counts, "a") == pytest.approx(1.0)
    counts.see([seen("a", user=f"u{n}") for n in range(10)])
    assert count(counts, "a") == pytest.approx(1 + 10 / 3)


def test_a_person_stops_counting_after_a_days_worth() -> None:
    counts = LiveCounts(LearningParams(per_person=5))
    counts.see([seen(f"i{n}") for n in range(100)])
    assert (counts.sums(ALL, 1.0) > 0).sum() == 5


def test_what_was_hot_yesterday_fades_and_a_wrong_date_does_no_harm() -> None:
    counts = LiveCounts(LearningParams())
    counts.see([seen("old", user=f"a{n}") for n in range(100)])
    counts.see([seen("far", at_us=START_US + 5000 * DAY_US, user="liar")])
    counts.see([seen("hot", at_us=START_US + 3 * DAY_US, user=f"b{n}") for n in range(100)])
    assert count(counts, "hot") > 7 * count(counts, "old") and count(counts, "far") <= 1
    assert counts.days == pytest.approx(3.0, abs=0.01)


def test_times_of_any_year_in_any_order_keep_numbers_finite() -> None:
    counts = LiveCounts(LearningParams())
    for year in (0, 90, -20, 40, 41, 300):
        at = START_US + year * 365 * DAY_US
        counts.see([seen(f"i{n % 7}", at_us=at, user=f"{year}-{n}", session=f"{year}-{n % 5}") for n in range(200)])
        assert np.isfinite(counts.sums(ALL, 1.0)).all() and np.isfinite(counts.neighbours([0], [1.0])[1]).all()
    assert count(counts, "i0") > 1


def test_neighbours_are_what_sessions_hold_together() -> None:
    counts = LiveCounts(LearningParams())
    for n in range(20):
        pair = ("a", "b") if n % 2 else ("c", "d")
        counts.see([seen(item, user=f"u{n}", session=f"s{n}") for item in pair])
    found, weight = counts.neighbours([counts.codes["a"]], [1.0])
    assert found.tolist() == [counts.codes["b"]] and 0.8 < weight[0] <= 1


def test_neighbours_are_those_of_the_latest_event_whenever_they_are_asked_for() -> None:
    rng, counts = np.random.default_rng(0), LiveCounts(LearningParams())
    asked, weights = [0, 3, 1], [1.0, 0.9, 0.81]
    for n in range(150):
        if n == 100:  # every weight is brought down to the present
            counts.see([seen("i0", at_us=START_US + 300 * DAY_US, user=f"late{m}", session="late") for m in range(99)])
        at = START_US + (0 if n < 100 else 300) * DAY_US
        counts.see([seen(f"i{int(i)}", at, f"u{n}", f"s{n}") for i in rng.integers(0, 70, 4)])
        if len(counts.codes) < 4:
            continue
        prior, plain = 2.0 ** (counts.days / counts.params.half_life_days), dict[int, float]()
        for code, weight in zip(asked, weights, strict=True):
            for other, together in counts.rows[code].items():
                norm = (counts._visits[code] * counts._visits[other]) ** 0.5 + prior
                plain[other] = plain.get(other, 0.0) + weight * together / norm
        found = dict(zip(*(told.tolist() for told in counts.neighbours(asked, weights)), strict=True))
        assert found == pytest.approx(plain)
    assert plain


def test_a_click_is_worth_what_its_place_did_not_give() -> None:
    counts = LiveCounts(LearningParams())
    items, modules = [f"i{n}" for n in range(10)], ["for_you"] * 5 + ["new"] * 5
    for n in range(40):
        assert counts.click(items, modules, 8, f"u{n}")
    assert counts.click(items, modules, 8, "u0")  # an item earns once a day, and was not passed by the second time
    clicks, expected = counts.earned()
    at = counts.codes["i8"]
    assert clicks[at] == pytest.approx(40) and expected[at] == pytest.approx(40 * attention(10)[8])
    assert expected.sum() == pytest.approx(clicks.sum())
    assert counts.modules()["new"] > 1 > counts.modules()["for_you"]


def test_a_person_who_clicks_all_day_stops_teaching_pages() -> None:
    counts = LiveCounts(LearningParams(per_person=5))
    told = [counts.click(["a", "b"], ["for_you"] * 2, 0, "robot") for _ in range(8)]
    assert told == [True] * 5 + [False] * 3 and counts.earned()[0][counts.codes["a"]] == 1


def test_what_a_model_counted_already_only_tells_the_time() -> None:
    """After a retrain the log is counted again: last week's clicks are last week's, so today's are new."""
    counts = LiveCounts(LearningParams())
    for day in range(4):
        counts.see([seen("a", at_us=START_US + day * DAY_US, user=f"{n}", trained=True) for n in range(100)])
        assert counts.click(["a", "b"], ["for_you"] * 2, 0, "u0", learned=day < 3)
    assert count(counts, "a") == 0
    assert counts.days == pytest.approx(3.0, abs=0.01)
    assert counts.earned()[0][counts.codes["a"]] == pytest.approx(1.0)


def test_a_model_of_value_is_not_blamed_for_prices_that_are_clicked_less() -> None:
    """Its score holds what a click is worth; clicks follow the wish; the price set aside takes up the rest."""
    rng = np.random.default_rng(0)
    prior = np.array([1.0 if name == "model" else 0.0 for name in NAMES])
    choices, at = Choices(prior.tolist()), (NAMES.index("model"), NAMES.index("price"))
    for _ in range(800):
        wish_S, price_S = rng.standard_normal(24), 2.0 * rng.normal(2.6, 0.6, 24)
        x_SF = np.zeros((24, len(NAMES)), np.float32)
        x_SF[:, at[0]], x_SF[:, at[1]] = wish_S + 0.4 * price_S, price_S
        page, score_S = choices.add(x_SF, 0.0), wish_S - 0.7 * np.log(np.arange(1, 25))
        page.clicked_S[rng.choice(24, p=np.exp(score_S) / np.exp(score_S).sum())] = 1.0
    choices.fit(0.0)
    assert choices.weights_F[at[0]] == pytest.approx(1.0, abs=0.15)
    assert choices.weights_F[at[1]] == pytest.approx(-0.4, abs=0.1)


def test_weights_come_from_clicked_pages_and_stay_at_the_prior_without_any() -> None:
    rng, truth = np.random.default_rng(0), np.array([2.0, -1.0, 0.0])
    choices = Choices([0.5, 0.5, 0.5])
    choices.fit(0.0)
    assert choices.weights_F.tolist() == [0.5, 0.5, 0.5]
    for _ in range(800):
        x_SF = rng.standard_normal((12, 3)).astype(np.float32)
        score_S = x_SF @ truth - 0.7 * np.log(np.arange(1, 13))
        page = choices.add(x_SF, 0.0)
        page.clicked_S[rng.choice(12, p=np.exp(score_S) / np.exp(score_S).sum())] = 1.0
    choices.fit(0.0)
    assert np.abs(choices.weights_F - truth).max() < 0.25
