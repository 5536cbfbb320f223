"""A user's history: the fast state against a slow oracle, and what a row holds."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from features.history import History, HistoryParams, history_row, same_row, user_history, write_history

START = datetime(2026, 1, 5, tzinfo=UTC)
H = History


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    names = ["event_id", "event_time", "event_type", "user_id", "session_id", "item_id", "price", "quantity"]
    events = pd.DataFrame(rows, columns=names)
    events["event_time"] = pd.to_datetime(events["event_time"], utc=True)
    return events


def oracle(events: pd.DataFrame, max_pairs: int) -> list[dict[str, Any]]:
    """For each user and day, everything anew from the events up to that day's end."""
    out = []
    events = events[events.user_id.notna()].sort_values(["event_time", "event_id"])
    for (user, day), _ in events.groupby(["user_id", events.event_time.dt.floor("D")]):
        past = events[(events.user_id == user) & (events.event_time < day + pd.Timedelta(days=1))].reset_index(
            drop=True
        )
        us = past.event_time.dt.as_unit("us").astype("int64")
        pairs = []
        for (item, kind), part in past[past.item_id.notna()].groupby(["item_id", "event_type"]):
            pairs.append((part.index[-1], item, kind, part.session_id.nunique(), part.quantity.fillna(0).sum(),
                          us[part.index[0]], us[part.index[-1]]))  # fmt: skip
        columns = list(zip(*sorted(pairs)[-max_pairs:], strict=True))[1:] or [()] * 6
        out.append({
            H.USER_ID: user, H.LAST_EVENT_ID: past.event_id.iloc[-1], H.LAST_TIME: us.iloc[-1],
            **dict(zip(H.SCHEMA.names[4:10], columns, strict=True)), H.N_EVENTS: len(past),
            H.N_SESSIONS: past.session_id.nunique(), H.FIRST_TIME: us.iloc[0], H.MEAN_PRICE: past.price.mean(),
        })  # fmt: skip
    return sorted(out, key=lambda row: (row[H.LAST_TIME], row[H.USER_ID]))


@st.composite
def event_lists(draw: st.DrawFn) -> pd.DataFrame:
    rows = []
    for number in range(draw(st.integers(0, 25))):
        hours = draw(st.integers(0, 80))
        kind = draw(st.sampled_from(["view", "purchase", "search"]))
        rows.append({
            "event_id": f"e{draw(st.integers(0, 9))}-{number}", "event_time": START + timedelta(hours=hours),
            "event_type": kind, "user_id": draw(st.sampled_from(["u1", "u2", None])),
            "session_id": f"s{draw(st.integers(0, 3))}",
            "item_id": None if kind == "search" else draw(st.sampled_from(["a", "b", "c"])),
            "price": float(draw(st.integers(1, 9))) if kind == "purchase" else None,
            "quantity": draw(st.integers(1, 5)) if kind == "purchase" else None,
        })  # fmt: skip
    return frame(rows)


@settings(max_examples=60, deadline=None)
@given(event_lists(), st.sampled_from([2, 500]), st.randoms(use_true_random=False))
def test_history_equals_the_oracle_in_any_order_of_events(events: pd.DataFrame, max_pairs: int, random: Any) -> None:
    order = list(range(len(events)))
    random.shuffle(order)
    rows = user_history(events.iloc[order], HistoryParams(max_pairs))
    expected = oracle(events, max_pairs)
    assert len(rows) == len(expected)
    for row, want in zip(rows.to_dict("records"), expected, strict=True):
        for name, value in want.items():
            if name == H.MEAN_PRICE:
                assert np.isclose(row[name], value, equal_nan=True)
            else:
                assert list(row[name]) == list(value) if isinstance(value, tuple) else row[name] == value, name


def test_two_clicks_in_a_session_are_one_interest_and_a_search_has_no_pair() -> None:
    base = {"event_type": "view", "user_id": "u", "item_id": "a", "price": None, "quantity": None}
    rows = [
        {**base, "event_id": "1", "event_time": START, "session_id": "s1"},
        {**base, "event_id": "2", "event_time": START + timedelta(minutes=5), "session_id": "s1"},
        {**base, "event_id": "3", "event_time": START + timedelta(hours=5), "session_id": "s2"},
        {**base, "event_id": "4", "event_time": START + timedelta(hours=6), "session_id": "s2", "event_type": "search",
         "item_id": None},
    ]  # fmt: skip
    row = history_row(user_history(frame(rows)).to_dict("records")[0])
    assert row.counts.tolist() == [2.0] and row.n_events == 4 and row.n_sessions == 2
    assert row.version() == (int(rows[3]["event_time"].timestamp() * 1e6), "4") and np.isnan(row.mean_price)


def test_a_row_survives_parquet(tmp_path: Any) -> None:
    rows = [{"event_id": "1", "event_time": START, "event_type": "purchase", "user_id": "u", "session_id": None,
             "item_id": "a", "price": 2.5, "quantity": 3}]  # fmt: skip
    history = user_history(frame(rows))
    stored = pd.read_parquet(write_history(history, tmp_path / "history.parquet"))
    assert same_row(history_row(stored.to_dict("records")[0]), history_row(history.to_dict("records")[0]))
    assert not same_row(history_row(stored.to_dict("records")[0]), None)


def test_no_events_give_no_rows() -> None:
    assert len(user_history(frame([]))) == 0
