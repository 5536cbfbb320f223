"""What a person's acts say beyond what everybody does: lifts of categories and brands, and how far a price is off.

Choices. The share of a history in a category follows what pages showed; its lift over the shop's share is the naive
Bayes evidence for a taste (or, over the running session, for an intent), shrunk so that one act says little. A taste
is the same over all of content and price: weights of its own for each person, one ridge step from what everybody does.
Used where the log has impressions, beside `appeal`.
Shapes: I items, C candidates, P history pairs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.history import TYPE_WEIGHT, UserState
from models.signals import Knowledge

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KINDS = ("category", "top_category", "brand")
LIFTS = (
    *(f"{kind}_lift{span}" for span in ("", "_long", "_session") for kind in KINDS),
    "price_gap",
    "taste",
    "taste_session",
    "taste_of_pages",
)
HALF_LIVES_DAYS = (14.0, 120.0)
SHRINKAGE = 4.0  # acts along a direction of content at which half of what they say is believed
PRIOR_HISTORY, PRIOR_SESSION, PRIOR_PRICE = 20.0, 10.0, 3.0  # acts that the shop's shares (or mean price) weigh


def lifts(state: UserState, knowledge: Knowledge, as_of_us: int, index_C: Ints) -> list[Floats]:
    """One (C,) column for each of `LIFTS`; 0 where nothing is known."""
    said_P = (TYPE_WEIGHT[state.type_P] > 0).astype(np.float64)
    spans = [(said_P * state.decayed(as_of_us, half), PRIOR_HISTORY) for half in HALF_LIVES_DAYS]
    spans.append((said_P * state.session_P, PRIOR_SESSION))
    items = knowledge.items
    codes = tuple(items.codes[kind] for kind in KINDS)
    shares = [knowledge.acted_share[kind] for kind in KINDS]
    columns = [
        _lift(code_I, share_G, state.item_P, weight_P, prior, index_C)
        for weight_P, prior in spans
        for code_I, share_G in zip(codes, shares, strict=True)
    ]
    tastes = [_taste(knowledge, state.item_P, spans[at][0], index_C) for at in (1, 2)]
    gap = _price_gap(knowledge, state.item_P, spans[1][0], index_C)
    return [*columns, gap, *tastes, state.taste.on(items, index_C)]


def _taste(knowledge: Knowledge, item_P: Ints, weight_P: Floats, index_C: Ints) -> Floats:
    """(C,) what the person's weights on content and price say: one ridge step from what everybody does."""
    phi_IE, spread_EE = knowledge.described
    total = float(weight_P.sum())
    if total <= 0:
        return np.zeros(index_C.size)
    ridge_EE = total * spread_EE + SHRINKAGE * np.eye(len(spread_EE))
    return np.asarray(phi_IE[index_C] @ np.linalg.solve(ridge_EE, weight_P @ phi_IE[item_P]), dtype=np.float64)


def _price_gap(knowledge: Knowledge, item_P: Ints, weight_P: Floats, index_C: Ints) -> Floats:
    """(C,) squared distance of the log price to the one that the person usually looks at."""
    price_I = knowledge.statistics.values["log_price"]
    mine = (weight_P @ price_I[item_P] + PRIOR_PRICE * knowledge.usual_price) / (float(weight_P.sum()) + PRIOR_PRICE)
    return np.asarray((price_I[index_C] - mine) ** 2, dtype=np.float64)


def _lift(code_I: Ints, share_G: Floats, item_P: Ints, weight_P: Floats, prior: float, index_C: Ints) -> Floats:
    mine_G = np.bincount(code_I[item_P] + 1, weight_P, share_G.size)
    lift_G = np.log((mine_G / share_G + prior) / (mine_G.sum() + prior))
    lift_G[0] = 0.0
    return np.asarray(lift_G[code_I[index_C] + 1], dtype=np.float64)
