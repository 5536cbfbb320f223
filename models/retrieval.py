"""Candidates: a few hundred items out of the whole catalogue, from several sources, each named.

Choices. Sources are united, not blended: the ranker decides. Own items are a source, because in many shops people
buy again; in others they do not, and the ranker learns that from the data. Relation scores are multiplied by the
square root of recent popularity, since an item out of season is no candidate however well it fits.
Shapes: I items, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.history import UserState

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.floating]
Names = npt.NDArray[np.object_]

MANY, SAMPLED = 10_000, 16


@dataclass(frozen=True)
class RetrievalParams:
    """How many candidates each source may name."""

    own: int = 200
    relation: int = 80
    sequence: int = 80
    content: int = 60
    category: int = 60
    popular: int = 60
    liked: int = 100  # by clicks for what was shown, and the same times the price; where the log has impressions
    new: int = 20


def strongest(score_I: Scores, n: int, eligible_I: Bools, times_I: Scores | None = None) -> Ints:
    """The n eligible items with the largest positive score, best first, ties to the lower index.

    `times_I` (positive) is multiplied in where a score is positive: relations name a few items of many.
    """
    live = np.flatnonzero((score_I > 0) & eligible_I)
    value = score_I[live] if times_I is None else score_I[live] * times_I[live]
    if live.size > MANY:  # a sample says below which score nearly all of them are out
        place = -(-3 * n // SAMPLED)
        sample = value[::SAMPLED]
        enough = value >= np.partition(sample, -place)[-place] if place <= sample.size else np.zeros(0, dtype=np.bool_)
        if np.count_nonzero(enough) >= n:
            live, value = live[enough], value[enough]
    if live.size > n:
        top = np.argpartition(-value, n - 1)[:n]
        live, value = live[top], value[top]
    result: Ints = live[np.lexsort((live, -value))]
    return result


def ordered(score_I: Scores) -> Ints:
    """Every item with a positive score, best first, ties to the lower index: sorted once for many requests."""
    live = np.flatnonzero(score_I > 0)
    result: Ints = live[np.lexsort((live, -score_I[live]))]
    return result


def first_of(order: Ints, n: int, eligible_I: Bools) -> Ints:
    """The first n eligible items of an order: what `strongest` says of its scores, without looking at all of them."""
    head = order[: 4 * n]
    found: Ints = head[eligible_I[head]][:n]
    return found if found.size == n or head.size == order.size else order[eligible_I[order]][:n]


def unite(sources: Mapping[str, Ints]) -> tuple[Ints, Names]:
    """Candidates in ascending order and, for each, the first source that named it."""
    if not sources:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=object)
    nobody = len(sources)
    first_I = np.full(1 + max(int(found.max(initial=-1)) for found in sources.values()), nobody, dtype=np.int16)
    for number, found in reversed(list(enumerate(sources.values()))):  # the first source writes last
        first_I[found] = number
    index_C = np.flatnonzero(first_I != nobody)
    return index_C, np.array(list(sources), dtype=object)[first_I[index_C]]


def own_items(state: UserState, n: int, eligible_I: Bools) -> Ints:
    """The items that the user touched last, newest first."""
    newest = state.item_P[::-1]
    _, first = np.unique(newest, return_index=True)
    mine = newest[np.sort(first)]
    result: Ints = mine[eligible_I[mine]][:n]
    return result
