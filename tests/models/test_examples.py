"""Training examples know nothing of the future, and labels lie where they should."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.columns import feature_names
from models.examples import (
    GAP_US,
    REVEALED,
    ExampleParams,
    Visit,
    _inside,
    cuts_before,
    first_visits,
    next_visits,
    states_from_log,
    training_lists,
)
from models.history import DAY_US, TYPE_CODE, TYPE_WEIGHT
from models.items import ItemRow, ItemTable
from models.log import ActionLog
from models.retrieval import RetrievalParams
from models.signals import Knowledge, candidates, read

COLD = ExampleParams(max_users_per_cut=40, in_session_share=0.0)


def made(rows: list[tuple[int, int, int, int, str]], n_items: int = 9) -> ActionLog:
    """(user, session, item, time, type) rows -> a log."""
    user, session, item, time_us = (np.array([row[at] for row in rows], dtype=np.int64) for at in range(4))
    kind = np.array([TYPE_CODE[row[4]] for row in rows], dtype=np.int64)
    ones = np.ones(len(rows))
    names = tuple(f"u{n}" for n in range(int(user.max()) + 1))
    return ActionLog(user, np.zeros(len(rows), dtype=bool), session, item, kind, time_us, ones, ones, names, n_items)


def scrambled(log: ActionLog, cut_us: int, seed: int) -> ActionLog:
    """The same log with other items and types after the cut."""
    later = log.time_us >= cut_us
    item = np.where(later, np.random.default_rng(seed).permutation(log.item), log.item)
    return replace(log, item=item, type_code=np.where(later, TYPE_CODE["purchase"], log.type_code))


def test_the_label_is_the_first_visit_after_the_gap() -> None:
    cut = 10 * DAY_US
    log = made(
        [
            (0, 0, 1, cut - DAY_US, "purchase"),
            (0, 1, 2, cut + GAP_US - 1, "purchase"),  # too close to the cut: it may belong to a visit before it
            (0, 2, 3, cut + GAP_US, "view"),
            (0, 2, 4, cut + GAP_US + 1, "view"),
            (0, 2, 3, cut + GAP_US + 2, "purchase"),
            (0, 3, 5, cut + DAY_US, "purchase"),  # a later visit
            (1, 4, 6, cut + GAP_US, "purchase"),  # no history
        ]
    )
    visits = next_visits(log, cut, cut + 2 * DAY_US)
    assert list(visits) == [0]
    assert visits[0].items.tolist() == [3, 4]
    assert visits[0].gains.tolist() == [TYPE_WEIGHT[TYPE_CODE["purchase"]], TYPE_WEIGHT[TYPE_CODE["view"]]]
    assert next_visits(log, cut, cut + GAP_US) == {}


def test_the_first_visit_of_a_stranger_is_an_example_of_its_own() -> None:
    cut = 10 * DAY_US
    log = made(
        [
            (0, 0, 1, cut - 5, "view"),
            (2, 4, 5, cut, "purchase"),
            (0, 1, 2, cut + 1, "view"),  # known, however soon after the cut
            (1, 2, 3, cut + 7, "view"),
            (1, 3, 4, cut + DAY_US, "view"),  # no longer a first visit
        ]
    )
    found = first_visits(log, cut, cut + 2 * DAY_US, 9)
    assert {user: visit.items.tolist() for user, visit in found.items()} == {1: [3], 2: [5]}
    assert list(first_visits(log, cut, cut + 2 * DAY_US, 1)) == [2]  # the soonest
    assert list(first_visits(replace(log, is_guest=log.user == 2), cut, cut + 2 * DAY_US, 9)) == [1, 2]
    assert first_visits(log, cut, cut, 9) == {}


def test_a_guest_is_no_example_but_teaches_what_goes_together() -> None:
    cut = 10 * DAY_US
    log = made([(0, 0, 1, cut - 1, "view"), (0, 1, 2, cut + GAP_US, "view")])
    assert next_visits(replace(log, is_guest=np.ones(2, dtype=bool)), cut, cut + DAY_US) == {}
    assert list(next_visits(log, cut, cut + DAY_US)) == [0]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0.3, 0.9), seed=st.integers(0, 99))
def test_histories_and_statistics_at_a_cut_do_not_change_with_what_comes_later(
    shop: Any, share: float, seed: int
) -> None:
    cut = shop.cut_us(share)
    other = scrambled(shop.log, cut, seed)
    assert not np.array_equal(other.item, shop.log.item)
    known, known_other = (Knowledge.fit(log, shop.table, cut) for log in (shop.log, other))
    for name, value in known.statistics.values.items():
        assert np.array_equal(value, known_other.statistics.values[name]), name
    for name, relation in known.counting.relations.items():
        assert np.array_equal(relation.weights, known_other.counting.relations[name].weights), name
    users = list(range(0, 200, 9))
    mine, others = states_from_log(shop.log)(cut, users), states_from_log(other)(cut, users)
    assert mine.keys() == others.keys()
    for user, state in mine.items():
        assert np.array_equal(state.item_P, others[user].item_P) and state.last_us < cut


def test_features_of_a_list_do_not_change_with_what_comes_after_its_cut(shop: Any) -> None:
    cut = shop.cut_us(0.6)
    lists = [
        training_lists(log, shop.table, [cut], shop.end_us, sequence=None, params=COLD)
        for log in (shop.log, scrambled(shop.log, cut, 1))
    ]
    assert np.array_equal(lists[0].x_NKF, lists[1].x_NKF)
    assert not np.array_equal(lists[0].gain_NK, lists[1].gain_NK)


def test_a_planted_future_feature_would_be_seen(shop: Any) -> None:
    """The comparison above has teeth: statistics of a later day differ."""
    cut = shop.cut_us(0.6)
    other = scrambled(shop.log, cut, 1)
    late, late_other = (Knowledge.fit(log, shop.table, shop.end_us) for log in (shop.log, other))
    changed = [
        name
        for name, value in late.statistics.values.items()
        if not np.array_equal(value, late_other.statistics.values[name])
    ]
    assert len(changed) > 10


def test_an_item_that_is_listed_later_is_no_candidate(shop: Any) -> None:
    cut = shop.cut_us(0.6)
    unborn = ItemRow("i999", "thing never seen", "brand1", "gift > party", 3.0, "EUR", None, True, cut + DAY_US)
    table = shop.table.merge([unborn])
    log, unborn_at = replace(shop.log, n_items=len(table)), len(shop.table)
    knowledge = Knowledge.fit(log, table, cut)
    assert knowledge.on_sale(cut).tolist() == [True] * len(shop.table) + [False]
    assert knowledge.on_sale(cut + 2 * DAY_US).all()
    state = states_from_log(log)(cut, [0])[0]
    reading = read(state, knowledge, cut)
    everything_I = np.ones(len(table), dtype=bool)
    assert unborn_at in candidates(state, reading, knowledge, everything_I, RetrievalParams())[0]
    lists = training_lists(log, table, [cut], shop.end_us, sequence=None, params=replace(COLD, places=200))
    ages = lists.x_NKF[:, :, feature_names(knowledge).index("age")]
    assert (ages[lists.real_NK] > 0).all()  # nothing on the lists was born at the cut


def test_revealed_items_are_the_running_session_and_no_candidates(shop: Any) -> None:
    cut = shop.cut_us(0.6)
    visits, states = next_visits(shop.log, cut, shop.end_us), states_from_log(shop.log)
    user, visit = next((user, visit) for user, visit in visits.items() if visit.items.size >= 4)
    state = states(cut, [user])[user]
    rng = np.random.default_rng(0)
    inside, rest = _inside(state, visit, shop.table, cut, rng, ExampleParams())
    revealed = set(inside.item_P[inside.session_P].tolist())
    assert revealed and revealed.isdisjoint(rest.items.tolist())
    assert sorted([*revealed, *rest.items.tolist()]) == sorted(visit.items.tolist())
    assert TYPE_CODE["purchase"] not in inside.type_P[inside.session_P]
    assert inside.decayed(cut, 1.0)[inside.session_P].min() >= 1.0
    assert REVEALED not in shop.table.item_ids


def test_no_list_offers_what_its_session_has_taken(shop: Any) -> None:
    inside = ExampleParams(max_users_per_cut=60, in_session_share=1.0)
    lists = training_lists(shop.log, shop.table, [shop.cut_us(0.6)], shop.end_us, sequence=None, params=inside)
    names = feature_names(Knowledge.fit(shop.log, shop.table, shop.cut_us(0.6)))
    taken = lists.x_NKF[:, :, names.index("acted_in_session")]
    running = lists.x_NKF[:, :, names.index("session_items")][lists.real_NK]
    assert (taken[lists.real_NK] == 0).all() and running.max() > 0
    assert (lists.gain_NK[~lists.real_NK] == 0).all() and (lists.x_NKF[~lists.real_NK] == 0).all()
    assert (lists.gain_NK > 0).any(axis=1).mean() > 0.8


def test_a_long_list_is_cut_without_losing_what_was_wanted(shop: Any) -> None:
    cut = shop.cut_us(0.6)
    long, short = (
        training_lists(shop.log, shop.table, [cut], shop.end_us, sequence=None, params=replace(COLD, places=places))
        for places in (200, 30)
    )
    assert short.x_NKF.shape[1] == 30 and long.real_NK.sum(axis=1).max() > 60
    assert np.array_equal((short.gain_NK > 0).sum(axis=1), (long.gain_NK > 0).sum(axis=1))


def test_the_same_call_gives_the_same_bytes(shop: Any) -> None:
    lists = [
        training_lists(
            shop.log,
            shop.table,
            [shop.cut_us(0.6)],
            shop.end_us,
            sequence=None,
            params=ExampleParams(max_users_per_cut=20),
        )
        for _ in range(2)
    ]
    assert lists[0].x_NKF.tobytes() == lists[1].x_NKF.tobytes()
    assert lists[0].gain_NK.tobytes() == lists[1].gain_NK.tobytes() and len(lists[0]) == 20


@given(st.integers(0, 10**6), st.integers(1, 400), st.integers(1, 60), st.integers(1, 12))
def test_cuts_lie_inside_the_log_and_leave_room_for_labels(start: int, days: int, slice_days: int, n: int) -> None:
    end, slice_us = start + days * DAY_US, slice_days * DAY_US
    cuts = cuts_before(end, start, slice_us, n)
    assert 1 <= len(cuts) <= n and all(cut < end for cut in cuts)
    assert cuts == sorted(cuts, reverse=True)
    if len(cuts) > 1:
        assert min(cuts) > start + (end - start) // 3


def test_the_catalogues_order_is_by_id_so_that_a_files_order_changes_nothing(shop: Any) -> None:
    shuffled = shop.items.take(np.random.default_rng(0).permutation(shop.items.num_rows))
    assert ItemTable.from_arrow(shuffled).item_ids == shop.table.item_ids


def test_users_whose_state_is_unknown_are_left_out(shop: Any) -> None:
    cut = shop.cut_us(0.6)
    lists = training_lists(
        shop.log, shop.table, [cut], shop.end_us, sequence=None, params=COLD, states=lambda _cut, _users: {}
    )
    assert len(lists) == 0


@pytest.mark.parametrize("kind", ["view", "purchase"])
def test_a_visit_keeps_the_first_type_and_the_strongest_gain(kind: str) -> None:
    cut = DAY_US
    log = made([(0, 0, 1, 0, "view"), (0, 1, 2, cut + GAP_US, kind), (0, 1, 2, cut + GAP_US + 1, "add_to_cart")])
    visit: Visit = next_visits(log, cut, 3 * DAY_US)[0]
    assert visit.types.tolist() == [TYPE_CODE[kind]]
    assert visit.gains.tolist() == [max(TYPE_WEIGHT[TYPE_CODE[kind]], TYPE_WEIGHT[TYPE_CODE["add_to_cart"]])]
