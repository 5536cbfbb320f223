"""A shopper's own taste: from what was clicked and what was passed by, up to the night before, and theirs alone."""

from __future__ import annotations

import numpy as np

from models.history import DAY_US
from models.impressions.columns import Catalogue
from models.impressions.pages import Actions, Pages
from models.impressions.taste import taste

ITEMS, SLOTS = 6, 6


def shop(days: int = 8) -> tuple[Pages, Catalogue]:
    """Two shoppers see every item every day; shopper 0 clicks items of kind 0, shopper 1 of kind 1."""
    shopper = np.tile([0, 1], days)
    kind_I = np.arange(ITEMS) % 2
    item = np.tile(np.arange(ITEMS), (shopper.size, 1))
    clicked = kind_I[item] == shopper[:, None]
    zeros = np.zeros(shopper.size, dtype=np.int64)
    pages = Pages(
        tuple(map(str, range(shopper.size))), shopper, zeros, np.repeat(np.arange(days), 2) * DAY_US, zeros, zeros > 0,
        item, np.tile(np.arange(1, SLOTS + 1), (shopper.size, 1)), clicked, clicked & False, clicked & False,
        zeros, zeros, Actions(*[np.zeros(1, dtype=np.int64)] * 5), ITEMS,
    )  # fmt: skip
    none = np.zeros(ITEMS, dtype=np.int64)
    content = np.eye(2, dtype=np.float32)[kind_I]
    return pages, Catalogue(content, none, none, none, np.zeros(ITEMS), none)


def test_taste_grows_by_night_and_each_shopper_has_their_own() -> None:
    pages, catalogue = shop()
    told = taste(pages, catalogue, np.full(pages.item_RK.shape, 0.5))
    assert (told[:2] == 0).all()  # on the first day nothing is known, whatever is clicked on it
    liked, passed = told[:, 0], told[:, 1]  # items of kind 0 and 1
    assert (np.diff(liked[::2]) > 0).all() and (passed[2::2] < 0).all()  # what was passed by counts
    np.testing.assert_allclose(told[1::2, 0], told[::2, 1])
    assert abs(told).max() < 1.01  # shrunk: eight days are not certainty


def test_what_everybody_would_have_clicked_says_nothing_of_a_taste() -> None:
    pages, catalogue = shop()
    told = taste(pages, catalogue, pages.clicked_RK.astype(float))
    np.testing.assert_allclose(told, 0, atol=1e-9)
