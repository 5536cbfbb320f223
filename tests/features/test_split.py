"""Windows by global time never overlap, and a planted future is caught."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.bulk import DAY_US, EPOCH, Bulk, bulk_of, ends
from features.errors import DataError, UsageError
from features.schema import TIMESTAMP
from features.split import SplitParams, check_as_of, check_no_future, for_young_pages, make_windows

REPOSITORY = Path(__file__).parents[2]
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


def test_a_last_day_that_has_only_begun_is_no_gate_slice_alone() -> None:
    at_night = datetime(2026, 3, 11, 0, 20, tzinfo=UTC)
    windows = make_windows(datetime(2026, 3, 1, tzinfo=UTC), at_night)
    assert windows.gate.start == datetime(2026, 3, 10, tzinfo=UTC)
    assert windows.tune.start == datetime(2026, 3, 9, tzinfo=UTC)
    in_the_evening = make_windows(datetime(2026, 3, 1, tzinfo=UTC), at_night + timedelta(hours=20))
    assert in_the_evening.gate.start == datetime(2026, 3, 11, tzinfo=UTC)


OPENED = datetime(2026, 1, 1, tzinfo=UTC)  # two months of events before the first page of the service
SERVED = datetime(2026, 3, 2, 8, tzinfo=UTC)


def gate_start(days_of_pages: float, pages_a_day: int, params: SplitParams | None = None) -> datetime:
    n = round(days_of_pages * pages_a_day)
    pages = [SERVED + timedelta(days=days_of_pages) * at / max(n, 1) for at in range(n)]
    last = SERVED + timedelta(days=days_of_pages)
    params = for_young_pages(OPENED, last, pages, params or SplitParams())
    return make_windows(OPENED, last, params).gate.start


@pytest.mark.parametrize(
    ("days", "a_day", "starts"),
    [
        (0.6, 1_300, datetime(2026, 2, 26, tzinfo=UTC)),  # too few pages to learn from: the ranker's usual slice
        (0.6, 5_000, SERVED + timedelta(days=0.4)),  # enough in two thirds of a day's pages
        (1.6, 2_000, datetime(2026, 3, 3, tzinfo=UTC)),
        (4.6, 360, SERVED + timedelta(days=4.6 * 2 / 3)),  # a whole day does not hold enough to judge
        (7.6, 2_000, datetime(2026, 3, 8, tzinfo=UTC)),
        (30.6, 2_000, datetime(2026, 3, 25, tzinfo=UTC)),  # the usual eight days leave more than that
    ],
)
def test_young_pages_are_not_all_in_the_gate_slice(days: float, a_day: int, starts: datetime) -> None:
    assert gate_start(days, a_day) == starts


def test_a_night_without_visitors_takes_nothing_from_what_pages_can_teach() -> None:
    """Two evenings of 850 pages each: two thirds of the pages, not of the hours."""
    evenings = (SERVED + timedelta(days=day, hours=10) for day in (0, 1))
    pages = [start + timedelta(hours=4) * at / 850 for start in evenings for at in range(850)]
    params = for_young_pages(OPENED, pages[-1], pages, SplitParams())
    cut = make_windows(OPENED, pages[-1], params).gate.start
    assert sum(page < cut for page in pages) == 1_133


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(200, 6_000))
def test_the_cut_never_goes_back_from_night_to_night(days: int, a_day: int) -> None:
    """A champion that has seen pages of the gate slice could not be judged."""
    assert gate_start(days + 0.6, a_day) <= gate_start(days + 1.6, a_day)


def test_a_slice_that_somebody_chose_is_left_alone() -> None:
    assert gate_start(1.6, 5_000, SplitParams(gate_days=4)) == datetime(2026, 2, 28, tzinfo=UTC)
    assert gate_start(1.6, 5_000, SplitParams(gate_start=date(2026, 2, 25))) == datetime(2026, 2, 25, tzinfo=UTC)


@pytest.mark.parametrize("minutes", [0, 40, 149])
def test_events_within_too_short_a_time_are_named_as_such(minutes: int) -> None:
    """Nobody chose a cut, so none is to be swapped or moved: there is nothing to cut."""
    said = r"all events happened within .* \(2010-12-01 08:26 to .*too short a time.*that takes over 2.5 h"
    with pytest.raises(DataError, match=said):
        make_windows(FIRST, FIRST + timedelta(minutes=minutes))
    make_windows(FIRST, FIRST + timedelta(minutes=151))


DAY_ZERO = date(2025, 1, 1)


def log_of(rows: dict[date, int]) -> np.ndarray:
    """Sorted times (UTC microseconds) of a log with so many events a day, spread over the day."""
    starts = [((day - EPOCH).days * DAY_US, n) for day, n in sorted(rows.items())]
    return np.concatenate([start + (np.arange(n) * 2 + 1) * DAY_US // (2 * n) for start, n in starts])


def shop(days: int, a_day: int, start: date = DAY_ZERO) -> dict[date, int]:
    return {start + timedelta(day): a_day for day in range(days)}


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(60, 240), min_size=10, max_size=200),
    st.sets(st.integers(5, 12_000), max_size=4),
    st.sets(st.integers(46, 12_000), max_size=2),
    st.integers(1, 3),
)
def test_a_handful_of_strays_does_not_move_the_slices(
    counts: list[int], early: set[int], late: set[int], each: int
) -> None:
    """However far away: whole stretches of years lie between, yet the bulk is where it was."""
    rows = {DAY_ZERO + timedelta(at): n for at, n in enumerate(counts)}
    few = int(0.005 * sum(counts))
    last = max(rows)
    strays = {DAY_ZERO - timedelta(back): each for back in sorted(early)[: few // each]}
    strays |= {last + timedelta(on): each for on in sorted(late)[: few // each]}
    assert ends(log_of(rows | strays)) == ends(log_of(rows))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(50, 400)), min_size=1, max_size=60))
def test_the_slices_of_a_log_without_strays_follow_its_first_and_last_event(steps: list[tuple[int, int]]) -> None:
    """Closed days, weeks and months move nothing."""
    rows, day = {}, DAY_ZERO
    for gap, n in steps:
        rows[day] = n
        day += timedelta(gap)
    if min(rows.values()) <= 0.005 * sum(rows.values()):
        return
    times = log_of(rows)
    assert ends(times) == (times[0], times[-1], times[-1])


def test_one_event_of_the_year_2000_leaves_a_shop_of_60_days_its_slices() -> None:
    whole = shop(60, 98)
    bulk = bulk_of(whole | {date(2000, 1, 1): 1})
    assert (bulk.first, bulk.last) == (DAY_ZERO, DAY_ZERO + timedelta(59))
    assert bulk.words() == "1 event of 2000 before 2024-12-31: learned from, but not deciding where the slices lie"
    late = bulk_of(whole | {date(2031, 1, 1): 2, date(2036, 1, 1): 1})
    assert late.last == DAY_ZERO + timedelta(59)
    assert late.words().startswith("3 events of 2031 to 2036 from 2025-03-03 on: not learned from until more follow")
    assert bulk_of(whole).words() == ""


def test_a_few_events_beyond_midnight_are_in_the_gate_slice_and_do_not_move_it() -> None:
    rows = shop(60, 98)
    beyond = date(2025, 3, 2)
    first, last, until = ends(log_of(rows | {beyond: 4}))
    assert (first, last) == ends(log_of(rows))[:2]
    assert until == log_of({beyond: 4})[-1]
    assert bulk_of(rows | {beyond: 4}).words() == ""
    assert bulk_of(rows | {beyond: 40}).last == beyond


def test_after_two_years_without_an_event_the_newer_part_decides() -> None:
    newer = shop(41, 98, date(2026, 3, 20))
    bulk = bulk_of(shop(19, 98, date(2024, 3, 1)) | newer)
    assert bulk == Bulk(date(2026, 3, 20), date(2026, 4, 29), {2024: 19 * 98}, {})
    # What has only begun again is too little to stand alone, and too much to be left out.
    begun = bulk_of(shop(200, 98) | shop(3, 98, date(2025, 9, 20)))
    assert (begun.first, begun.last) == (DAY_ZERO, date(2025, 9, 22))


def test_a_growing_shop_and_one_shut_in_summer_keep_their_days() -> None:
    growing = {DAY_ZERO + timedelta(day): round(5 * 1.01**day) for day in range(400)}
    assert (bulk_of(growing).first, bulk_of(growing).last) == (min(growing), max(growing))
    summer = {day: n for day, n in shop(365, 50).items() if day.month != 8}
    assert (bulk_of(summer).first, bulk_of(summer).last) == (min(summer), max(summer))


def test_a_peak_of_last_year_does_not_make_strays_of_the_days_since() -> None:
    rows = shop(10, 20_000) | shop(300, 650, DAY_ZERO + timedelta(10))
    assert bulk_of(rows).last == max(rows)


def test_the_slices_of_the_shipped_data_stay() -> None:
    """Published figures stand on them; its longest gap is Christmas."""
    sold = pq.read_table(REPOSITORY / "data" / "online_retail.parquet", columns=["InvoiceDate"])["InvoiceDate"]
    times = np.sort(sold.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy())
    assert ends(times) == (times[0], times[-1], times[-1])
    first, last, _ = (datetime.fromtimestamp(at / 1e6, UTC) for at in ends(times))
    windows = make_windows(first, last)
    assert windows.tune.start == datetime(2011, 10, 11, tzinfo=UTC)
    assert windows.gate.start == datetime(2011, 11, 10, tzinfo=UTC)
