"""A whole simulated log: days of shoppers under a page policy, as canonical tables. SIMULATED, every row of it.

Choices. A day is one batch: all first pages, then the second pages of those who stayed, and so on; tables are handed
on day by day, so that memory holds one day. Shapes as in shop.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features.schema import TIMESTAMP, Events, Items, ItemVectors, Slates, Users
from features.tables import TableWriter, Written
from models.simulator.draws import Bools, Ints
from models.simulator.pages import PagePolicy, Pages, PlackettLucePages
from models.simulator.params import SimulatorParams
from models.simulator.records import vector_rows
from models.simulator.sessions import SessionBatch
from models.simulator.shop import Answers, Shop
from models.simulator.truth import PLATFORMS


@dataclass(frozen=True, eq=False)
class Shown:
    """One wave of pages of a day: which sessions got them, what they held, what happened."""

    rows_R: Ints
    pages: Pages
    answers: Answers


@dataclass(frozen=True, eq=False)
class Day:
    """A day that was played: its sessions and its waves of pages, the first page of everybody first."""

    batch: SessionBatch
    shelf_I: Bools
    waves: list[Shown]


def play(shop: Shop, policy: PagePolicy, days: int, seed: int) -> Iterator[Day]:
    """Play days 0 to `days` - 1; `seed` draws the policy's luck, never the shoppers'."""
    return (play_day(shop, policy, day, seed) for day in range(days))


def play_day(shop: Shop, policy: PagePolicy, day: int, seed: int) -> Day:
    """Play one day, later than every day before."""
    rng = np.random.default_rng([seed, 5, day])
    batch, shelf_I = shop.open(day), shop.truth.catalogue.available(day)
    rows_R, waves = np.arange(len(batch)), []
    while rows_R.size:
        pages = policy.pages(shop, batch, rows_R, shelf_I, rng)
        answers = shop.answer(batch, rows_R, pages.item_RK)
        waves.append(Shown(rows_R, pages, answers))
        rows_R = rows_R[answers.stays_R]
    policy.learn([wave.answers for wave in waves], rng)
    return Day(batch, shelf_I, waves)


def request_names(batch: SessionBatch, rows_R: Ints, page_R: Ints) -> list[str]:
    """One request id for each page."""
    pairs = zip(rows_R.tolist(), page_R.tolist(), strict=True)
    return [f"r{batch.session_ids[row][1:]}-{page}" for row, page in pairs]


def slate_rows(shop: Shop, day: Day, wave: Shown, policy: str) -> pa.Table:
    """The rows of `slates` of one wave, R x K of them."""
    batch, rows_R, (pages, slots) = day.batch, wave.rows_R, wave.pages.item_RK.shape
    page_of = pa.array(np.repeat(np.arange(pages), slots))
    size = pages * slots

    def each(values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
        return pa.array(values, kind).take(page_of)

    def same(value: Any) -> pa.Array:
        return pa.repeat(value, size)

    columns = {
        Slates.REQUEST_ID: each(request_names(batch, rows_R, wave.answers.page_R)),
        Slates.SERVED_AT: pa.array(wave.answers.began_us_R).cast(TIMESTAMP).take(page_of),
        Slates.USER_ID: each([batch.user_ids[row] for row in rows_R.tolist()], pa.string()),
        Slates.SESSION_ID: each([batch.session_ids[row] for row in rows_R.tolist()]),
        Slates.SURFACE: same("home"),
        Slates.PLATFORM: each([PLATFORMS[at] for at in batch.platform_B[rows_R].tolist()]),
        Slates.MODULE: same("popular"),
        Slates.POSITION: pa.array(np.tile(np.arange(1, slots + 1, dtype=np.int32), pages)),
        Slates.ITEM_ID: pa.array(shop.truth.catalogue.item_ids).take(pa.array(wave.pages.item_RK.ravel())),
        Slates.SCORE: pa.array(wave.pages.score_RK.ravel()),
        Slates.PROPENSITY: pa.array(np.minimum(wave.pages.propensity_RK.ravel(), 1.0)),
        Slates.POLICY: same(policy),
        Slates.MODEL_VERSION: same(f"simulated-{batch.day}"),
        Slates.EXPLORED: pa.array(wave.pages.explored_RK.ravel()),
        Slates.CANDIDATE_COUNT: same(pa.scalar(int(day.shelf_I.sum()), pa.int32())),
        Slates.SPONSORED: same(False),
    }
    return pa.table(columns)


def day_tables(shop: Shop, day: Day, policy: str) -> Iterator[tuple[str, pa.Table]]:
    """The (table, rows) of one played day: slates, events, and the returns of earlier purchases."""
    for wave in day.waves:
        yield Slates.TABLE, slate_rows(shop, day, wave, policy)
        names = request_names(day.batch, wave.rows_R, wave.answers.page_R)
        yield Events.TABLE, shop.events(day.batch, wave.rows_R, wave.answers, names)
    yield Events.TABLE, shop.returns(day.batch.day)


def without_pages(tables: Iterable[tuple[str, pa.Table]]) -> Iterator[tuple[str, pa.Table]]:
    """The same of a shop that does not log what it shows: no slates, and events that name none."""
    for table, rows in tables:
        if table == Events.TABLE:
            for name in (Events.REQUEST_ID, Events.POSITION):
                at = rows.schema.get_field_index(name)
                rows = rows.set_column(at, rows.schema.field(at), pa.nulls(rows.num_rows, rows.schema.field(at).type))
        if table != Slates.TABLE:
            yield table, rows


def simulate_log(
    params: SimulatorParams | None = None,
    days: int | None = None,
    sessions_per_day: float | None = None,
    policy: PagePolicy | None = None,
    seed: int | None = None,
) -> Iterator[tuple[str, pa.Table]]:
    """The SIMULATED canonical tables as (table, rows), in parts; the catalogue and the users come last.

    Given arguments replace the parameters'; `policy` defaults to Plackett-Luce over popularity with noise.
    """
    params = params or SimulatorParams()
    params = replace(
        params,
        days=days or params.days,
        sessions_per_day=params.sessions_per_day if sessions_per_day is None else sessions_per_day,
        seed=params.seed if seed is None else seed,
    )
    shop = Shop(params)
    policy = policy or PlackettLucePages(params.items)
    for day in play(shop, policy, params.days, params.seed):
        yield from day_tables(shop, day, policy.name)
    yield Items.TABLE, shop.items(params.days - 1)
    yield Users.TABLE, shop.users(params.days - 1)
    if params.modalities:
        yield ItemVectors.TABLE, vector_rows(shop.truth, params.days - 1)


def generate(params: SimulatorParams, dest: Path, policy: PagePolicy | None = None) -> dict[str, Written]:
    """Write a SIMULATED log below `dest`, each table replaced as a whole; the same parameters give the same bytes."""
    writers: dict[str, TableWriter] = {}
    try:
        for table, rows in simulate_log(params, policy=policy):
            writers.setdefault(table, TableWriter(dest, table)).write(rows)
        return {table: writer.close() for table, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.discard()
