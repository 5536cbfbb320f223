"""How probable the pages of a log are under another policy: Plackett-Luce over a model's scores, slot by slot.

Choices. The probability of each shown item given the items above it, over the candidates of that moment: what the
estimators need. Modules, diversity and a shop's rules, which the service adds, are left out; so is what the service
learns between two retrains. An item that the model does not name has the probability 0.
Shapes: K slots, C candidates, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.schema import Slates
from models.history import UserState
from models.homepage import HomepageModel
from models.items import ItemTable
from models.parallel import spread, stretches
from models.policy.impressions import Floats, Ints, Page, People
from models.policy.plackett_luce import PlackettLuce, PlackettLuceParams, utilities

Told = TypeVar("Told")


def slot_probabilities(score_C: Floats, index_C: Ints, item_K: Ints, params: PlackettLuceParams) -> Floats:
    """(K,) probability of each item of a page given the items above it; candidates come best first.

    A slot is drawn from the best 2 K + 20 candidates that are left, as the service does.
    """
    policy, utility_C = PlackettLuce(params), utilities(score_C)
    place = {item: at for at, item in enumerate(index_C.tolist())}
    left_C = np.ones(index_C.size, np.bool_)
    near = 2 * item_K.size + 20
    told_K = np.zeros(item_K.size)
    for slot, item in enumerate(item_K.tolist()):
        at = place.get(item)
        if at is None:
            continue
        open_C = left_C & (np.cumsum(left_C) <= near)
        told_K[slot] = policy.probabilities(utility_C, open_C)[at] if open_C[at] else 0.0
        left_C[at] = False
    return told_K


def target_probabilities(
    model: HomepageModel,
    pages: Sequence[Page],
    people: People,
    params: PlackettLuceParams,
    candidates: int = 500,
    workers: int = 1,
) -> tuple[list[Floats], list[Floats]]:
    """(K,) for each page: what the model's policy would have shown with which probability, and the model's scores.

    Pages by time; a score is nan for an item that the model does not name.
    """
    on_sale_I = model.knowledge.on_sale(model.trained_until_us)

    def of_page(page: Page, state: UserState) -> tuple[Floats, Floats]:
        eligible_I = on_sale_I.copy()
        eligible_I[page.item_K] = True  # it was on the shelf
        ranking = model.rank(state, model.as_of(page.served_us), eligible_I, candidates)
        score = dict(zip(ranking.index_C.tolist(), ranking.score_C.tolist(), strict=True))
        told_K = slot_probabilities(ranking.score_C.astype(np.float64), ranking.index_C, page.item_K, params)
        return told_K, np.array([score.get(item, np.nan) for item in page.item_K.tolist()])

    found = _each(of_page, pages, people, workers)
    return [told_K for told_K, _ in found], [score_K for _, score_K in found]


def scores_of_shown(model: HomepageModel, pages: Sequence[Page], people: People, workers: int = 1) -> list[Floats]:
    """(K,) for each page: the model's scores of what was shown, pages by time.

    The model may be of another catalogue than the pages; what it lacks is nan.
    """
    to_model = _places(people.items, model.items)

    def of_page(page: Page, state: UserState) -> Floats:
        item_K = page.item_K
        if to_model is not None:
            state, item_K = state.renumbered(to_model), np.array([to_model.get(item, -1) for item in item_K.tolist()])
        score_K = np.full(item_K.size, np.nan)
        known = item_K >= 0
        score_K[known] = model.score_items(state, model.as_of(page.served_us), item_K[known]).score_C
        return score_K

    return _each(of_page, pages, people, workers)


def scores_as_served(slates: pa.Table, pages: Sequence[Page]) -> Floats:
    """(N,) for each slot of the pages, one after the other: the score that it was served with; nan where none is known.

    It is that of everything that served: the model, if any, and what was learned live beside it.
    """
    mine = slates.filter(
        pc.is_in(slates[Slates.REQUEST_ID], pa.array([page.request_id for page in pages], pa.string()))
    )
    columns = (mine[name].to_pylist() for name in (Slates.REQUEST_ID, Slates.POSITION, Slates.SCORE))
    told = {(request, position): score for request, position, score in zip(*columns, strict=True)}
    found = [told.get((page.request_id, position)) for page in pages for position in page.position_K.tolist()]
    return np.array([np.nan if score is None else score for score in found], np.float64)


def _each(
    of_page: Callable[[Page, UserState], Told], pages: Sequence[Page], people: People, workers: int
) -> list[Told]:
    """What is told of every page, in stretches of time."""

    def of_stretch(mine: Sequence[Page]) -> list[Told]:
        return [of_page(page, state) for page, state in _visits(mine, people)]

    if workers < 2 or not pages:
        return of_stretch(pages)
    people.open_day(pages[0].day_us, set())  # what is fitted here for everybody, no child has to fit
    return [told for found in spread(of_stretch, stretches(pages, 4 * workers), workers) for told in found]


def _visits(pages: Sequence[Page], people: People) -> Iterator[tuple[Page, UserState]]:
    """Each page with what was known of its visitor."""
    day_us = -1
    for page in pages:
        if page.day_us != day_us:
            day_us = page.day_us
            people.open_day(day_us, {one.user_id for one in pages if one.day_us == day_us})
        yield page, people.state(page.user_id, page.session_id, page.served_us)


def _places(items: ItemTable, others: ItemTable) -> dict[int, int] | None:
    """Where each item stands in another catalogue; None where nothing moves."""
    if items.item_ids == others.item_ids:
        return None
    return {at: others.index[item] for at, item in enumerate(items.item_ids) if item in others.index}
