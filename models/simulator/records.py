"""What the simulated shop does, as rows of the canonical tables. Identical for a whole day and for one page.

Choices. Ids are made from the session, the page and the slot, so that they are unique and the same for the same shop.
An opened product page is a `click` (with request and position) and a `view` a moment later; a return is a visit of its
own, days later. Shapes: R sessions that got a page, K slots, N events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from features.schema import Events, Items, ItemVectors, Users, arrow_schema
from models.simulator.catalogue import VOCABULARY
from models.simulator.draws import Ints
from models.simulator.sessions import DAY_US, SessionBatch
from models.simulator.truth import PLATFORMS, Truth

if TYPE_CHECKING:
    from models.simulator.shop import Answers

CURRENCY = "GBP"
EVENTS = arrow_schema(Events.COLUMNS)
# When in the share of a page's time that belongs to a click its events come.
STEPS = (("click", 0.3), ("view", 0.33), ("add_to_cart", 0.6), ("purchase", 0.9))


@dataclass(frozen=True)
class Returned:
    """One purchase that comes back `days` later."""

    user_id: str | None
    session_id: str
    page: int
    item: int
    pieces: int
    bought_us: int
    platform: int
    days: int


def _table(schema: pa.Schema, columns: dict[str, Any]) -> pa.Table:
    """Columns as a table of `schema`, those not given null."""
    size = len(next(iter(columns.values())))
    arrays = [
        pa.array(columns[field.name], field.type) if field.name in columns else pa.nulls(size, field.type)
        for field in schema
    ]
    return pa.table(arrays, names=schema.names)


def _take(values: Sequence[Any], at: Ints) -> list[Any]:
    return [values[index] for index in at.tolist()]


def _session_columns(batch: SessionBatch, at_N: Ints) -> dict[str, Any]:
    return {
        Events.USER_ID: _take(batch.user_ids, at_N),
        Events.SESSION_ID: _take(batch.session_ids, at_N),
        Events.PLATFORM: _take(PLATFORMS, batch.platform_B[at_N]),
    }


def event_rows(
    truth: Truth, batch: SessionBatch, rows_R: Ints, answers: Answers, request_ids: Sequence[str], position_RK: Ints
) -> pa.Table:
    """Clicks, views, carts and purchases of some pages, by time; `request_ids` has one for each of the R pages."""
    order_RK = np.cumsum(answers.clicked_RK, axis=1) - 1
    room_R = (batch.clock_us_B[rows_R] - answers.began_us_R) / (answers.clicked_RK.sum(axis=1) + 1)
    happened = (answers.clicked_RK, answers.clicked_RK, answers.carted_RK, answers.bought_RK)
    parts = []
    for (name, share), happened_RK in zip(STEPS, happened, strict=True):
        r, k = np.nonzero(happened_RK)
        item_N, position_N, sale = answers.item_RK[r, k], position_RK[r, k], name == "purchase"
        ids = zip(_take(batch.session_ids, rows_R[r]), answers.page_R[r].tolist(), item_N.tolist(), strict=True)
        columns = {
            Events.EVENT_ID: [f"{session}-{page}-{item}-{name}" for session, page, item in ids],
            Events.EVENT_TIME: answers.began_us_R[r] + (room_R[r] * (order_RK[r, k] + share)).astype(np.int64),
            Events.EVENT_TYPE: [name] * r.size,
            Events.ITEM_ID: _take(truth.catalogue.item_ids, item_N),
            Events.SURFACE: ["item" if name == "view" else "cart" if sale else "home"] * r.size,
            Events.REQUEST_ID: _take(request_ids, r),
            Events.POSITION: position_N,
            **_session_columns(batch, rows_R[r]),
        }
        if sale:
            columns |= _sale(truth, item_N, answers.pieces_RK[r, k])
        parts.append(_table(EVENTS, columns))
    return pa.concat_tables(parts).sort_by([(Events.EVENT_TIME, "ascending"), (Events.EVENT_ID, "ascending")])


def _sale(truth: Truth, item_N: Ints, pieces_N: Ints) -> dict[str, Any]:
    return {
        Events.PRICE: truth.catalogue.price_I[item_N],
        Events.QUANTITY: pieces_N,
        Events.CURRENCY: [CURRENCY] * item_N.size,
    }


def search_rows(truth: Truth, batch: SessionBatch, rows_R: Ints, answers: Answers) -> pa.Table:
    """Own searches at the end of a page, each with the view of one hit: behaviour that no slate led to."""
    r = np.flatnonzero(answers.searched_R >= 0)
    item_N, at_N = answers.searched_R[r], rows_R[r]
    end_N = batch.clock_us_B[at_N]
    nouns = [tuple(VOCABULARY.values())[leaf].split() for leaf in truth.catalogue.leaf_I[item_N].tolist()]
    words = [noun[int(key) % len(noun)] for noun, key in zip(nouns, batch.key_B[at_N].tolist(), strict=True)]
    sessions = _take(batch.session_ids, at_N)
    common = {Events.SURFACE: ["search"] * r.size, **_session_columns(batch, at_N)}
    asked = {
        Events.EVENT_ID: [f"{session}-search" for session in sessions],
        Events.EVENT_TIME: end_N - 900_000,
        Events.EVENT_TYPE: ["search"] * r.size,
        Events.QUERY: words,
    }
    found = {
        Events.EVENT_ID: [f"{session}-found" for session in sessions],
        Events.EVENT_TIME: end_N - 300_000,
        Events.EVENT_TYPE: ["view"] * r.size,
        Events.ITEM_ID: _take(truth.catalogue.item_ids, item_N),
    }
    return pa.concat_tables([_table(EVENTS, asked | common), _table(EVENTS, found | common)])


def return_rows(truth: Truth, gone: Sequence[Returned]) -> pa.Table:
    """Goods that come back, at the price that was paid."""
    item_N = np.array([one.item for one in gone], np.int64)
    columns = {
        Events.EVENT_ID: [f"{one.session_id}-{one.page}-{one.item}-return" for one in gone],
        Events.EVENT_TIME: [one.bought_us + one.days * DAY_US for one in gone],
        Events.EVENT_TYPE: ["return"] * len(gone),
        Events.USER_ID: [one.user_id for one in gone],
        Events.SESSION_ID: [f"{one.session_id}-{one.days}" for one in gone],
        Events.ITEM_ID: _take(truth.catalogue.item_ids, item_N),
        Events.SURFACE: ["other"] * len(gone),
        Events.PLATFORM: [PLATFORMS[one.platform] for one in gone],
        **_sale(truth, item_N, np.array([one.pieces for one in gone], np.int64)),
    }
    return _table(EVENTS, columns)


def item_rows(truth: Truth, day: int) -> pa.Table:
    """The catalogue on a day: what has been launched by then."""
    catalogue = truth.catalogue
    at, told = np.flatnonzero(catalogue.launch_day_I <= day), truth.params.words
    columns = {
        Items.ITEM_ID: _take(catalogue.item_ids, at),
        Items.TITLE: _take(catalogue.titles, at) if told else ["article"] * at.size,
        Items.BRAND: _take(catalogue.brands, at) if told else [None] * at.size,
        Items.CATEGORY: [catalogue.category(leaf) if told else None for leaf in catalogue.leaf_I[at].tolist()],
        Items.PRICE: catalogue.price_I[at],
        Items.CURRENCY: [CURRENCY] * at.size,
        Items.AVAILABLE: catalogue.available(day)[at],
        Items.LISTED_AT: _days(truth, catalogue.launch_day_I[at]),
    }
    return _table(arrow_schema(Items.COLUMNS), columns)


def user_rows(truth: Truth, day: int) -> pa.Table:
    """Who has arrived by a day, by id; nothing in it tells a bot."""
    people = truth.people
    here = [at for at in np.argsort(people.user_ids).tolist() if people.arrival_U[at] <= day]
    at = np.array(here, np.int64)
    columns = {
        Users.USER_ID: _take(people.user_ids, at),
        Users.FIRST_SEEN: _days(truth, people.arrival_U[at]),
        Users.COUNTRY: ["GB"] * at.size,
        Users.PLATFORM: _take(PLATFORMS, people.platform_U[at]),
        Users.PERSONALIZATION_CONSENT: people.consent_U[at],
    }
    return _table(arrow_schema(Users.COLUMNS), columns)


def vector_rows(truth: Truth, day: int) -> pa.Table:
    """Two modalities of the launched items: `image` carries signal, `noise` none."""
    catalogue = truth.catalogue
    at = np.flatnonzero(catalogue.launch_day_I <= day)
    noise_ID = np.random.default_rng([truth.seed, 4]).standard_normal(catalogue.vector_ID.shape)
    ids = _take(catalogue.item_ids, at)
    columns = {
        ItemVectors.ITEM_ID: [*ids, *ids],
        ItemVectors.MODALITY: ["image"] * at.size + ["noise"] * at.size,
        ItemVectors.VECTOR: [*catalogue.image_vectors()[at].tolist(), *noise_ID[at].tolist()],
    }
    return _table(arrow_schema(ItemVectors.COLUMNS), columns)


def _days(truth: Truth, day_N: Ints) -> Ints:
    """(N,) the first microsecond of days."""
    first = datetime.combine(truth.params.first_day, time(), UTC)
    return np.asarray(int(first.timestamp()) * 1_000_000 + day_N * DAY_US, dtype=np.int64)
