"""The live signals that order a page beside the model's own score, and what they are before anybody clicked.

Choices. A dozen signals with a plain meaning, so that a few hundred clicked pages can weigh them (models/choice.py) and
an explanation can name them. The prior weights are what any shop would sign: what this visit is about counts most,
then what the person is about, then what earns clicks for its places. A trained model has seen the same things, so they
start small beside its score; where it was not trained on visits at all, or there is none, they start whole.
What nobody knows yet is found out by posterior sampling: each item's liking is shown with a draw of its doubt that
moves with the events, so that a doubtful item with a good chance gets a hearing. The draw is part of the state, so a
slot's propensity stays that of the page's own draw.
Source: Thompson (1933). Shapes: I items of the catalogue, J items that live counts know, C candidates, F signals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt

from models.choice import Choices
from models.columns import feature_names
from models.history import PURCHASE, TYPE_WEIGHT, UserState
from models.homepage import HomepageModel
from models.items import ItemTable
from models.live import ALL, SERIES, LiveCounts
from models.retrieval import first_of, ordered, strongest
from models.signals import Reading

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# name -> (weight without a model that knows visits, beside one, beside one that learned from pages and their clicks)
SIGNALS: Mapping[str, tuple[float, float, float]] = {
    "model": (1.0, 1.0, 1.0),
    "visit_category": (1.6, 0.3, 0.0),
    "visit_top_category": (0.6, 0.1, 0.0),
    "visit_brand": (0.5, 0.1, 0.0),
    "visit_content": (0.6, 0.1, 0.0),
    "visit_neighbours": (0.8, 0.3, 0.1),
    "category": (0.8, 0.1, 0.0),
    "brand": (0.4, 0.1, 0.0),
    "content": (0.4, 0.0, 0.0),
    "neighbours": (0.6, 0.2, 0.1),
    "popular": (0.25, 0.05, 0.0),
    "rate": (0.8, 0.5, 0.3),
    "new": (0.6, 0.5, 0.2),
    "untried": (0.2, 0.05, 0.05),
    "doubt": (0.0, 0.0, 0.3),
    "touched_in_visit": (-0.4, 0.0, -0.6),
    "bought": (0.2, 0.0, 0.0),
    "passed_in_visit": (-0.3, -0.3, -0.3),
    "price": (0.0, 0.0, 0.0),
}
NAMES = tuple(SIGNALS)
BONUS_F = np.array(
    [name in ("new", "untried", "doubt") for name in NAMES]
)  # a chance given, not a taste: clicks never lower it
MODEL_F = np.array([name == "model" for name in NAMES])
DOUBT_F = np.array([name == "doubt" for name in NAMES])
# Fitted, so that a model of value is not blamed for prices that are clicked less, and not used to rank.
ASIDE_F = np.array([name == "price" for name in NAMES])
LEAST_MODEL = 0.6  # what the gate let pass is corrected by clicks on its own pages, never silenced by them
POPULAR_DAYS = 1.0  # half-life of what is popular now
NEW_SHARE = 0.85  # an item is new if it was listed after this share of the catalogue, by more than NEW_GAP_US
NEW_GAP_US = 60_000_000
FEW = 0.3  # expected clicks after which a new item has had its chance
NEAR_ITEMS = 20  # newest items of a history whose live neighbours are read
TURN = 50  # events after which chances are drawn anew
SOURCE = 60  # candidates of each live source


def prior(model: HomepageModel) -> list[float]:
    """(F,) weights before anybody clicked, for this model."""
    column = 2 if knows_clicks(model) else int(_uses(model, "acted_in_session"))
    return [weights[column] for weights in SIGNALS.values()]


def knows_clicks(model: HomepageModel) -> bool:
    """Whether the model's ranker learned from pages and what was clicked on them."""
    return _uses(model, "appeal")


def _uses(model: HomepageModel, feature: str) -> bool:
    names, scale_F = feature_names(model.knowledge), model.ranker.scale_F
    return feature in names and len(scale_F) == len(names) and bool(scale_F[names.index(feature)] > 0)


@dataclass(frozen=True)
class Learned:
    """What was learned online, on the numbers of one catalogue; immutable but for the counts behind `neighbours`."""

    counts: LiveCounts
    weights_F: Floats
    code_I: Ints  # an item's place in the counts, -1 where no event named it
    item_J: Ints  # and back, -1 where the catalogue lacks it
    popular_I: Floats
    rate_I: Floats
    untried_I: Floats
    chance_I: Floats  # how much of its first chance a new item has left, 0..1
    modules: Mapping[str, float]
    items: ItemTable

    @classmethod
    def of(cls, counts: LiveCounts, choices: Choices, items: ItemTable, before: Learned | None = None) -> Learned:
        """Read the counts for this catalogue; `before` spares looking up what it knows already."""
        same = before is not None and before.items is items and before.counts is counts
        known = before.item_J if before is not None and same else np.zeros(0, dtype=np.int64)
        more = islice(list(counts.codes), known.size, None)
        item_J = np.concatenate([known, np.array([items.index.get(one, -1) for one in more], dtype=np.int64)])
        size, known_J = item_J.size, item_J >= 0
        code_I = np.full(len(items), -1, dtype=np.int64)
        code_I[item_J[known_J]] = np.flatnonzero(known_J)
        least_F = np.where(BONUS_F, choices.prior_F[:-1], np.where(MODEL_F, LEAST_MODEL, -np.inf))
        weights_F = np.where(ASIDE_F, 0.0, np.maximum(choices.weights_F, least_F))
        # A doubt is one about the model's score, so it counts as much as that.
        weights_F[DOUBT_F] = choices.prior_F[:-1][DOUBT_F] * weights_F[MODEL_F]
        clicks_J, expected_J = (values[:size] for values in counts.earned())
        prior_clicks = counts.params.click_prior
        expected_I = on_items(counts.shown()[:size], item_J, len(items))
        return cls(
            counts,
            weights_F,
            code_I,
            item_J,
            np.log1p(on_items(counts.sums(ALL, POPULAR_DAYS)[:size], item_J, len(items))),
            on_items(np.log((clicks_J + prior_clicks) / (expected_J + prior_clicks)), item_J, len(items)),
            1.0 / np.sqrt(1.0 + expected_I / FEW),
            np.exp(-expected_I / FEW),
            counts.modules(),
            items,
        )

    @cached_property
    def popular_order(self) -> Ints:
        """Items that are popular now, best first."""
        return ordered(self.popular_I)

    @cached_property
    def rate_order(self) -> Ints:
        """Items that earn more clicks than their places would, best first."""
        return ordered(self.rate_I)

    @cached_property
    def untried_order(self) -> Ints:
        """Items that were shown little, in a shuffle that moves with the events, so that they take turns."""
        rng = np.random.default_rng(self.counts.events // TURN)
        return ordered(self.untried_I * rng.random(self.code_I.size))

    @cached_property
    def draw_I(self) -> Floats:
        """(I,) what a doubt is multiplied with, normal, drawn anew as events come; 0 before anybody came."""
        if not self.counts.events:
            return np.zeros(self.code_I.size)
        return np.random.default_rng([1, self.counts.events // TURN]).standard_normal(self.code_I.size)

    def neighbours(self, state: UserState, visit_only: bool) -> Floats:
        """(I,) how much live sessions say that an item goes with this history (or this visit)."""
        keep_P = (TYPE_WEIGHT[state.type_P] > 0) & (state.session_P | (not visit_only))
        newest = list(dict.fromkeys(state.item_P[keep_P][::-1].tolist()))[:NEAR_ITEMS]
        codes = [int(self.code_I[item]) for item in newest if self.code_I[item] >= 0]
        found_N, weight_N = self.counts.neighbours(codes, [0.9**place for place in range(len(codes))])
        inside = found_N < self.item_J.size
        result_I = np.zeros(self.code_I.size)
        places = self.item_J[found_N[inside]]
        result_I[places[places >= 0]] = weight_N[inside][places >= 0]
        return result_I


def on_items(value_J: Floats, item_J: Ints, size: int) -> Floats:
    """(J,) by the counts' places -> (I,) by the catalogue's, 0 where no event named the item."""
    value_I = np.zeros(size)
    known_J = item_J >= 0
    value_I[item_J[known_J]] = value_J[known_J]
    return value_I


def live_sums(counts: LiveCounts, item_J: Ints, size: int) -> dict[tuple[str, float], Floats]:
    """Each series of the counts on the catalogue's numbers, for `ItemStatistics.moved`."""
    return {(k, h): on_items(counts.sums(k, h)[: item_J.size], item_J, size) for k, h in SERIES}


def new_after(items: ItemTable) -> int:
    """Items listed after this moment (microseconds) are newer than the bulk of the catalogue."""
    listed_I = items.listed_at_I[items.listed_at_I > 0]
    return int(np.quantile(listed_I, NEW_SHARE)) + NEW_GAP_US if listed_I.size else 2**62


def sources(learned: Learned, near_I: Floats, eligible_I: Bools, new_I: Bools) -> dict[str, Ints]:
    """Candidates that only live counts can name; `near_I` are the live neighbours of the history."""
    return {
        "live_neighbours": strongest(near_I, SOURCE, eligible_I),
        "live_popular": first_of(learned.popular_order, SOURCE, eligible_I),
        "live_rate": first_of(learned.rate_order, SOURCE, eligible_I),
        "live_new": strongest(learned.chance_I * new_I, SOURCE // 3, eligible_I),
        "untried": first_of(learned.untried_order, SOURCE // 3, eligible_I),
    }


def signals(
    learned: Learned,
    state: UserState,
    reading: Reading,
    near_I: Floats,
    new_I: Bools,
    index_C: Ints,
    model_C: Floats,
    doubt_I: Floats | None = None,
    passed: Ints | None = None,
) -> Floats:
    """(C, F) in the order of NAMES; `near_I` are the live neighbours of the history, `doubt_I` the model's doubts.

    `passed` are items that this visit was shown already: what was passed over once is passed over again.
    """
    items = learned.items
    visit_I = near_I if state.session_P.all() else learned.neighbours(state, True)
    touched_I = items.marked(state.item_P[state.session_P])
    bought_I = items.marked(state.item_P[state.type_P == PURCHASE])
    passed_I = np.zeros(len(items), dtype=np.bool_) if passed is None else items.marked(passed) & ~touched_I
    share_I = reading.share_I
    columns: dict[str, npt.NDArray[np.float64 | np.float32 | np.bool_]] = {
        "model": model_C,
        "visit_category": share_I["category_session"][index_C],
        "visit_top_category": share_I["top_category_session"][index_C],
        "visit_brand": share_I["brand_session"][index_C],
        "visit_content": reading.content_session_I[index_C],
        "visit_neighbours": _relative(visit_I, index_C),
        "category": share_I["category"][index_C],
        "brand": share_I["brand"][index_C],
        "content": reading.content_I[index_C],
        "neighbours": _relative(near_I, index_C),
        "popular": learned.popular_I[index_C],
        "rate": learned.rate_I[index_C],
        "new": learned.chance_I[index_C] * new_I[index_C],
        "untried": learned.untried_I[index_C],
        "doubt": np.zeros(index_C.size) if doubt_I is None else doubt_I[index_C] * learned.draw_I[index_C],
        "touched_in_visit": touched_I[index_C],
        "bought": bought_I[index_C],
        "passed_in_visit": passed_I[index_C],
        "price": 2.0 * np.log1p(np.nan_to_num(items.price_I[index_C])),
    }
    signal_CF = np.ascontiguousarray(np.array([columns[name] for name in NAMES], dtype=np.float64).T)
    return signal_CF if np.isfinite(signal_CF).all() else np.nan_to_num(signal_CF, posinf=50.0, neginf=-50.0)


def _relative(score_I: Floats, index_C: Ints) -> Floats:
    best = float(score_I.max(initial=0.0))
    return score_I[index_C] / best if best > 1e-9 else np.zeros(index_C.size)
