"""Because you viewed X: which history items speak for an item, told only where their absence would be felt.

Choices. What is told is the share of the exact terms in the counting scores (a sum over the history), or, where
counting knows no pair, in the likeness of content and category. But the ranker reads more than these sums, so of the
strongest items those are named whose removal from the history lowers the ranker's score; without that check every
third named cause would be none. If no removal lowers it, the strongest is named all the same.
Shapes: P history pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.history import UserState

if TYPE_CHECKING:  # homepage.py builds on this module
    from models.homepage import HomepageModel

Floats = npt.NDArray[np.float64]
TRIED = 8


def causes(model: HomepageModel, state: UserState, item: int, as_of_us: int) -> list[tuple[int, float]]:
    """(history item, its share of what speaks for `item`), first those without which the score would be lower."""
    item_P, weight_P = model.knowledge.counting.history_weights(state, as_of_us)
    if item_P.size == 0:
        return []
    term_P = _counted(model, item_P, weight_P, item)
    if term_P.sum() <= 0:
        term_P = _alike(model, item_P, weight_P, item)
    total = float(term_P.sum())
    if total <= 0:
        return []
    share = {at: float(term_P[item_P == at].sum()) / total for at in np.unique(item_P[term_P > 0]).tolist()}
    strongest = sorted(share, key=lambda at: (-share[at], at))[:TRIED]
    wanted = np.array([item], dtype=np.int64)

    def score(history: UserState) -> float:
        return float(model.score_items(history, as_of_us, wanted).score_C[0])

    whole = score(state)
    felt = {at for at in strongest if score(state.without(at)) < whole}
    return [(at, share[at]) for at in sorted(strongest, key=lambda at: at not in felt)]


def _counted(model: HomepageModel, item_P: npt.NDArray[np.int64], weight_P: Floats, item: int) -> Floats:
    """(P,) exact terms of the counting scores; the item itself, taken before, speaks for itself."""
    relations = model.knowledge.counting.relations.values()
    own_P = (item_P == item) * weight_P
    return sum((weight_P * relation.strength(item_P, item) for relation in relations), own_P)


def _alike(model: HomepageModel, item_P: npt.NDArray[np.int64], weight_P: Floats, item: int) -> Floats:
    vectors, category_I = model.knowledge.content_IE, model.items.category_codes_I
    same_P = (category_I[item_P] == category_I[item]) & (category_I[item] >= 0)
    alike: Floats = weight_P * (np.maximum(vectors[item_P] @ vectors[item], 0.0) + same_P)
    return alike
