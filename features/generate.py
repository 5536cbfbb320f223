"""SYNTHETIC DATA: a seeded generator of clean canonical tables for tests and benchmarks. Nothing in it is a real shop.

Choices. Rows are drawn by DuckDB from `hash(seed, row)`, so that ten million rows take seconds and the same seed gives
the same values. Days have one volume (give or take 5 %), daytime hours, fixed shares of event types and platforms,
one currency and a price for each item: clean data, on which no rule may raise an alarm.
"""
# Queries are put together from numbers and dates made here.
# ruff: noqa: S608

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path


@dataclass(frozen=True)
class GenerateParams:
    """Size of the made-up shop."""

    seed: int = 7
    first_day: date = date(2026, 1, 5)
    days: int = 7
    rows_per_day: int = 2_000
    users: int = 400
    items: int = 200
    slates: bool = False  # impressions of 12 slots, with a propensity


def _uniform(seed: int, salt: str) -> str:
    return f"((hash(i, {seed}, '{salt}') % 1000003) / 1000003.0)"


def _events_sql(params: GenerateParams, seed: int, day: date, rows: int) -> str:
    u = {name: _uniform(seed, name) for name in ("type", "user", "item", "time", "platform", "surface", "guest")}
    hours = f"(8 + 7 * ({u['time']} + {_uniform(seed, 'time2')}))"  # a triangle from 8 to 22 h
    return f"""
    WITH base AS (SELECT i,
        CASE WHEN {u["type"]} < .60 THEN 'view' WHEN {u["type"]} < .75 THEN 'click' WHEN {u["type"]} < .85
             THEN 'add_to_cart' WHEN {u["type"]} < .95 THEN 'purchase' ELSE 'search' END AS event_type,
        floor({params.users} * pow({u["user"]}, 1.3))::INT AS u,
        floor({params.items} * pow({u["item"]}, 1.5))::INT AS n,
        {hours} AS h FROM range({rows}) r(i))
    SELECT 'e{day:%Y%m%d}-' || i AS event_id,
        make_timestamp(epoch_us(TIMESTAMP '{day}') + (h * 3600000000)::BIGINT)::TIMESTAMPTZ AS event_time, event_type,
        CASE WHEN {u["guest"]} < .1 THEN NULL ELSE 'u' || u END AS user_id, 's{day:%Y%m%d}-' || u AS session_id,
        CASE WHEN event_type = 'search' THEN NULL ELSE 'i' || n END AS item_id,
        CASE WHEN {u["surface"]} < .5 THEN 'home' WHEN {u["surface"]} < .8 THEN 'item' ELSE 'search' END AS surface,
        NULL::VARCHAR AS request_id, NULL::INT AS position,
        CASE WHEN event_type = 'purchase' THEN 5.0 + n % 40 END::DOUBLE AS price,
        CASE WHEN event_type = 'purchase' THEN 1 + i % 3 END::INT AS quantity,
        CASE WHEN event_type = 'purchase' THEN 'GBP' END AS currency,
        CASE WHEN {u["platform"]} < .55 THEN 'web' WHEN {u["platform"]} < .8 THEN 'ios' ELSE 'android' END AS platform,
        CASE WHEN event_type = 'search' THEN 'lamp ' || n END AS query FROM base"""


def _slates_sql(seed: int, params: GenerateParams, day: date, rows: int) -> str:
    return f"""
    SELECT 'r{day:%Y%m%d}-' || (i // 12) AS request_id,
        make_timestamp(epoch_us(TIMESTAMP '{day}') + (i // 12) * 1000000)::TIMESTAMPTZ AS served_at,
        'u' || (i // 12) % {params.users} AS user_id, 's{day:%Y%m%d}-' || (i // 12) % {params.users} AS session_id,
        'home' AS surface, 'web' AS platform, 'for_you' AS module, (1 + i % 12)::INT AS position,
        'i' || ((hash(i // 12, {seed}) % {params.items}) + i % 12) % {params.items} AS item_id, 0.5::DOUBLE AS score,
        CASE WHEN i % 12 < 6 THEN 1.0 ELSE 0.25 END::DOUBLE AS propensity, 'bandit' AS policy, 'v1' AS model_version,
        i % 12 >= 6 AS explored, {params.items}::INT AS candidate_count, NULL::VARCHAR AS fallback, false AS sponsored
        FROM range({rows - rows % 12}) r(i)"""


def _items_sql(params: GenerateParams) -> str:
    return f"""
    SELECT 'i' || i AS item_id, 'Lamp ' || i AS title, 'Brand ' || i % 7 AS brand, 'Home > Lamps' AS category,
        5.0 + i % 40 AS price, 'GBP' AS currency, NULL::VARCHAR AS image_url, true AS available,
        TIMESTAMPTZ '2025-01-01 00:00:00+00' AS listed_at FROM range({params.items}) r(i)"""


def day_seed(seed: int, day: date) -> int:
    """The seed of one day, so that a day's rows do not depend on which days are made beside it."""
    return int.from_bytes(hashlib.sha256(f"{seed} {day}".encode()).digest()[:4], "big")


def generate_tables(folder: Path, params: GenerateParams | None = None) -> Path:
    """Write SYNTHETIC `events/date=.../part-0.parquet`, `items.parquet` and, if asked, `slates/` below `folder`."""
    import duckdb

    params = params or GenerateParams()
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as con:
        con.execute("SET TimeZone='UTC'")
        con.execute("SET threads=2")

        def write(sql: str, path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            con.execute(
                f"COPY ({sql}) TO '{str(path).replace(chr(39), chr(39) * 2)}' (FORMAT parquet, COMPRESSION zstd)"
            )

        write(_items_sql(params), folder / "items.parquet")
        for number in range(params.days):
            day = params.first_day + timedelta(days=number)
            seed = day_seed(params.seed, day)
            rows = round(params.rows_per_day * (0.95 + 0.1 * (seed % 1000) / 1000))
            write(_events_sql(params, seed, day, rows), folder / "events" / f"date={day}" / "part-0.parquet")
            if params.slates:
                write(_slates_sql(seed, params, day, rows), folder / "slates" / f"date={day}" / "part-0.parquet")
    return folder
