"""How probable the slots of a log are under another policy: Plackett-Luce over a model's scores.

Choices. The probability that the policy's *own* page has the item in this place, over the candidates of that moment.
Given the items that the log had above it, it would be larger: on a page drawn at random the policy's favourite is
hardly ever above, and would be credited in every place at once. What stood above already on the logged page is lost,
so an estimate errs to the lower side. Modules, diversity and a shop's rules, which the service adds, are left out; so
is what the service learns between two retrains. An item that the model does not name has the probability 0.
Shapes: K slots, C candidates, F features.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.schema import Slates
from models.history import UserState
from models.homepage import HomepageModel, Ranking
from models.items import ItemTable
from models.parallel import spread, stretches
from models.policy.impressions import Bools, Floats, Ints, Page, People
from models.policy.plackett_luce import TINY, PlackettLuce, PlackettLuceParams, utilities

OWN_PAGES, CANDIDATES = 16, 500
Told = TypeVar("Told")


def place_probabilities(
    score_C: Floats, index_C: Ints, item_K: Ints, params: PlackettLuceParams, rng: np.random.Generator
) -> Floats:
    """(K,) probability that the policy's own page has this item in this place; candidates come best first.

    Over the policy's own items above it, by `OWN_PAGES` draws of them (the last factor is exact). A slot is drawn from
    the best 2 K + 20 candidates that are left, as the service does.
    """
    policy, near = PlackettLuce(params), 2 * item_K.size + 20
    utility_C = utilities(score_C)[: near + item_K.size]
    place = {item: at for at, item in enumerate(index_C[: utility_C.size].tolist())}
    open_MC = np.ones((OWN_PAGES, utility_C.size), np.bool_)
    each_M, told_K = np.arange(OWN_PAGES), np.zeros(item_K.size)
    for slot, item in enumerate(item_K[: utility_C.size].tolist()):
        near_MC = open_MC & (np.cumsum(open_MC, axis=1) <= near)
        chance_MC = policy.probabilities(utility_C, near_MC)
        if item in place:
            told_K[slot] = chance_MC[:, place[item]].mean()
        clock_MC = rng.standard_exponential(chance_MC.shape) / np.maximum(chance_MC, TINY)
        drawn_M = np.argmin(np.where(near_MC, clock_MC, np.inf), axis=1)
        open_MC[each_M, drawn_M] = False
    return told_K


def own_ranking(
    model: HomepageModel, page: Page, state: UserState, on_sale_I: Bools, candidates: int = CANDIDATES
) -> Ranking:
    """What the model would have ranked at that moment; what was shown was on the shelf."""
    eligible_I = on_sale_I.copy()
    eligible_I[page.item_K] = True
    return model.rank(state, model.as_of(page.served_us), eligible_I, candidates)


def on_page(page: Page, score_C: Floats, index_C: Ints, params: PlackettLuceParams) -> Floats:
    """(K,) `place_probabilities` of a page's slots, by draws that its request decides."""
    rng = np.random.default_rng(zlib.crc32(page.request_id.encode()))
    return place_probabilities(score_C, index_C, page.item_K, params, rng)


def target_probabilities(
    model: HomepageModel,
    pages: Sequence[Page],
    people: People,
    params: PlackettLuceParams,
    candidates: int = CANDIDATES,
    workers: int = 1,
) -> tuple[list[Floats], list[Floats]]:
    """(K,) for each page: what the model's policy would have shown with which probability, and the model's scores.

    Pages by time; a score is nan for an item that the model does not name.
    """
    on_sale_I = model.knowledge.on_sale(model.trained_until_us)

    def of_page(page: Page, state: UserState) -> tuple[Floats, Floats]:
        ranking = own_ranking(model, page, state, on_sale_I, candidates)
        score = dict(zip(ranking.index_C.tolist(), ranking.score_C.tolist(), strict=True))
        told_K = on_page(page, ranking.score_C.astype(np.float64), ranking.index_C, params)
        return told_K, np.array([score.get(item, np.nan) for item in page.item_K.tolist()])

    found = _each(of_page, pages, people, workers)
    return [told_K for told_K, _ in found], [score_K for _, score_K in found]


def scores_of_shown(
    model: HomepageModel,
    pages: Sequence[Page],
    people: People,
    workers: int = 1,
    known_L: Sequence[Floats] | None = None,
) -> list[Floats]:
    """(K,) for each page: the model's scores of what was shown, pages by time.

    The model may be of another catalogue than the pages; what it lacks is nan. `known_L`: what `target_probabilities`
    has found already; only pages where an item was no candidate are scored then.
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

    told_L = list(known_L or [np.full(page.item_K.size, np.nan) for page in pages])
    left = [at for at, told_K in enumerate(told_L) if not np.isfinite(told_K).all()]
    for at, told_K in zip(left, _each(of_page, [pages[at] for at in left], people, workers), strict=True):
        told_L[at] = told_K
    return told_L


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
        return [of_page(page, state) for page, state in visits(mine, people)]

    if workers < 2 or not pages:
        return of_stretch(pages)
    people.open_day(pages[0].day_us, set())  # what is fitted here for everybody, no child has to fit
    return [told for found in spread(of_stretch, stretches(pages, 4 * workers), workers) for told in found]


def visits(pages: Sequence[Page], people: People) -> Iterator[tuple[Page, UserState]]:
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
