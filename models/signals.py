"""From a user's history and candidates to the ranker's features; the same lines offline and online.

Choices. Everything that is learned from the log without gradients (relations, item statistics, content space) is one
`Knowledge`, fitted at a cut and refreshed at will; the ranker's weights are fitted on features of earlier cuts. A
feature is log-scaled where it is a count or an age. Relation scores come twice: raw, and relative to the best of this
user, because both their size and their order say something.
Shapes: I items, C candidates, P history pairs, F features, E content dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.counting import RELATIONS, CountingModel, CountingParams
from models.history import DAY_US, PURCHASE, TYPE_CODE, TYPE_WEIGHT, UserState
from models.items import ContentSpace, ItemTable
from models.log import ActionLog
from models.retrieval import RetrievalParams, own_items, strongest, unite
from models.sequence import SequenceModel
from models.statistics import LONG_AGO_DAYS, ItemStatistics

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CART = TYPE_CODE["add_to_cart"]
SESSION_RELATIONS = ("together", "next")
LAST_SESSION_US = 1_800_000_000


@dataclass(frozen=True)
class Knowledge:
    """What was read from the log up to a cut; `sequence` may have been trained earlier."""

    items: ItemTable
    counting: CountingModel
    statistics: ItemStatistics
    content: ContentSpace
    content_IE: Floats32
    sequence: SequenceModel | None

    @classmethod
    def fit(
        cls,
        log: ActionLog,
        items: ItemTable,
        cut_us: int,
        sequence: SequenceModel | None = None,
        params: CountingParams | None = None,
    ) -> Knowledge:
        """Count and aggregate over the rows before the cut."""
        content = ContentSpace.fit(items)
        return cls(
            items,
            CountingModel.fit(log, cut_us, params),
            ItemStatistics.fit(log, items, cut_us),
            content,
            content.vectors(items),
            sequence,
        )

    def extended(self, items: ItemTable, now_us: int) -> Knowledge:
        """The same with a longer or changed item table."""
        return replace(
            self,
            items=items,
            statistics=self.statistics.extended(items, now_us),
            content_IE=self.content.vectors(items),
        )


@dataclass(frozen=True)
class Reading:
    """What one history says of every item, computed once a request."""

    relation_I: dict[str, Floats]
    session_I: dict[str, Floats]
    sequence_I: Floats32 | None
    content_I: Floats
    content_session_I: Floats
    share_I: dict[str, Floats]


def _last_session(state: UserState) -> Bools:
    """(P,) the pairs of the newest visit: the running one where there is one."""
    if state.session_P.any():
        return state.session_P
    result: Bools = state.last_us_P >= state.last_us - LAST_SESSION_US
    return result


def read(state: UserState, knowledge: Knowledge, as_of_us: int) -> Reading:
    """Everything about the history that does not depend on which candidates are asked for."""
    n_items = len(knowledge.items)
    counting = knowledge.counting
    weight_P = state.decayed(as_of_us, 30.0) * TYPE_WEIGHT[state.type_P]
    now_P = state.session_P
    ones = np.ones(int(now_P.sum()))
    session_items = state.item_P[now_P]
    relation_I = counting.scores(state, as_of_us, n_items)
    visit = _last_session(state) & (TYPE_WEIGHT[state.type_P] > 0)
    relation_I["visit"] = counting.relations["together"].scores(state.item_P[visit], np.ones(int(visit.sum())), n_items)
    session_I = {
        name: counting.relations[name].scores(session_items, ones, n_items) if ones.size else np.zeros(n_items)
        for name in SESSION_RELATIONS
    }
    return Reading(
        relation_I,
        session_I,
        knowledge.sequence.scores(state, n_items) if knowledge.sequence is not None else None,
        _content(knowledge, state.item_P, weight_P),
        _content(knowledge, session_items, ones),
        _shares(knowledge.items, state, weight_P),
    )


def _content(knowledge: Knowledge, item_P: Ints, weight_P: Floats) -> Floats:
    """(I,) cosine of each item with the weighted mean of the history."""
    mean_E = weight_P @ knowledge.content_IE[item_P] if item_P.size else np.zeros(knowledge.content_IE.shape[1])
    norm = float(np.linalg.norm(mean_E))
    if norm < 1e-9:
        return np.zeros(len(knowledge.items))
    return (knowledge.content_IE @ (mean_E / norm).astype(np.float32)).astype(np.float64)


def _shares(items: ItemTable, state: UserState, weight_P: Floats) -> dict[str, Floats]:
    """Share of the history (and of the running session) that lies in each item's category, top category and brand."""
    session = state.session_P.astype(np.float64)
    kinds = {
        "category": items.category_codes_I,
        "top_category": items.top_category_codes_I,
        "brand": items.brand_codes_I,
    }
    shares: dict[str, Floats] = {}
    for name, code_I in kinds.items():
        for suffix, weight in (("", weight_P), ("_session", session)):
            codes = code_I[state.item_P]
            known = codes >= 0
            total = float(weight.sum())
            if total <= 0 or not known.any():
                shares[name + suffix] = np.zeros(len(items))
                continue
            by_code = np.bincount(codes[known], weights=weight[known], minlength=int(code_I.max()) + 1) / total
            shares[name + suffix] = np.where(code_I >= 0, by_code[code_I], 0.0)
    return shares


def candidates(
    state: UserState, reading: Reading, knowledge: Knowledge, eligible_I: Bools, params: RetrievalParams
) -> tuple[Ints, tuple[str, ...]]:
    """(C,) candidate items in ascending order and the source of each."""
    popular_I = knowledge.statistics.values["popularity_14d"]
    season_I = np.sqrt(popular_I + 0.05)
    sources = {"own": own_items(state, params.own, eligible_I)}
    for name in RELATIONS:
        sources[name] = strongest(reading.relation_I[name] * season_I, params.relation, eligible_I)
    if reading.sequence_I is not None and not state.is_stranger:
        score_I = reading.sequence_I - reading.sequence_I.min() + 1e-6
        sources["sequence"] = strongest(score_I, params.sequence, eligible_I)
    sources["content"] = strongest(reading.content_I, params.content, eligible_I)
    sources["session_content"] = strongest(reading.content_session_I, params.content, eligible_I)
    category_I = reading.share_I["category_session"] * 4 + reading.share_I["category"]
    sources["category"] = strongest(category_I * (season_I + 0.1), params.category, eligible_I)
    sources["popular"] = strongest(popular_I + 1e-9, params.popular, eligible_I)
    young_I = 1.0 / (1.0 + knowledge.statistics.values["age"])
    sources["new"] = strongest(young_I, params.new, eligible_I)
    return unite(sources)


def features(state: UserState, reading: Reading, knowledge: Knowledge, as_of_us: int, index_C: Ints) -> Floats32:
    """(C, F) features of the candidates, in the order of `FEATURES`; all finite."""
    columns = [
        *_bought(state, as_of_us, index_C, len(knowledge.items)),
        *_acted(state, as_of_us, index_C, len(knowledge.items)),
        *_related(reading, index_C),
        *(reading.share_I[name][index_C] for name in SHARES),
        *_person(state, knowledge, as_of_us, index_C),
        *(knowledge.statistics.values[name][index_C] for name in knowledge.statistics.values),
    ]
    return np.nan_to_num(np.stack(columns, axis=1), posinf=50.0, neginf=-50.0).astype(np.float32)


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


class _Pairs:
    """The history pairs of some types that fall on a candidate."""

    def __init__(self, state: UserState, keep_P: Bools, index_C: Ints, n_items: int) -> None:
        place_I = np.full(n_items, -1, dtype=np.int64)
        place_I[index_C] = np.arange(index_C.size)
        at = place_I[state.item_P]
        self.rows = np.flatnonzero(keep_P & (at >= 0))
        self.at = at[self.rows]
        self.size = index_C.size

    def sum(self, value_P: Floats) -> Floats:
        """(C,) sum over the pairs of a candidate."""
        result: Floats = np.bincount(self.at, weights=value_P[self.rows], minlength=self.size)
        return result

    def best(self, value_P: Floats, missing: float) -> Floats:
        """(C,) smallest value over the pairs of a candidate."""
        found = np.full(self.size, missing)
        np.minimum.at(found, self.at, value_P[self.rows])
        return found


def _bought(state: UserState, as_of_us: int, index_C: Ints, n_items: int) -> list[Floats]:
    pairs = _Pairs(state, state.type_P == PURCHASE, index_C, n_items)
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
        np.minimum(pairs.sum(_last_session(state).astype(np.float64)), 1.0),
    ]


def _acted(state: UserState, as_of_us: int, index_C: Ints, n_items: int) -> list[Floats]:
    light = (TYPE_WEIGHT[state.type_P] > 0) & (state.type_P != PURCHASE)
    pairs = _Pairs(state, light, index_C, n_items)
    carts = _Pairs(state, state.type_P == CART, index_C, n_items)
    bought = _Pairs(state, state.type_P == PURCHASE, index_C, n_items)
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
    result: Floats = score_I[index_C] / best if best > 1e-9 else np.zeros(index_C.size)
    return result


def _related(reading: Reading, index_C: Ints) -> list[Floats]:
    sequence = [np.zeros(index_C.size), np.zeros(index_C.size)]
    if reading.sequence_I is not None:
        score = reading.sequence_I
        spread = float(score.std()) + 1e-6
        sequence = [score[index_C].astype(np.float64), (score[index_C] - float(score.mean())) / spread]
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


def feature_names(knowledge: Knowledge) -> tuple[str, ...]:
    """The names of the F columns."""
    return (*BOUGHT, *ACTED, *RELATED, *SHARES, *PERSON, *knowledge.statistics.values)
