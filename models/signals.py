"""What a user's history says of every item, and which items become candidates; the same lines offline and online.

Choices. Everything that is learned from the log without gradients (relations, item statistics, content space) is one
`Knowledge`, fitted at a cut and refreshed at will; the ranker's weights are fitted on features of earlier cuts
(columns.py).
Shapes: I items, C candidates, P history pairs, E content dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from models.counting import RELATIONS, CountingModel, CountingParams
from models.history import TYPE_WEIGHT, UserState
from models.items import ContentSpace, ItemTable
from models.log import ActionLog
from models.retrieval import Names, RetrievalParams, first_of, ordered, own_items, strongest, unite
from models.sequence import SequenceModel
from models.statistics import ItemStatistics

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

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

    @cached_property
    def liked_orders(self) -> dict[str, Ints]:
        """Where the log has impressions: items by clicks for what was shown, and the same times the price."""
        if "appeal" not in self.statistics.values:
            return {}
        liked_I = np.exp(self.statistics.values["appeal"] + 0.5 * self.statistics.values["appeal_doubt"])
        return {
            "liked": ordered(liked_I),
            "liked and dear": ordered(liked_I * np.expm1(self.statistics.values["log_price"])),
        }

    @cached_property
    def season_I(self) -> Floats:
        """(I,) what a relation counts for in candidates: little of an item that is out of season."""
        return np.asarray(np.sqrt(self.statistics.values["popularity_14d"] + 0.05), dtype=np.float64)

    @cached_property
    def popular_order(self) -> Ints:
        """All items by recent popularity, best first."""
        return ordered(self.statistics.values["popularity_14d"] + 1e-9)

    @cached_property
    def young_order(self) -> Ints:
        """All items by age, youngest first."""
        return ordered(1.0 / (1.0 + self.statistics.values["age"]))

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

    @cached_property
    def described(self) -> tuple[Floats, Floats]:
        """(I, E) content and price of the items around the mean of what people act on, and its (E, E) covariance."""
        log_price_I = self.statistics.values["log_price"]
        share_I = self.acts_I + 0.1
        share_I = share_I / share_I.sum()
        price_I = 0.3 * (log_price_I - log_price_I.mean()) / max(float(log_price_I.std()), 1e-9)
        phi_IE = np.column_stack([self.content_IE, price_I, price_I**2])
        phi_IE = phi_IE - share_I @ phi_IE
        return phi_IE, (phi_IE * share_I[:, None]).T @ phi_IE

    @cached_property
    def acts_I(self) -> Floats:
        """(I,) sessions that acted on an item, ever."""
        return np.asarray(np.expm1(self.statistics.values["popularity_all"]), dtype=np.float64)

    @cached_property
    def acted_share(self) -> dict[str, Floats]:
        """Grouping -> (G,) the shop's share of acts in each code, from code -1 on, never 0."""
        acts = {name: np.bincount(code_I + 1, self.acts_I + 0.1) for name, code_I in self.items.codes.items()}
        return {name: (acts_G + 1.0) / (acts_G + 1.0).sum() for name, acts_G in acts.items()}

    @cached_property
    def usual_price(self) -> float:
        """The mean log price of what people act on."""
        return float(np.average(self.statistics.values["log_price"], weights=self.acts_I + 1e-9))

    def on_sale(self, moment_us: int) -> Bools:
        """(I,) what a shopper could meet at that moment: listed before it, listed nobody knows when (0), or seen."""
        result: Bools = (self.items.listed_at_I < moment_us) | (self.statistics.values["popularity_all"] > 0)
        return result

    def extended(self, items: ItemTable, now_us: int) -> Knowledge:
        """The same with a longer or changed item table."""
        return replace(
            self,
            items=items,
            statistics=self.statistics.extended(items, now_us),
            content_IE=self.content.vectors(items),
        )


@dataclass(frozen=True)
class Share:
    """How much of a history lies in the group of each item: read as `share[index_C]`, 0 where an item has no group."""

    code_I: Ints
    share_G: Floats  # by code; the last stands for "no group" (code -1)

    def __getitem__(self, index_C: Ints) -> Floats:
        """(C,) for these items."""
        return self.share_G[self.code_I[index_C]]


@dataclass(frozen=True)
class Reading:
    """What one history says of every item, computed once a request."""

    relation_I: dict[str, Floats]
    session_I: dict[str, Floats]
    sequence_I: Floats32 | None
    content_I: Floats32
    content_session_I: Floats32
    like_I: dict[str, list[Floats32]]  # modality -> likeness to the history, to the running session
    share_I: dict[str, Share]


def last_session(state: UserState) -> Bools:
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
    visit = last_session(state) & (TYPE_WEIGHT[state.type_P] > 0)
    relation_I["visit"] = counting.relations["together"].scores(state.item_P[visit], np.ones(int(visit.sum())), n_items)
    session_I = {
        name: counting.relations[name].scores(session_items, ones, n_items) if ones.size else np.zeros(n_items)
        for name in SESSION_RELATIONS
    }
    spans = (weight_P, now_P.astype(np.float64))
    content_I, content_session_I = _likenesses(knowledge.content_IE, state.item_P, spans)
    return Reading(
        relation_I,
        session_I,
        knowledge.sequence.scores(state, n_items) if knowledge.sequence is not None else None,
        content_I,
        content_session_I,
        {name: _likenesses(vector_IE, state.item_P, spans) for name, vector_IE in knowledge.items.vectors.items()},
        _shares(knowledge.items, state, weight_P),
    )


def _likenesses(vector_IE: Floats32, item_P: Ints, weights: Sequence[Floats]) -> list[Floats32]:
    """For each weighting of the history, (I,) cosine of each item with the history's weighted mean."""
    means_WE = np.stack([weight_P @ vector_IE[item_P] for weight_P in weights])
    norm_W = np.linalg.norm(means_WE, axis=1)
    some_W = np.flatnonzero(norm_W >= 1e-9)
    # Together, because at 100,000 items reading the vectors is what it costs.
    found_IW = vector_IE @ (means_WE[some_W] / norm_W[some_W, None]).astype(np.float32).T
    nothing_I = np.zeros(len(vector_IE), dtype=np.float32)
    told = {int(w): np.ascontiguousarray(found_IW[:, at]) for at, w in enumerate(some_W)}
    return [told.get(w, nothing_I) for w in range(len(weights))]


def _shares(items: ItemTable, state: UserState, weight_P: Floats) -> dict[str, Share]:
    """Share of the history (and of the running session) in each category, top category and brand."""
    session = state.session_P.astype(np.float64)
    shares: dict[str, Share] = {}
    for name, code_I in items.codes.items():
        codes = code_I[state.item_P]
        known = codes >= 0
        for suffix, weight in (("", weight_P), ("_session", session)):
            share_G = np.zeros(items.groups[name] + 1)
            total = float(weight.sum())
            if total > 0:
                share_G[:-1] = np.bincount(codes[known], weights=weight[known], minlength=share_G.size - 1) / total
            shares[name + suffix] = Share(code_I, share_G)
    return shares


def candidates(
    state: UserState,
    reading: Reading,
    knowledge: Knowledge,
    eligible_I: Bools,
    params: RetrievalParams,
    also: Mapping[str, Ints] | None = None,
) -> tuple[Ints, Names]:
    """(C,) candidate items in ascending order and the source of each; `also` adds sources that know of other things."""
    season_I = knowledge.season_I
    sources = {"own": own_items(state, params.own, eligible_I)}
    for name in RELATIONS:
        sources[name] = strongest(reading.relation_I[name], params.relation, eligible_I, season_I)
    if reading.sequence_I is not None and not state.is_stranger:
        score_I = reading.sequence_I - reading.sequence_I.min() + 1e-6
        sources["sequence"] = strongest(score_I, params.sequence, eligible_I)
    sources["content"] = strongest(reading.content_I, params.content, eligible_I)
    sources["session_content"] = strongest(reading.content_session_I, params.content, eligible_I)
    for name, (history_I, _) in reading.like_I.items():
        sources[f"like:{name}"] = strongest(history_I, params.content, eligible_I)  # a modality may be called "own"
    often, now = reading.share_I["category"], reading.share_I["category_session"]
    category_I = (4 * now.share_G + often.share_G)[often.code_I]
    sources["category"] = strongest(category_I, params.category, eligible_I, season_I + 0.1)
    sources["popular"] = first_of(knowledge.popular_order, params.popular, eligible_I)
    for name, order in knowledge.liked_orders.items():
        sources[name] = first_of(order, params.liked, eligible_I)
    sources["new"] = first_of(knowledge.young_order, params.new, eligible_I)
    return unite({**sources, **(also or {})})
