"""Where the bulk of a log lies in time: the days that decide where the slices of a split lie.

Choices. Events may be of any age, so the first and the last one say nothing of where a shop's days are: one row of the
year 2000 would make the span a quarter of a century, and slices of 30 days of a shop that has 60. Whole days are
judged, not quantiles of rows: a quantile moves the ends of every log, and of a growing shop the more. Outermost days
are strays only while they hold at most `STRAY_SHARE` of the events at their side, and only where they stand apart.
Early, more than a long weekend apart will do: whatever is decided here, those rows are learned from. Late, rows left
out wait until more follow, and the first day after a holiday must not wait: there it takes a day of few events (under
`THIN_DAY` of the newest weeks' median), or more than a season. A shop that was shut for longer than `SHUT` starts anew
after it where what followed is enough (`ENOUGH`), as a slice within such a gap has nobody in it; closed days and
holidays are shorter. A growing shop keeps its small first days, for no gap parts them from what followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from statistics import median

import numpy as np
import numpy.typing as npt

EPOCH, DAY_US = date(1970, 1, 1), 86_400_000_000
STRAY_SHARE = 0.005  # of all events, at either side
THIN_DAY = 0.05  # of the events of the median day among the newest, so that a peak of last year makes no day thin
RECENT = 28  # days
APART = timedelta(days=3)
SHUT = timedelta(days=45)  # longer than from one month's first day to the next one's: monthly logs have no gap
ENOUGH = 0.1  # of all events


@dataclass(frozen=True)
class Bulk:
    """The first and the last day that decide where slices lie, and the events outside by year.

    The days next to the two hold what a session leaves beyond midnight, or a day that has only begun: no strays, yet
    without a say too. The last slice runs on into such a day.
    """

    first: date
    last: date
    before: Mapping[int, int]  # year -> events, learned from
    after: Mapping[int, int]  # year -> events, not learned from before the bulk reaches them

    @property
    def begin(self) -> date:
        """What lies before this day is a stray."""
        return _moved(self.first, -1)

    @property
    def end(self) -> date:
        """What lies on this day or later is a stray; the last slice ends before it."""
        return _moved(self.last, 2)

    def words(self) -> str:
        """One sentence on the strays; empty where there are none."""
        decides, told = "not deciding where the slices lie", []
        if self.before:
            told.append(f"{_count(self.before)} before {self.begin}: learned from, but {decides}")
        if self.after:
            told.append(f"{_count(self.after)} from {self.end} on: not learned from until more follow, and {decides}")
        return "; ".join(told)


def bulk_of(rows: Mapping[date, int]) -> Bulk:
    """The bulk of a log, of which `rows` tells how many events (at least one) each UTC day has."""
    days = sorted(rows)
    counts = [rows[day] for day in days]
    most = STRAY_SHARE * sum(counts)
    end = len(days) - _strays(days[::-1], counts[::-1], most, SHUT, THIN_DAY * median(counts[-RECENT:]))
    start = _strays(days[:end], counts[:end], most, APART)
    held = 0
    for at in range(end - 1, start, -1):
        held += counts[at]
        if days[at] - days[at - 1] > SHUT and held >= ENOUGH * sum(counts):
            start = at
            break
    first, last = days[start], days[end - 1]
    early = {day: n for day, n in rows.items() if day < _moved(first, -1)}
    late = {day: n for day, n in rows.items() if day > _moved(last, 1)}
    return Bulk(first, last, _by_year(early), _by_year(late))


def ends(time_us: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    """Of sorted times (UTC microseconds): first and last event of the bulk, and the last event of its last slice."""
    days, counts = np.unique(time_us // DAY_US, return_counts=True)
    bulk = bulk_of({EPOCH + timedelta(int(day)): int(n) for day, n in zip(days, counts, strict=True)})
    midnights = [(day - EPOCH).days * DAY_US for day in (bulk.first, _moved(bulk.last, 1), bulk.end)]
    first, last, until = np.searchsorted(time_us, midnights, "left")
    return int(time_us[first]), int(time_us[last - 1]), int(time_us[until - 1])


def _strays(days: Sequence[date], counts: Sequence[int], most: float, apart: timedelta, thin: float = 0) -> int:
    """How many of the days, outermost first, hold strays: further apart than that, or with fewer events than `thin`."""
    found, outside = 0, 0
    for at, (day, inner) in enumerate(pairwise(days)):
        outside += counts[at]
        if outside > most:
            break
        if abs(inner - day) > apart or (found == at and counts[at] < thin):
            found = at + 1
    return found


def _by_year(rows: Mapping[date, int]) -> dict[int, int]:
    years: dict[int, int] = {}
    for day in sorted(rows):
        years[day.year] = years.get(day.year, 0) + rows[day]
    return years


def _count(years: Mapping[int, int]) -> str:
    n, first, last = sum(years.values()), min(years), max(years)
    return f"{n:,} event{'s' * (n > 1)} of {first if first == last else f'{first} to {last}'}"


def _moved(day: date, days: int) -> date:
    """Some days on, or back, as far as the calendar goes."""
    return date.fromordinal(min(max(day.toordinal() + days, 1), date.max.toordinal()))
