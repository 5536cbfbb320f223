"""A shopper's own taste: from what was clicked and what was passed by, up to the night before, and theirs alone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from features.history import HistoryParams, history_row, user_history, with_tastes
from features.schema import Events
from models.appeal import Shown
from models.history import DAY_US, UserState
from models.impressions.columns import Catalogue
from models.impressions.pages import Actions, Pages
from models.impressions.taste import taste
from models.items import ItemRow, ItemTable
from models.taste import NO_TASTE

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


KINDS, EACH = 4, 6


def catalogue(backwards: bool = False) -> ItemTable:
    """24 items of four categories at one price; item n is of category n % 4."""
    rows = [ItemRow(f"i{n:02d}", f"thing {n}", None, f"shop > kind {n % KINDS}", 10.0) for n in range(KINDS * EACH)]
    return ItemTable.from_rows(rows[::-1] if backwards else rows)


def pages_for(rng: np.random.Generator, fond: dict[str, int], days: int, skew: float = 0.0) -> Shown:
    """Each shopper sees twelve items a day and clicks three times as often on their kind.

    `skew`: by how much kind 0 goes to the pages of those who are fond of it, and not to the others'.
    """
    items, rows = KINDS * EACH, []
    for day in range(days):
        for who, kind in enumerate(fond.values()):
            weight = np.where(np.arange(items) % KINDS == 0, (1.0 + skew) ** (1 if kind == 0 else -1), 1.0)
            page = rng.choice(items, 12, replace=False, p=weight / weight.sum())
            clicked = rng.random(12) < np.where(page % KINDS == kind, 0.36, 0.12)
            rows += [(day * DAY_US + who, page[at], at + 1, clicked[at], who) for at in range(12)]
    time_us, item, position, clicked, who = (np.array(column) for column in zip(*rows, strict=True))
    return Shown(time_us, item, position, clicked, who, tuple(fond))


def test_the_taste_of_pages_is_found_in_its_size_and_is_nobody_elses() -> None:
    fond = {f"u{n:03d}": n % KINDS for n in range(80)}
    items = catalogue()
    shown = pages_for(np.random.default_rng(0), fond, 40)
    liking = shown.liking(items, 40 * DAY_US)
    everything = np.arange(len(items))
    lead = []
    for user, kind in fond.items():
        told_I = liking.tastes.of(user).on(items, everything)
        of_kind = everything % KINDS == kind
        lead.append(told_I[of_kind].mean() - told_I[~of_kind].mean())
    assert min(lead) > 0 and 0.7 < np.mean(lead) < np.log(3) + 0.1  # shrunk, never beyond
    assert liking.tastes.of("nobody") is NO_TASTE and not NO_TASTE.on(items, everything).any()
    early = shown.liking(items, 0).tastes.of("u000")
    assert not early.on(items, everything).any()  # before the first page nothing is known


def test_pages_filled_for_their_shoppers_flatter_an_item_less_where_tastes_are_known() -> None:
    """Kind 0 is shown to its friends above all: what is clicked there is their taste and not its appeal."""
    fond = {f"u{n:03d}": n % KINDS for n in range(80)}
    items = catalogue()
    shown = pages_for(np.random.default_rng(1), fond, 40, skew=4.0)
    blind = Shown(shown.time_us, shown.item, shown.position, shown.clicked, np.full_like(shown.who, -1), ())
    kind_I = np.arange(len(items)) % KINDS

    def lead(one: Shown) -> float:
        appeal_I = one.liking(items, 40 * DAY_US).appeal_I
        return float(appeal_I[kind_I == 0].mean() - appeal_I[kind_I > 0].mean())

    assert lead(blind) > 0.3 and lead(shown) < 0.85 * lead(blind)  # part of it: two turns, and tastes are shrunk


def test_what_shoppers_have_in_common_tells_of_shelves_that_one_of_them_never_saw() -> None:
    """Half of the shop likes kinds 0 and 1, the other half 2 and 3; the newcomer's pages hold kinds 0 and 2 alone."""
    rng, items, rows = np.random.default_rng(4), catalogue(), []
    kind_I = np.arange(len(items)) % KINDS
    people = 80
    for day in range(20):
        for who in range(people + 1):
            camp = 0 if who == people else who % 2
            shelf = np.flatnonzero(kind_I % 2 == 0) if who == people else np.arange(len(items))
            page = rng.choice(shelf, 10, replace=False)
            clicked = rng.random(10) < np.where(kind_I[page] // 2 == camp, 0.36, 0.12)
            rows += [(day * DAY_US + who, page[at], at + 1, clicked[at], who) for at in range(10)]
    time_us, item, position, clicked, who = (np.array(column) for column in zip(*rows, strict=True))
    names = tuple(f"u{n:03d}" for n in range(people + 1))
    tastes = Shown(time_us, item, position, clicked, who, names).liking(items, 20 * DAY_US).tastes
    told_I = tastes.of(names[-1]).on(items, np.arange(len(items)))
    seen, unseen = (told_I[kind_I == a].mean() - told_I[kind_I == a + 2].mean() for a in (0, 1))
    assert seen > 0.5 and unseen > 0.6 * seen


def test_a_word_of_the_title_is_a_taste_and_the_word_of_every_title_is_none() -> None:
    rng, rows = np.random.default_rng(5), []
    colour = ["red", "blue"]
    items = ItemTable.from_rows([ItemRow(f"i{n:02d}", f"Thing, {colour[n % 2]}!", None, None, 10.0) for n in range(24)])
    for day in range(30):
        for who in range(40):
            page = rng.choice(24, 12, replace=False)
            clicked = rng.random(12) < np.where(page % 2 == who % 2, 0.3, 0.1)
            rows += [(day * DAY_US + who, page[at], at + 1, clicked[at], who) for at in range(12)]
    time_us, item, position, clicked, who = (np.array(column) for column in zip(*rows, strict=True))
    names = tuple(f"u{n:02d}" for n in range(40))
    weights = Shown(time_us, item, position, clicked, who, names).liking(items, 30 * DAY_US).tastes.of("u00").weights
    assert set(weights) <= {"word red", "word blue", "price", "price²"}  # not "word thing"
    assert weights["word red"] - weights["word blue"] > 0.6


def test_a_taste_outlives_its_catalogue_and_travels_in_the_newest_row_only() -> None:
    fond = {"u0": 0, "u1": 1}
    items, other = catalogue(), catalogue(backwards=True)
    shown = pages_for(np.random.default_rng(2), fond, 30)
    tastes = shown.liking(items, 30 * DAY_US).tastes
    moments = pd.to_datetime([1, DAY_US + 1, 2], unit="us", utc=True)
    events = pd.DataFrame(
        {
            Events.EVENT_ID: ["a", "b", "c"], Events.USER_ID: ["u0", "u0", "u1"], Events.SESSION_ID: ["s", "t", "v"],
            Events.ITEM_ID: ["i00", "i04", "i01"], Events.EVENT_TYPE: ["click"] * 3, Events.EVENT_TIME: moments,
            Events.QUANTITY: [1, 1, 1], Events.PRICE: [None] * 3,
        }
    )  # fmt: skip
    told = {user: (at, tastes.of(user).weights) for user, at in shown.last_seen(30 * DAY_US).items()}
    rows = with_tastes(user_history(events, HistoryParams()), told).to_dict("records")
    mine = [history_row(row) for row in rows if row[Events.USER_ID] == "u0"]
    assert not mine[0].taste_names.size and mine[1].taste_names.size
    assert mine[0].taste_time == 0 and mine[1].taste_time == 29 * DAY_US
    everything = np.arange(len(items))
    told_I = UserState.build(mine[1], [], items.index).taste.on(items, everything)
    assert (told_I == tastes.of("u0").on(items, everything)).all() and told_I[0] > told_I[1]
    np.testing.assert_allclose(UserState.build(mine[1], [], other.index).taste.on(other, everything), told_I[::-1])
