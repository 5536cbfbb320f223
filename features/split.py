"""Windows by global time: train, tune slice, gate slice, with a gap before each slice.

Choices. One cut in time for everybody, because a split by user or at random lets a model learn from what had not yet
happened; half-open windows `[start, end)`, so that no moment is in two. The gap keeps what straddles a cut (a session,
a late event) out of both sides. Windows are chosen from days, not row counts, so that they are easy to state; nothing
depends on today's date. A shop that has logged pages for a few days only would give all of them to the gate slice of a
long log: the slice shrinks to the last third of their days, so that a page policy has some to learn from. The first
and the last moment are those of the log's bulk (bulk.py), not of a stray event of another year.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from features.errors import DataError, UsageError
from features.schema import TIMESTAMP, Events


@dataclass(frozen=True)
class SplitParams:
    """Cuts as UTC dates, or, where they are null, the lengths of the two last slices in days.

    Without lengths a slice is `share` of the data, in whole days, at most `max_days`; data of less than three days is
    cut within the day. A last day of which less than half of a slice is there does not make one alone.
    `pages_share`: of the days since the first page with propensities, or of those pages, the most that the gate slice
    takes, where that leaves `pages_before` to learn from.
    """

    tune_start: date | None = None
    gate_start: date | None = None
    tune_days: float | None = None
    gate_days: float | None = None
    share: float = 0.08
    max_days: float = 30.0
    pages_share: float = 1 / 3
    pages_before: int = 1_000  # what policy.least_pages asks for
    gap_minutes: int = 30  # a session's length without an event


@dataclass(frozen=True)
class Window:
    """A stretch of UTC time, `start` included, `end` not."""

    start: datetime
    end: datetime

    def holds(self, times: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
        """Which of the times (timestamp[us, UTC]) lie in the window: booleans of the same length."""
        after = pc.greater_equal(times, pa.scalar(self.start, TIMESTAMP))
        return pc.and_(after, pc.less(times, pa.scalar(self.end, TIMESTAMP)))


@dataclass(frozen=True)
class Windows:
    """Train, then tune, then gate; `refit` is what the final model learns from: all before the gate's gap."""

    train: Window
    tune: Window
    gate: Window

    @property
    def refit(self) -> Window:
        """From the first row to the end of the tune slice."""
        return Window(self.train.start, self.tune.end)


def make_windows(first: datetime, last: datetime, params: SplitParams | None = None) -> Windows:
    """Windows over data from `first` to `last` (both included, aware).

    The gate slice ends with the data, the tune slice ends a gap before the gate slice starts, train a gap before the
    tune slice. DataError where a window would be empty, UsageError for cuts in the wrong order.
    """
    params = params or SplitParams()
    for moment in (first, last):
        if moment.tzinfo is None:
            raise UsageError(f"{moment.isoformat()}: a time without a zone; give UTC times")
    end = last + timedelta(microseconds=1)
    gap = timedelta(minutes=params.gap_minutes)
    by_day = last - first >= timedelta(days=3)
    day_after = _day_after(last) if by_day else end
    usual = _usual_days(day_after - first, by_day, params)
    gate_start = _midnight(params.gate_start) or day_after - timedelta(days=params.gate_days or usual)
    if by_day and not (params.gate_start or params.gate_days) and end - gate_start < timedelta(days=usual / 2):
        gate_start -= timedelta(days=1)
    tune_start = _midnight(params.tune_start) or gate_start - timedelta(days=params.tune_days or usual)
    chosen = any((params.tune_start, params.gate_start, params.tune_days, params.gate_days))
    if not by_day and not chosen and gate_start - tune_start <= gap:
        raise DataError(
            f"all events happened within {_spoken(last - first)} ({first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC),"
            f" too short a time to learn from what came before and judge on what came after, {params.gap_minutes} min "
            f"apart: that takes over {_spoken(5 * gap)}. If they happened at other times, correct event_time"
        )
    if tune_start >= gate_start:
        raise UsageError(f"tune_start {tune_start.date()} is not before gate_start {gate_start.date()}; swap them")
    windows = Windows(Window(first, tune_start - gap), Window(tune_start, gate_start - gap), Window(gate_start, end))
    for name, window in (("train", windows.train), ("tune", windows.tune), ("gate", windows.gate)):
        if window.start >= window.end:
            raise DataError(
                f"the {name} window would be empty: data run from {first.date()} to {last.date()}, tune slice from "
                f"{tune_start.date()}, gate slice from {gate_start.date()}; choose other cuts or shorter slices"
            )
    return windows


def for_young_pages(first: datetime, last: datetime, pages: Sequence[datetime], params: SplitParams) -> SplitParams:
    """The parameters with a gate slice that leaves young pages to learn from; as they are where the usual slice does.

    `pages`: when each page with propensities was served, sorted. `pages_before` lie before the slice and half as many
    in it, in whole days where these hold so many, else as a share of the pages.
    """
    usual, least = make_windows(first, last, params).gate.start, params.pages_before
    if params.gate_start or params.gate_days or not pages or last - first < timedelta(days=3):
        return params
    day_after, gap = _day_after(last), timedelta(minutes=params.gap_minutes)
    days = (day_after - _day_after(pages[0])).days + 1
    whole = max(1, math.floor(days * params.pages_share))
    within = pages[int(len(pages) * (1 - params.pages_share))]
    for start in (day_after - timedelta(days=whole), within):
        before = bisect_left(pages, start - gap)
        if start > usual and before >= least and len(pages) - bisect_left(pages, start) >= least / 2:
            return replace(params, gate_days=(day_after - start) / timedelta(days=1))
    return params


def _day_after(last: datetime) -> datetime:
    return datetime.combine(last.astimezone(UTC).date() + timedelta(days=1), time(), UTC)


def _spoken(span: timedelta) -> str:
    minutes = span / timedelta(minutes=1)
    return f"{minutes / 60:.3g} h" if minutes >= 120 else f"{minutes:.3g} min" if minutes >= 1 else "a minute"


def _usual_days(span: timedelta, by_day: bool, params: SplitParams) -> float:
    days = span.total_seconds() / 86_400
    if not by_day:
        return days / 5
    return float(math.ceil(min(max(days * params.share, 1.0), params.max_days)))


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC)


def check_no_future(
    rows: pa.Table, cut: datetime, time_columns: tuple[str, ...] = (Events.EVENT_TIME,), what: str = "training rows"
) -> None:
    """DataError that names the first row with a time at or after `cut` in one of `time_columns`.

    Give it every time that a value was computed from, not only the row's own: a feature carries the time of the latest
    event that it has seen.
    """
    for name in time_columns:
        times = rows[name]
        late = pc.indices_nonzero(pc.fill_null(pc.greater_equal(times, pa.scalar(cut, TIMESTAMP)), False))
        if len(late):
            number = late[0].as_py()
            raise DataError(
                f"{what}: row {number} knows the future: {name} {times[number].as_py().isoformat()} is not before the "
                f"cut {cut.isoformat()} ({len(late)} such rows); compute it from rows before the cut"
            )


def check_as_of(rows: pa.Table, as_of: str, seen_until: str, what: str = "features") -> None:
    """DataError that names the first row whose features saw an event (`seen_until`) at or after its own time (`as_of`).

    Null in `seen_until` means that no event was seen.
    """
    late = pc.indices_nonzero(pc.fill_null(pc.greater_equal(rows[seen_until], rows[as_of]), False))
    if len(late):
        number = late[0].as_py()
        seen, own = (rows[name][number].as_py().isoformat() for name in (seen_until, as_of))
        raise DataError(
            f"{what}: row {number} knows the future: {seen_until} {seen} is not before {as_of} {own} "
            f"({len(late)} such rows)"
        )
