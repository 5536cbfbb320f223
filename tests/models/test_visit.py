"""What a click brings later in its visit: a known answer, and nothing where the log shows nothing."""

from __future__ import annotations

import numpy as np
import pytest

from models.policy.impressions import Page
from models.policy.visit import rest_of_visits, worth_of_staying


def page(visit: int, at: int, clicks: int) -> Page:
    clicked_K = np.arange(4) < clicks
    nothing_K = np.zeros(4, np.bool_)
    return Page(
        f"r{visit}-{at}", None, f"s{visit}", visit * 100 + at, np.arange(4), np.arange(1, 5), np.full(4, 0.2),
        clicked_K, nothing_K, np.zeros(4),
    )  # fmt: skip


def visits(stay: tuple[float, float, float], n: int = 4_000, seed: int = 0) -> list[Page]:
    """First pages with no, one or two clicks; another page comes with the chance `stay[clicks]`, and has one click."""
    rng, pages = np.random.default_rng(seed), []
    for visit in range(n):
        clicks = int(rng.integers(0, 3))
        pages.append(page(visit, 0, clicks))
        if rng.random() < stay[clicks]:
            pages.append(page(visit, 1, 1))
    return pages


def clicks_of(one: Page) -> float:
    return float(one.clicked_K.sum())


def test_the_rest_of_a_visit_is_what_came_after_a_page() -> None:
    pages = [page(1, 0, 2), page(1, 1, 1), page(2, 0, 0), page(1, 2, 3)]
    place_R, click_R, stay_R, rest_R = rest_of_visits(pages, clicks_of)
    assert place_R.tolist() == [0, 1, 0, 2] and click_R.tolist() == [2, 1, 0, 3]
    assert stay_R.tolist() == [1, 1, 0, 0] and rest_R.tolist() == [4, 3, 0, 0]


def test_a_click_is_worth_the_visitor_that_it_keeps() -> None:
    """A third of the first pages each: one click keeps .3, two keep .5, over all clicks, second pages' too."""
    pages = visits((0.2, 0.5, 0.7))
    second = (0.2 + 0.5 + 0.7) / 3
    expected = (0.3 + 0.5) / 3 / (1.0 + second)  # kept visitors over clicks; a kept one brings one click
    assert worth_of_staying(pages, clicks_of) == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize("stay", [(0.4, 0.4, 0.4), (0.6, 0.3, 0.1), (0.0, 0.0, 0.0)])
def test_where_clicks_keep_nobody_they_are_worth_no_more(stay: tuple[float, float, float]) -> None:
    assert worth_of_staying(visits(stay), clicks_of) <= 0.01
    assert worth_of_staying([], clicks_of) == 0.0
