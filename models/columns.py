"""The ranker's features: one named column for each thing that a history says of a candidate.

Choices. A feature is log-scaled where it is a count or an age. Relation scores come twice: raw, and relative to the
best of this user, because both their size and their order say something.
Shapes: I items, C candidates, P history pairs, F features.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.counting import RELATIONS
from models.history import DAY_US, PURCHASE, TYPE_CODE, TYPE_WEIGHT, UserState
from models.lift import LIFTS, lifts
from models.signals import SESSION_RELATIONS, Knowledge, Reading, last_session
from models.statistics import LONG_AGO_DAYS

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CART = TYPE_CODE["add_to_cart"]

BOUGHT = (
    "bought_times",
    "bought_14d",
    "bought_45d",
    "bought_120d",
    "bought_quantity",
    "bought_days_ago",
    "bought_first_days_ago",
    "bought_share_of_sessions",
    "bought_due",
    "bought_last_visit",
)
ACTED = ("acted_1d", "acted_7d", "acted_45d", "acted_days_ago", "acted_in_session", "cart_open")
RELATED_NAMES = (*RELATIONS, "visit")
RELATED = (
    *RELATED_NAMES,
    *(f"{name}_relative" for name in RELATED_NAMES),
    *(f"session_{name}" for name in SESSION_RELATIONS),
    "sequence",
    "sequence_relative",
    "content",
    "content_session",
)
SHARES = ("category", "category_session", "top_category", "top_category_session", "brand", "brand_session")
PERSON = (
    "user_sessions",
    "user_days_ago",
    "user_items_a_session",
    "user_items",
    "user_repeats",
    "user_days_between",
    "price_difference",
    "session_items",
)

# What follows from what pages showed, or is the same for a whole page: no wish, where a log has impressions.
SHOWN_MORE = ("popularity_", "purchases_", "guests_", "trend_", "idle", "user_", "session_items", "appeal_doubt")


def feature_names(knowledge: Knowledge) -> tuple[str, ...]:
    """The names of the F columns."""
    lifted = LIFTS if "appeal" in knowledge.statistics.values else ()
    like = (f"{part}:{name}" for name in knowledge.items.vectors for part in ("like", "like_session"))
    return (*BOUGHT, *ACTED, *RELATED, *SHARES, *PERSON, *like, *lifted, *knowledge.statistics.values)


def features(state: UserState, reading: Reading, knowledge: Knowledge, as_of_us: int, index_C: Ints) -> Floats32:
    """(C, F) features of the candidates, in the order of `FEATURES`; all finite."""
    place_P = knowledge.items.places(index_C)[state.item_P]
    columns = [
        *_bought(state, as_of_us, place_P, index_C.size),
        *_acted(state, as_of_us, place_P, index_C.size),
        *_related(reading, index_C),
        *(reading.share_I[name][index_C] for name in SHARES),
        *_person(state, knowledge, as_of_us, index_C),
        *(like_I[index_C] for both in reading.like_I.values() for like_I in both),
        *(lifts(state, knowledge, as_of_us, index_C) if "appeal" in knowledge.statistics.values else ()),
    ]
    own_FC = np.array(columns, dtype=np.float32)
    x_CF: Floats32 = np.concatenate([own_FC.T, knowledge.statistics.table_IS[index_C]], axis=1)
    if not np.isfinite(x_CF).all():
        x_CF = np.nan_to_num(x_CF, posinf=50.0, neginf=-50.0)
    return x_CF


class _Pairs:
    """The history pairs of some types that fall on a candidate; `place_P` is which one, -1 for none."""

    def __init__(self, keep_P: Bools, place_P: Ints, size: int) -> None:
        self.rows = np.flatnonzero(keep_P & (place_P >= 0))
        self.at, self.size = place_P[self.rows], size

    def sum(self, value_P: Floats) -> Floats:
        """(C,) sum over the pairs of a candidate."""
        return np.bincount(self.at, weights=value_P[self.rows], minlength=self.size).astype(np.float64)

    def best(self, value_P: Floats, missing: float) -> Floats:
        """(C,) smallest value over the pairs of a candidate."""
        found = np.full(self.size, missing)
        np.minimum.at(found, self.at, value_P[self.rows])
        return found


def _bought(state: UserState, as_of_us: int, place_P: Ints, size: int) -> list[Floats]:
    pairs = _Pairs(state.type_P == PURCHASE, place_P, size)
    times = pairs.sum(state.count_P)
    ago = np.clip((as_of_us - state.last_us_P) / DAY_US, 0.0, LONG_AGO_DAYS)
    first = np.clip((as_of_us - state.first_us_P) / DAY_US, 0.0, LONG_AGO_DAYS)
    days, first_days = pairs.best(ago, LONG_AGO_DAYS), pairs.best(first, LONG_AGO_DAYS)
    gap = np.where(times > 1, (first_days - days) / np.maximum(times - 1, 1), LONG_AGO_DAYS / 2)
    return [
        np.log1p(times),
        *(pairs.sum(state.decayed(as_of_us, half)) for half in (14.0, 45.0, 120.0)),
        np.log1p(np.maximum(pairs.sum(state.quantity_P), 0)),
        np.log1p(days),
        np.log1p(first_days),
        times / max(state.n_sessions, 1.0),
        np.log1p(days / (gap + 1.0)),
        np.minimum(pairs.sum(last_session(state).astype(np.float64)), 1.0),
    ]


def _acted(state: UserState, as_of_us: int, place_P: Ints, size: int) -> list[Floats]:
    light = (TYPE_WEIGHT[state.type_P] > 0) & (state.type_P != PURCHASE)
    pairs = _Pairs(light, place_P, size)
    carts = _Pairs(state.type_P == CART, place_P, size)
    bought = _Pairs(state.type_P == PURCHASE, place_P, size)
    ago = np.clip((as_of_us - state.last_us_P) / DAY_US, 0.0, LONG_AGO_DAYS)
    open_cart = carts.best(ago, LONG_AGO_DAYS) < bought.best(ago, LONG_AGO_DAYS)
    weight = TYPE_WEIGHT[state.type_P]
    return [
        *(np.log1p(pairs.sum(weight * state.decayed(as_of_us, half))) for half in (1.0, 7.0, 45.0)),
        np.log1p(pairs.best(ago, LONG_AGO_DAYS)),
        np.minimum(pairs.sum(state.session_P.astype(np.float64)), 3.0),
        open_cart.astype(np.float64),
    ]


def _relative(score_I: npt.NDArray[np.floating], index_C: Ints) -> Floats:
    best = float(score_I.max()) if score_I.size else 0.0
    return score_I[index_C].astype(np.float64) / best if best > 1e-9 else np.zeros(index_C.size)


def _related(reading: Reading, index_C: Ints) -> list[Floats]:
    sequence: list[Floats] = [np.zeros(index_C.size), np.zeros(index_C.size)]
    if reading.sequence_I is not None:
        score = reading.sequence_I.astype(np.float64)
        spread = float(score.std()) + 1e-6
        sequence = [score[index_C], (score[index_C] - float(score.mean())) / spread]
    return [
        *(np.log1p(reading.relation_I[name][index_C]) for name in RELATED_NAMES),
        *(_relative(reading.relation_I[name], index_C) for name in RELATED_NAMES),
        *(np.log1p(reading.session_I[name][index_C]) for name in SESSION_RELATIONS),
        *sequence,
        reading.content_I[index_C],
        reading.content_session_I[index_C],
    ]


def _person(state: UserState, knowledge: Knowledge, as_of_us: int, index_C: Ints) -> list[Floats]:
    own = TYPE_WEIGHT[state.type_P] > 0
    distinct = float(np.unique(state.item_P[own]).size)
    sessions = max(state.n_sessions, 1.0)
    ago = min(max(as_of_us - state.last_us, 0) / DAY_US, LONG_AGO_DAYS) if own.any() else LONG_AGO_DAYS
    again = float((state.count_P[own] > 1).mean()) if own.any() else 0.0
    span = max(state.last_us - state.first_us, 0) / DAY_US
    price_I = knowledge.statistics.values["log_price"]
    weight = TYPE_WEIGHT[state.type_P[own]]
    usual = float(np.average(price_I[state.item_P[own]], weights=weight)) if own.any() else float(price_I.mean())
    person = (
        np.log1p(state.n_sessions),
        np.log1p(ago),
        np.log1p(state.count_P[own].sum() / sessions),
        np.log1p(distinct),
        again,
        np.log1p(span / sessions),
    )
    session_items = np.log1p(float(np.unique(state.item_P[state.session_P]).size))
    return [
        *(np.full(index_C.size, value) for value in person),
        price_I[index_C] - usual,
        np.full(index_C.size, session_items),
    ]
