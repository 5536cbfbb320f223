"""What a user did, as one row for each day on which they did something: the only feature that serving asks for by user.

Choices. A user is their history, there are no user-id embeddings, so a row holds the state *after* a day: arrays over
the most recent distinct (item, event type) pairs, the oldest first, and a few totals. State is carried from day to day
for each user, not joined with itself: work grows with events, not with their square. Events are ordered by time and,
within a microsecond, by event id, so that any order of the input gives the same rows. Counts are of sessions, because
ten clicks in one visit are one interest. No framework here: models and serving use `HistoryRow` without Feast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.schema import TIMESTAMP, Events

DAY_US = 86_400_000_000
NO_NAMES, NO_WEIGHTS = np.empty(0, dtype=object), np.empty(0)


@dataclass(frozen=True)
class HistoryParams:
    """`max_pairs`: how many of the most recent (item, event type) pairs a row holds."""

    max_pairs: int = 500


class History:
    """Columns of the history table."""

    USER_ID = Events.USER_ID
    EVENT_TIMESTAMP = "event_timestamp"  # time of the last event that the row includes
    LAST_EVENT_ID = "last_event_id"  # the last event; breaks ties of event_timestamp
    LAST_TIME = "last_time"  # event_timestamp in microseconds, for stores that cut times to seconds
    ITEM_IDS = "item_ids"
    EVENT_TYPES = "event_types"
    COUNTS = "counts"
    QUANTITIES = "quantities"
    FIRST_TIMES = "first_times"
    LAST_TIMES = "last_times"
    N_EVENTS = "n_events"
    N_SESSIONS = "n_sessions"
    FIRST_TIME = "first_time"
    MEAN_PRICE = "mean_price"
    TASTE_NAMES = "taste_names"  # weights learned from the pages that the user saw; in their newest row only
    TASTE_WEIGHTS = "taste_weights"
    TASTE_TIME = "taste_time"  # of the newest page that they were learned from, in microseconds; 0 for none
    SCHEMA = pa.schema(
        [
            (USER_ID, pa.string()),
            (EVENT_TIMESTAMP, TIMESTAMP),
            (LAST_EVENT_ID, pa.string()),
            (LAST_TIME, pa.int64()),
            (ITEM_IDS, pa.list_(pa.string())),
            (EVENT_TYPES, pa.list_(pa.string())),
            (COUNTS, pa.list_(pa.float64())),
            (QUANTITIES, pa.list_(pa.float64())),
            (FIRST_TIMES, pa.list_(pa.int64())),
            (LAST_TIMES, pa.list_(pa.int64())),
            (N_EVENTS, pa.int64()),
            (N_SESSIONS, pa.int64()),
            (FIRST_TIME, pa.int64()),
            (MEAN_PRICE, pa.float64()),
            (TASTE_NAMES, pa.list_(pa.string())),
            (TASTE_WEIGHTS, pa.list_(pa.float64())),
            (TASTE_TIME, pa.int64()),
        ]
    )
    FEATURES = tuple(SCHEMA.names[2:])


@dataclass(frozen=True, eq=False)
class HistoryRow:
    """One user's state after their last event. Arrays have one entry a pair (P,), the least recent first.

    `item_ids`, `event_types` (P,) str; `counts` (P,) sessions in which the pair occurred; `quantities` (P,) pieces;
    `first_times`, `last_times` (P,) int64 and `first_time`, `last_time` in microseconds since 1970 (UTC);
    `mean_price` of the priced events, NaN where there is none; `taste_names` (T,) str, `taste_weights` (T,) logarithms,
    `taste_time` in microseconds.
    """

    user_id: str
    last_event_id: str
    last_time: int
    item_ids: npt.NDArray[np.object_]
    event_types: npt.NDArray[np.object_]
    counts: npt.NDArray[np.float64]
    quantities: npt.NDArray[np.float64]
    first_times: npt.NDArray[np.int64]
    last_times: npt.NDArray[np.int64]
    n_events: int
    n_sessions: int
    first_time: int
    mean_price: float
    taste_names: npt.NDArray[np.object_]
    taste_weights: npt.NDArray[np.float64]
    taste_time: int

    def version(self) -> tuple[int, str]:
        """What decides which of two rows of a user is the newer."""
        return self.last_time, self.last_event_id


def history_row(values: Mapping[str, Any]) -> HistoryRow:
    """A HistoryRow of one record of the history table or of a feature store's answer."""
    h = History
    price = values[h.MEAN_PRICE]
    return HistoryRow(
        str(values[h.USER_ID]),
        str(values[h.LAST_EVENT_ID]),
        int(values[h.LAST_TIME]),
        _array(values[h.ITEM_IDS], object),
        _array(values[h.EVENT_TYPES], object),
        _array(values[h.COUNTS], np.float64),
        _array(values[h.QUANTITIES], np.float64),
        _array(values[h.FIRST_TIMES], np.int64),
        _array(values[h.LAST_TIMES], np.int64),
        int(values[h.N_EVENTS]),
        int(values[h.N_SESSIONS]),
        int(values[h.FIRST_TIME]),
        float("nan") if price is None else float(price),
        _array(values.get(h.TASTE_NAMES), object),
        _array(values.get(h.TASTE_WEIGHTS), np.float64),
        int(values.get(h.TASTE_TIME) or 0),
    )


def _array(values: Any, dtype: Any) -> npt.NDArray[Any]:
    return np.asarray([] if values is None else list(values), dtype=dtype)


def same_row(a: HistoryRow | None, b: HistoryRow | None) -> bool:
    """Whether two rows hold the same values, NaN equal to NaN."""
    if a is None or b is None:
        return a is b
    for name in HistoryRow.__dataclass_fields__:
        x, y = getattr(a, name), getattr(b, name)
        if not (np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y or (x != x and y != y)):
            return False
    return True


@dataclass(frozen=True)
class _Prepared:
    """Sorted events (E,) of known users, as codes and flags; `starts` (U + 1,) bounds each user's slice."""

    users: npt.NDArray[np.object_]
    starts: npt.NDArray[np.int64]
    ids: npt.NDArray[np.object_]
    times: npt.NDArray[np.int64]
    items: npt.NDArray[np.object_]
    types: npt.NDArray[np.object_]
    pairs: npt.NDArray[np.int64]  # -1 where the event has no item
    new_in_session: npt.NDArray[np.bool_]  # first event of the pair in its session
    new_session: npt.NDArray[np.bool_]
    quantities: npt.NDArray[np.float64]
    prices: npt.NDArray[np.float64]


def _prepare(events: pd.DataFrame) -> _Prepared:
    e = Events
    rows = events.loc[events[e.USER_ID].notna()].copy()
    rows["_us"] = pd.to_datetime(rows[e.EVENT_TIME], utc=True).dt.as_unit("us").astype("int64")
    rows = rows.sort_values([e.USER_ID, "_us", e.EVENT_ID], kind="stable", ignore_index=True)
    user = rows[e.USER_ID].to_numpy(dtype=object)
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]]) if len(user) else np.zeros(0, dtype=np.int64)
    # A missing session is one of its own for each day: cleaning fills sessions, this is for tables that skipped it.
    day = (rows["_us"] // DAY_US).astype(str)
    session = pd.factorize(rows[e.SESSION_ID].where(rows[e.SESSION_ID].notna(), "day " + day))[0]
    has_item = rows[e.ITEM_ID].notna().to_numpy()
    kinds, kind_names = pd.factorize(rows[e.EVENT_TYPE])
    pairs = np.where(has_item, pd.factorize(rows[e.ITEM_ID])[0] * max(len(kind_names), 1) + kinds, -1)
    keys = pd.DataFrame({"user": pd.factorize(user)[0], "session": session, "pair": pairs})
    return _Prepared(
        user[starts],
        np.r_[starts, len(user)].astype(np.int64),
        rows[e.EVENT_ID].to_numpy(dtype=object),
        rows["_us"].to_numpy(dtype=np.int64),
        rows[e.ITEM_ID].to_numpy(dtype=object),
        rows[e.EVENT_TYPE].to_numpy(dtype=object),
        pairs.astype(np.int64),
        ~keys.duplicated().to_numpy(),
        ~keys[["user", "session"]].duplicated().to_numpy(),
        pd.to_numeric(rows[e.QUANTITY]).to_numpy(dtype=np.float64, na_value=0.0),
        pd.to_numeric(rows[e.PRICE]).to_numpy(dtype=np.float64, na_value=np.nan),
    )


def _user_rows(p: _Prepared, user: int, max_pairs: int, cuts: npt.NDArray[np.int64]) -> Iterator[tuple[Any, ...]]:
    """The rows of one user in the order of days; a day with a cut in it ends at the cut as well."""
    start, stop = int(p.starts[user]), int(p.starts[user + 1])
    times, priced = p.times[start:stop], ~np.isnan(p.prices[start:stop])
    price_sum, price_n = np.cumsum(np.where(priced, p.prices[start:stop], 0.0)), np.cumsum(priced)
    sessions = np.cumsum(p.new_session[start:stop])
    known, local = np.unique(p.pairs[start:stop], return_inverse=True)
    local = np.where(p.pairs[start:stop] < 0, -1, local)
    counts, quantities = np.zeros(len(known)), np.zeros(len(known))
    first, last = np.full(len(known), -1), np.full(len(known), -1)  # positions of the pair's first and last event
    days, between = times // DAY_US, np.searchsorted(cuts, times, side="right")
    ends = np.flatnonzero(np.r_[(days[1:] != days[:-1]) | (between[1:] != between[:-1]), True]) + 1
    begin = 0
    for end in ends:
        at = begin + np.flatnonzero(local[begin:end] >= 0)
        codes = local[at]
        np.add.at(counts, codes, p.new_in_session[start + at])
        np.add.at(quantities, codes, p.quantities[start + at])
        np.maximum.at(last, codes, at)
        unseen = first[codes] < 0
        first[codes[unseen][::-1]] = at[unseen][::-1]  # written backwards, so that the earliest stays
        seen = np.flatnonzero(last >= 0)
        recent = seen[np.argsort(last[seen])][-max_pairs:]
        where = start + last[recent]
        n = int(price_n[end - 1])
        yield (
            p.users[user], int(times[end - 1]), p.ids[start + end - 1], int(times[end - 1]),
            p.items[where], p.types[where], counts[recent], quantities[recent],
            times[first[recent]], times[last[recent]],
            int(end), int(sessions[end - 1]), int(times[0]), float(price_sum[end - 1] / n) if n else float("nan"),
            NO_NAMES, NO_WEIGHTS, 0,
        )  # fmt: skip
        begin = int(end)


def user_history(events: pd.DataFrame, params: HistoryParams | None = None, cuts: Sequence[int] = ()) -> pd.DataFrame:
    """Cleaned events -> one row for each user and UTC day with events: the user's state after that day.

    `cuts` (microseconds) add a state just before each of them, for a cut that lies within a day.

    `events` has the columns of `schema.Events`, in any order; rows without a user are dropped. Returns the columns of
    `History.SCHEMA`, arrays as numpy arrays, sorted by (event_timestamp, user_id). `search` events without an item
    count in `n_events` and `n_sessions` only.
    """
    params = params or HistoryParams()
    prepared, at = _prepare(events), np.sort(np.asarray(cuts, dtype=np.int64))
    rows = [row for user in range(len(prepared.users)) for row in _user_rows(prepared, user, params.max_pairs, at)]
    frame = pd.DataFrame(rows, columns=History.SCHEMA.names)
    times = pd.to_datetime(frame[History.EVENT_TIMESTAMP].astype("int64"), unit="us", utc=True).dt.as_unit("us")
    frame[History.EVENT_TIMESTAMP] = times
    return frame.sort_values([History.EVENT_TIMESTAMP, History.USER_ID], kind="stable", ignore_index=True)


def with_tastes(history: pd.DataFrame, tastes: Mapping[str, tuple[int, Mapping[str, float]]]) -> pd.DataFrame:
    """The history with each user's taste in their newest row, as serving will read it.

    `tastes` are, by user, the time of the newest page that they were learned from and the weights by name. Older rows
    stay without: a taste that was learned from all of the log is the future to them.
    """
    newest = ~history[History.USER_ID].duplicated(keep="last")
    history = history.copy()
    columns = (History.TASTE_NAMES, History.TASTE_WEIGHTS, History.TASTE_TIME)
    names, weights, times = (history[name].to_numpy(copy=True) for name in columns)
    for at in np.flatnonzero(newest):
        told = tastes.get(history[History.USER_ID].iat[at])
        if told is not None:
            times[at], by_name = told
            names[at] = np.array(list(by_name), dtype=object)
            weights[at] = np.array(list(by_name.values()), dtype=np.float64)
    return history.assign(**dict(zip(columns, (names, weights, times), strict=True)))


def completed(history: pd.DataFrame) -> pd.DataFrame:
    """A history with empty tastes where an older release, which knew none, wrote it."""
    columns = {History.TASTE_NAMES: NO_NAMES, History.TASTE_WEIGHTS: NO_WEIGHTS, History.TASTE_TIME: 0}
    missing = {name: pd.Series([empty] * len(history), history.index) for name, empty in columns.items()}
    return history.assign(**{name: rows for name, rows in missing.items() if name not in history})


def write_history(frame: pd.DataFrame, path: Path) -> Path:
    """Write the history table as Parquet, by rename, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    table = pa.Table.from_pandas(frame[History.SCHEMA.names], schema=History.SCHEMA, preserve_index=False)
    pq.write_table(table, temporary, compression="zstd", row_group_size=8_192)
    temporary.replace(path)
    return path
