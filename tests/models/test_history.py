"""A user's history is the same whether it comes from the feature store and live events or straight from the log."""

from __future__ import annotations

import itertools
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.history import HistoryRow, history_row, user_history
from features.schema import Events, arrow_schema
from models.examples import states_from_log
from models.history import DAY_US, MAX_PAIRS, TYPE_CODE, Action, UserState
from models.log import ActionLog

START_US = 1_700_000_000_000_000
INDEX = {f"i{n}": n for n in range(6)}
WISHES = ("view", "click", "add_to_cart", "purchase")
Rows = list[dict[str, Any]]


@st.composite
def visits(draw: st.DrawFn) -> list[Rows]:
    """One to six visits of one user, each a list of events, at least an hour apart."""
    clock, made = START_US, []
    for number in range(draw(st.integers(1, 6))):
        clock += draw(st.integers(3_600, 20 * 86_400)) * 1_000_000
        rows = []
        for step in range(draw(st.integers(1, 6))):
            clock += draw(st.integers(1, 300)) * 1_000_000
            rows.append(event(number, step, clock, draw(st.sampled_from(sorted(INDEX))), draw(st.sampled_from(WISHES))))
        made.append(rows)
    return made


def event(visit: int, step: int, time_us: int, item: str, kind: str, quantity: int = 2) -> dict[str, Any]:
    return {
        Events.EVENT_ID: f"e{visit:02d}-{step:02d}",
        Events.EVENT_TIME: time_us,
        Events.EVENT_TYPE: kind,
        Events.USER_ID: "u1",
        Events.SESSION_ID: f"s{visit}",
        Events.ITEM_ID: item,
        Events.QUANTITY: quantity,
        Events.PRICE: 1.5,
    }


def table(rows: Rows) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=arrow_schema(Events.COLUMNS))


def stored(rows: Rows) -> HistoryRow | None:
    """The newest row of the feature store after these events."""
    if not rows:
        return None
    frame: pd.DataFrame = user_history(table(rows).to_pandas())
    return history_row(frame.iloc[-1].to_dict())


def action(row: dict[str, Any]) -> Action:
    return Action(
        row[Events.ITEM_ID], row[Events.EVENT_TYPE], row[Events.EVENT_TIME], row[Events.SESSION_ID],
        row[Events.QUANTITY], row[Events.PRICE],
    )  # fmt: skip


def assert_same(a: UserState, b: UserState) -> None:
    for field in fields(UserState):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert np.array_equal(x, y), field.name
        assert np.asarray(x).dtype.kind == np.asarray(y).dtype.kind, field.name


@settings(max_examples=60, deadline=None)
@given(visits(), st.integers(0, 6))
def test_store_and_live_events_give_what_the_log_gives(made: list[Rows], split: int) -> None:
    before, after = (list(itertools.chain(*part)) for part in (made[:split], made[split:]))
    log = ActionLog.from_arrow(table(before + after), INDEX, len(INDEX))
    whole = states_from_log(log)(int(log.time_us[-1]) + 1, [0])[0]
    assert_same(UserState.build(stored(before), [action(row) for row in after], INDEX, session_id="another"), whole)


@settings(max_examples=40, deadline=None)
@given(visits())
def test_the_log_before_a_cut_gives_the_stored_row_of_that_day(made: list[Rows]) -> None:
    rows = list(itertools.chain(*made))
    log = ActionLog.from_arrow(table(rows), INDEX, len(INDEX))
    for cut in (rows[len(rows) // 2][Events.EVENT_TIME], rows[-1][Events.EVENT_TIME]):
        earlier = [row for row in rows if row[Events.EVENT_TIME] < cut]
        found = states_from_log(log)(cut, [0])
        assert bool(found) == bool(earlier)
        if earlier:
            assert_same(UserState.build(stored(earlier), [], INDEX), found[0])


@settings(max_examples=60)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=2), st.floats(1, 200))
def test_decayed_counts_are_exact_for_one_and_two_repeats(days_ago: list[int], half_life: float) -> None:
    as_of = START_US + 400 * DAY_US
    events = [Action("i1", "view", as_of - day * DAY_US, f"s{day}") for day in sorted(set(days_ago), reverse=True)]
    state = UserState.build(None, events, INDEX, session_id="another")
    brute = sum(0.5 ** (day / half_life) for day in set(days_ago))
    assert state.decayed(as_of, half_life) == pytest.approx([brute])


def test_decayed_counts_of_evenly_spaced_repeats_are_exact() -> None:
    as_of = START_US + 100 * DAY_US
    state = UserState.build(
        None, [Action("i1", "view", as_of - d * DAY_US, f"s{d}") for d in (40, 30, 20, 10)], INDEX, "x"
    )
    assert state.decayed(as_of, 15.0) == pytest.approx([sum(0.5 ** (d / 15) for d in (40, 30, 20, 10))])


@given(st.integers(0, 2000), st.floats(1, 200))
def test_what_the_running_session_touched_counts_as_now(days_ago: int, half_life: float) -> None:
    as_of = START_US + 3000 * DAY_US
    live = UserState.build(None, [Action("i1", "view", as_of - days_ago * DAY_US, "now")], INDEX, "now")
    assert live.session_P.tolist() == [True]
    assert live.decayed(as_of, half_life) == pytest.approx([1.0])


def test_the_order_of_arrival_decides_not_the_time_on_the_event() -> None:
    events = [Action("i1", "view", START_US + 500, "s1"), Action("i2", "view", START_US + 100, "s1")]
    assert UserState.build(None, events, INDEX).item_P.tolist() == [1, 2]
    assert UserState.build(None, events[::-1], INDEX).item_P.tolist() == [2, 1]


def test_live_events_come_after_everything_stored_however_old_they_claim_to_be() -> None:
    row = stored([event(0, 0, START_US, "i3", "view")])
    state = UserState.build(row, [Action("i1", "view", START_US - 9 * DAY_US, "s1")], INDEX)
    assert state.item_P.tolist() == [3, 1] and state.last_us == START_US
    assert state.first_us == START_US - 9 * DAY_US


def test_without_a_named_session_that_of_the_newest_event_runs() -> None:
    events = [Action("i1", "view", START_US, "s1"), Action("i2", "view", START_US + 1, "s2")]
    assert UserState.build(None, events, INDEX).session_P.tolist() == [False, True]
    assert UserState.build(None, events, INDEX, "s1").session_P.tolist() == [True, False]
    assert UserState.build(None, events, INDEX).n_sessions == 2


def test_unknown_items_and_types_are_left_out() -> None:
    events = [Action("never heard of", "view", START_US, "s1"), Action("i1", "dance", START_US, "s1")]
    state = UserState.build(None, events, INDEX)
    assert state.is_stranger and state.n_sessions == 0 and state.last_us == 0
    row = stored([event(0, 0, START_US, "gone", "view"), event(0, 1, START_US + 1, "i2", "view")])
    assert UserState.build(row, [], INDEX).item_P.tolist() == [2]


def test_a_repeat_within_a_session_is_one_interest() -> None:
    clicks = [Action("i1", "view", START_US + n, "s1") for n in range(5)]
    assert UserState.build(None, clicks, INDEX).count_P.tolist() == [1.0]
    nameless = [Action("i1", "view", START_US + n * 1_000_000) for n in range(5)]
    assert UserState.build(None, nameless, INDEX).count_P.tolist() == [1.0]
    tomorrow = [*nameless, Action("i1", "view", START_US + DAY_US)]
    assert UserState.build(None, tomorrow, INDEX).count_P.tolist() == [2.0]


def test_a_heavy_user_keeps_the_most_recent_pairs() -> None:
    index = {f"i{n}": n for n in range(MAX_PAIRS + 100)}
    events = [Action(item, "view", START_US + n * DAY_US, f"s{n}") for item, n in index.items()]
    state = UserState.build(None, events, index)
    assert state.item_P.tolist() == list(range(100, MAX_PAIRS + 100))


def test_another_catalogue_renumbers_and_a_forgotten_item_is_gone() -> None:
    state = UserState.build(None, [Action(f"i{n}", "purchase", START_US + n, f"s{n}") for n in range(4)], INDEX)
    moved = state.renumbered({0: 9, 2: 7})
    assert moved.item_P.tolist() == [9, 7] and moved.last_us_P.tolist() == [START_US, START_US + 2]
    assert state.without(2).item_P.tolist() == [0, 1, 3]
    assert (state.type_P == TYPE_CODE["purchase"]).all()


def test_no_events_change_nothing() -> None:
    state = UserState.build(stored([event(0, 0, START_US, "i3", "view")]), [], INDEX)
    assert state.extended([], INDEX) is state
