"""Windows by global time never overlap, and a planted future is caught."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import DataError, UsageError
from features.schema import TIMESTAMP
from features.split import SplitParams, check_as_of, check_no_future, make_windows

FIRST, LAST = datetime(2010, 12, 1, 8, 26, tzinfo=UTC), datetime(2011, 12, 9, 12, 50, tzinfo=UTC)
CUT = datetime(2011, 11, 10, tzinfo=UTC)


def rows(*times: datetime) -> pa.Table:
    return pa.table({"user_id": [f"u{i}" for i in range(len(times))], "event_time": pa.array(times, TIMESTAMP)})


def test_explicit_cuts_as_in_the_protocol_of_the_shipped_data() -> None:
    windows = make_windows(FIRST, LAST, SplitParams(date(2011, 10, 10), date(2011, 11, 10), gap_minutes=0))
    assert windows.train.end == windows.tune.start == datetime(2011, 10, 10, tzinfo=UTC)
    assert windows.tune.end == windows.gate.start == windows.refit.end == CUT
    assert windows.gate.end == LAST + timedelta(microseconds=1)


def test_by_days_the_gate_slice_is_the_last_days_of_the_data() -> None:
    windows = make_windows(FIRST, LAST, SplitParams(tune_days=10, gate_days=20))
    assert windows.gate.start == datetime(2011, 11, 20, tzinfo=UTC)
    assert windows.tune.start == datetime(2011, 11, 10, tzinfo=UTC)


@settings(deadline=None)
@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)),
    st.integers(100 * 24, 800 * 24),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2_000),
    st.lists(st.floats(0, 1), min_size=1),
)
def test_no_row_is_in_two_windows_and_a_gap_lies_between(
    first: datetime, hours: int, tune: int, gate: int, gap: int, places: list[float]
) -> None:
    first = first.replace(tzinfo=UTC)
    params = SplitParams(tune_days=tune, gate_days=gate, gap_minutes=gap)
    if timedelta(minutes=gap) >= timedelta(days=tune):
        return
    windows = make_windows(first, first + timedelta(hours=hours), params)
    times = pa.array([first + timedelta(hours=hours) * place for place in places], TIMESTAMP)
    held = [window.holds(times).to_pylist() for window in (windows.train, windows.tune, windows.gate)]
    assert all(sum(marks) <= 1 for marks in zip(*held, strict=True))
    assert windows.tune.start - windows.train.end == windows.gate.start - windows.tune.end == timedelta(minutes=gap)
    assert windows.gate.holds(pa.array([first + timedelta(hours=hours)], TIMESTAMP)).to_pylist() == [True]


def test_a_planted_future_row_is_caught_and_named() -> None:
    check_no_future(rows(FIRST, CUT - timedelta(microseconds=1)), CUT)
    with pytest.raises(DataError, match=r"training rows: row 1 knows the future: event_time 2011-11-10T00:00:00"):
        check_no_future(rows(FIRST, CUT), CUT)


def test_a_feature_that_saw_the_future_is_caught_though_its_row_lies_in_the_past() -> None:
    table = rows(FIRST, FIRST).append_column("seen_until", pa.array([None, LAST], TIMESTAMP))
    check_no_future(table, CUT)
    with pytest.raises(DataError, match=r"row 1 knows the future: seen_until 2011-12-09.*\(1 such rows\)"):
        check_no_future(table, CUT, ("event_time", "seen_until"))
    with pytest.raises(DataError, match="row 1 knows the future: seen_until 2011-12-09T12:50"):
        check_as_of(table, "event_time", "seen_until")
    check_as_of(table.slice(0, 1), "event_time", "seen_until")


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        (SplitParams(date(2011, 11, 10), date(2011, 10, 10)), UsageError, "tune_start 2011-11-10 is not before"),
        (SplitParams(tune_days=400), DataError, "the train window would be empty: data run from 2010-12-01"),
        (SplitParams(date(2012, 1, 1), date(2012, 2, 1)), DataError, "the gate window would be empty"),
    ],
)
def test_impossible_windows_are_refused(params: SplitParams, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make_windows(FIRST, LAST, params)


def test_naive_times_are_refused() -> None:
    with pytest.raises(UsageError, match="a time without a zone"):
        make_windows(datetime(2010, 1, 1), LAST)
