"""Measures of `events` as a whole: its profile, and how it differs from the profile of the last accepted run.

Choices. Data accumulates: of a directory that holds old and new days, only days that the reference does not know are
compared with it (the newest weeks where there is none), else a bad day drowns in a good year. Drift is the population
stability index over smoothed shares, less the value that chance alone gives at these sample sizes, so that small days
do not cry wolf; beside it stands an in-set check, because one rare new value hardly moves an index. Without a reference
the newest week is compared with the days before it. All is one pass of grouped counts, done by DuckDB.
"""
# Queries are put together from the names of `schema.py`, never from the data.
# ruff: noqa: S608

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from features.rules import DUPLICATES, PRICED
from features.schema import Events, Items
from features.validation import ReferenceProfile, ValidationParams

POSITIVE = f"{PRICED} AND {Events.PRICE} > 0 AND isfinite({Events.PRICE})"
COUNTED = {
    Events.EVENT_TYPE: Events.EVENT_TYPE,
    Events.PLATFORM: Events.PLATFORM,
    Events.SURFACE: Events.SURFACE,
    Events.CURRENCY: Events.CURRENCY,
    "price_bucket": f"CASE WHEN {POSITIVE} THEN floor(2 * log2({Events.PRICE}))::INT END",
    "hour": f"hour({Events.EVENT_TIME})",
}
NULLS = (Events.USER_ID, Events.SESSION_ID, Events.PLATFORM, Events.SURFACE, Events.PRICE)
SELF_REFERENCE_DAYS = 7
MIN_PRICED, MIN_PRICED_DAYS = 50, 5  # no statement on prices from fewer rows of a day, or from fewer days
AROUND = 7  # days
FREQUENT = 0.01  # a value with at least this share is expected to be there


@dataclass(frozen=True)
class DayCounts:
    """Grouped counts of `events`: day to rows, to value counts by column, to nulls, to (n, sum of log price)."""

    rows: Mapping[str, int]
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]  # column, day, value
    nulls: Mapping[str, Mapping[str, int]]  # day, column
    log_price: Mapping[str, tuple[int, float]]
    first: datetime | None
    last: datetime | None


def count_days(con: Any, present: tuple[str, ...]) -> DayCounts:
    """Grouped counts of the view `events`; `con` is a DuckDB connection."""
    e = Events
    day = f"strftime({e.EVENT_TIME}, '%Y-%m-%d')"
    here = [column for column in NULLS if column in present]
    nulls = "".join(f", count(*) FILTER (WHERE {column} IS NULL)" for column in here)
    priced = {e.PRICE, e.EVENT_TYPE} <= set(present)
    positive = f"FILTER (WHERE {POSITIVE})"
    price = f", count(*) {positive}, sum(ln({e.PRICE})) {positive}" if priced else ", 0, 0.0"
    rows = con.execute(
        f"SELECT date_trunc('day', {e.EVENT_TIME}) d, count(*), min({e.EVENT_TIME}), max({e.EVENT_TIME}){price}{nulls}"
        f" FROM events WHERE {e.EVENT_TIME} IS NOT NULL AND isfinite({e.EVENT_TIME}) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for key, sql in COUNTED.items():
        needs = {e.PRICE, e.EVENT_TYPE} if key == "price_bucket" else {e.EVENT_TIME if key == "hour" else key}
        if needs <= set(present):
            by_day: dict[str, dict[str, int]] = {}
            counts[key] = by_day
            known = f"({sql}) IS NOT NULL AND {e.EVENT_TIME} IS NOT NULL"
            query = f"SELECT {day}, ({sql})::VARCHAR v, count(*) FROM events WHERE {known} GROUP BY ALL"
            for when, value, n in con.execute(query).fetchall():
                by_day.setdefault(when, {})[value] = n
    names = [str(row[0])[:10] for row in rows]
    return DayCounts(
        {name: row[1] for name, row in zip(names, rows, strict=True)},
        counts,
        {name: dict(zip(here, row[6:], strict=True)) for name, row in zip(names, rows, strict=True)},
        {name: (row[4], float(row[5] or 0.0)) for name, row in zip(names, rows, strict=True)},
        min((row[2] for row in rows), default=None),
        max((row[3] for row in rows), default=None),
    )


def profile_of(days: DayCounts, chosen: list[str], reference_days: int) -> ReferenceProfile:
    """The profile of the chosen days; distributions are of the newest `reference_days` of them."""
    window = sorted(chosen)[-reference_days:]
    counts: dict[str, dict[str, int]] = {}
    for column, by_day in days.counts.items():
        merged: dict[str, int] = {}
        for day in window:
            for value, n in by_day.get(day, {}).items():
                merged[value] = merged.get(value, 0) + n
        counts[column] = dict(sorted(merged.items()))
    nulls: dict[str, int] = {}
    for day in window:
        for column, n in days.nulls[day].items():
            nulls[column] = nulls.get(column, 0) + n
    priced = sum(days.log_price[day][0] for day in window)
    mean = sum(days.log_price[day][1] for day in window) / priced if priced else None
    rows = {day: days.rows[day] for day in sorted(chosen)}
    return ReferenceProfile(rows, counts, nulls, sum(days.rows[day] for day in window), mean, priced)


def psi_over_noise(now: Mapping[str, int], before: Mapping[str, int]) -> float:
    """Population stability index of two count tables less what chance gives (three standard errors); >= 0."""
    keys = sorted(set(now) | set(before))
    n, m = sum(now.values()), sum(before.values())
    if len(keys) < 2 or not n or not m:
        return 0.0
    total = 0.0
    for key in keys:
        p = (now.get(key, 0) + 0.5) / (n + 0.5 * len(keys))
        q = (before.get(key, 0) + 0.5) / (m + 0.5 * len(keys))
        total += (p - q) * math.log(p / q)
    scale = 1 / n + 1 / m  # under no drift PSI / scale is chi-square with len(keys) - 1 degrees of freedom
    degrees = len(keys) - 1
    return max(0.0, total - scale * (degrees + 3 * math.sqrt(2 * degrees)))


def _compare(now: ReferenceProfile, before: ReferenceProfile, params: ValidationParams) -> dict[str, float]:
    out: dict[str, float] = {}
    if now.rows < params.min_rows or before.rows < params.min_rows:
        return out
    for column, new in now.counts.items():
        old = before.counts.get(column, {})
        if not old:
            continue
        out[f"psi_{column}"] = psi_over_noise(new, old)
        out[f"new_{column}"] = float(sum(n for value, n in new.items() if value not in old))
        total = sum(old.values())
        frequent = [value for value, n in old.items() if n >= FREQUENT * total]
        out[f"gone_{column}"] = float(sum(value not in new for value in frequent)) if new else float(len(frequent))
    for column, n in now.nulls.items():
        if column in before.nulls:
            out[f"null_change_{column}"] = n / now.rows - before.nulls[column] / before.rows
    if now.log_price_mean is not None and before.log_price_mean is not None:
        out["price_ratio"] = math.exp(now.log_price_mean - before.log_price_mean)
    recent = [before.rows_by_day[day] for day in sorted(before.rows_by_day)[-params.reference_days :]]
    out["volume_ratio"] = statistics.median(now.rows_by_day.values()) / statistics.median(recent)
    return out


def compare(days: DayCounts, reference: ReferenceProfile | None, params: ValidationParams) -> dict[str, float]:
    """Measures against the reference; without one, of the newest week against the days before it (if there are 28)."""
    known = sorted(days.rows)
    if reference is None or not reference.rows_by_day:
        fresh, old = known[-SELF_REFERENCE_DAYS:], known[:-SELF_REFERENCE_DAYS]
        if len(old) < params.reference_days:
            return {}
        limit = params.reference_days
        return _compare(profile_of(days, fresh, limit), profile_of(days, old, limit), params)
    fresh = [day for day in known if day not in reference.rows_by_day] or known[-params.reference_days :]
    out = _compare(profile_of(days, fresh, params.reference_days), reference, params)
    first = known[0] if known else ""
    before = {day: n for day, n in reference.rows_by_day.items() if day in days.rows or day >= first}
    overlap = [day for day in before if day in days.rows]
    if overlap and sum(before.values()) >= params.min_rows:
        out["overlap_ratio"] = sum(days.rows[day] for day in overlap) / sum(before.values())
    return out


def odd_day(rows: Mapping[str, int], load_time: datetime | None) -> float:
    """Rows of the oddest day as a ratio to the median of the days around it; 1 where no day lies beyond the noise.

    Noise is the shop's own: six median absolute deviations of that ratio's logarithm. The day of loading is not whole.
    """
    today = "" if load_time is None else load_time.astimezone(UTC).date().isoformat()
    known = [day for day in sorted(rows) if day != today]
    if len(known) < AROUND:
        return 1.0
    logs = [math.log(max(rows[day], 1)) for day in known]
    half = AROUND // 2
    off = []
    for at, value in enumerate(logs):
        low = min(max(0, at - half), max(0, len(logs) - AROUND))
        off.append(value - statistics.median(logs[low : low + AROUND]))
    spread = statistics.median(abs(one) for one in off)
    oddest = max(off, key=abs)
    return math.exp(oddest) if abs(oddest) > 6 * spread else 1.0


def find_duplicates(con: Any, present: tuple[str, ...]) -> None:
    """Fill `_duplicates` (id, copies, contents, day): event ids that occur more than once.

    Two steps, so that memory holds 8-byte hashes instead of every id: repeated hashes first, the exact ids of only
    those second. `contents` counts different rows of one id.
    """
    con.execute(f"CREATE TABLE {DUPLICATES} (id VARCHAR, copies BIGINT, contents BIGINT, day VARCHAR)")
    if Events.EVENT_ID not in present or Events.EVENT_TIME not in present:
        return
    con.execute(
        "CREATE TEMP TABLE hashes AS SELECT h FROM (SELECT hash(event_id) h FROM events) GROUP BY h HAVING count(*) > 1"
    )
    row = ", ".join(present)
    con.execute(
        f"INSERT INTO {DUPLICATES} SELECT event_id, count(*), count(DISTINCT hash({row})),"
        " strftime(min(event_time), '%Y-%m-%d') FROM events WHERE hash(event_id) IN (SELECT h FROM hashes)"
        " AND event_id IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
    )


def measures(
    con: Any,
    days: DayCounts,
    present: tuple[str, ...],
    items: tuple[str, ...],
    params: ValidationParams,
    load_time: datetime | None,
) -> dict[str, float]:
    """Measures that need no reference: retries, age, the busiest user, prices against the catalogue."""
    e = Events
    out: dict[str, float] = {}
    if not days.rows:
        return out
    typical = {day: total / n for day, (n, total) in days.log_price.items() if n >= MIN_PRICED}
    if len(typical) >= MIN_PRICED_DAYS:
        usual = statistics.median(typical.values())
        out["day_price_ratio"] = math.exp(max((value - usual for value in typical.values()), key=abs))
    out["day_volume_ratio"] = odd_day(days.rows, load_time)
    extra = con.execute(f"SELECT day, sum(copies - contents) FROM {DUPLICATES} GROUP BY 1").fetchall()
    sizes = {day: max(days.rows.get(day, 0), 100) for day, _ in extra}
    out["retry_share"] = max((float(n) / sizes[day] for day, n in extra), default=0.0)
    if load_time is not None and days.last is not None:
        out["age_days"] = (load_time.astimezone(UTC).replace(tzinfo=None) - days.last).total_seconds() / 86_400
    if e.USER_ID in present:
        each = f"SELECT date_trunc('day', {e.EVENT_TIME}) d, count(*) n FROM events WHERE {e.USER_ID} IS NOT NULL"
        by_day = f"SELECT max(n) most, sum(n) whole FROM ({each} GROUP BY d, {e.USER_ID}) GROUP BY d"
        query = f"SELECT max(most / whole) FROM ({by_day} HAVING sum(n) >= {params.min_rows:d})"
        top = con.execute(query).fetchone()[0]
        out["top_user_share"] = float(top or 0.0)
    if {e.PRICE, e.ITEM_ID, e.EVENT_TYPE} <= set(present) and {Items.ITEM_ID, Items.PRICE} <= set(items):
        # Day by day, because one day in another unit drowns in a good month.
        ratios = con.execute(
            f"SELECT avg(ln(e.price / i.price)) r FROM events e JOIN items i USING (item_id) WHERE {PRICED}"
            f" AND e.price > 0 AND i.price > 0 AND isfinite(e.price) AND isfinite(i.price)"
            f" GROUP BY date_trunc('day', {e.EVENT_TIME}) HAVING count(*) >= {MIN_PRICED}"
            " ORDER BY abs(r) DESC, r LIMIT 1"
        ).fetchone()
        if ratios:
            out["catalogue_price_ratio"] = math.exp(ratios[0])
    return out
