"""Judging on a slice that nobody has learned from: every model's list for the same users, value by value.

Choices. All items that were listed by the cut are eligible, own items included, because many shops live from buying
again; "new items" are scored apart, with own items left out of lists and targets. Segments are made from what is known
before the slice, never from the outcome.
Shapes: N users, K places, I items, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.calibration import Calibration, calibration_bins, expected_calibration_error
from models.columns import features
from models.examples import NOBODY, States, Visit, first_visits, next_visits
from models.history import UserState
from models.homepage import HomepageModel
from models.log import ActionLog
from models.metrics import METRICS, NO_ITEM, Lists, coverage, gini, ndcg
from models.retrieval import strongest
from models.signals import candidates, read
from models.yardsticks import YARDSTICKS

if TYPE_CHECKING:
    import lightgbm

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

PLACES = 10
CALIBRATION_ROWS = 100
MOST_STRANGERS = 2000
Top = Callable[[UserState, int], Ints]  # (state, as of) -> items, best first


@dataclass(frozen=True)
class Slice:
    """N users of a slice: their state at its cut and what they then did."""

    users: tuple[int, ...]
    states: tuple[UserState, ...]
    visits: tuple[Visit, ...]
    cut_us: int

    @classmethod
    def of(cls, log: ActionLog, cut_us: int, end_us: int, states: States, max_users: int | None = None) -> Slice:
        """Users with a history before the cut and a visit after it."""
        visits = next_visits(log, cut_us, end_us)
        users = sorted(visits)
        if max_users is not None and len(users) > max_users:
            users = sorted(np.random.default_rng(1).choice(users, max_users, replace=False).tolist())
        known = states(cut_us, users)
        users = [user for user in users if user in known]
        return cls(tuple(users), tuple(known[user] for user in users), tuple(visits[user] for user in users), cut_us)

    @classmethod
    def of_strangers(cls, log: ActionLog, cut_us: int, end_us: int, most: int = MOST_STRANGERS) -> Slice:
        """Those of whom nothing was known before the cut, the soonest to come, and their first visits."""
        visits = first_visits(log, cut_us, end_us, most)
        return cls(tuple(visits), (NOBODY,) * len(visits), tuple(visits.values()), cut_us)


@dataclass(frozen=True)
class Judged:
    """Model name -> metric name -> (N,) values, and what else the gate asks about the challenger."""

    values: dict[str, dict[str, Floats]]
    lists_NK: dict[str, Ints]
    coverage: dict[str, float]
    gini: dict[str, float]
    calibration: list[dict[str, float]]
    calibration_error: float
    score_spread: float
    n_new: int  # users who took at least one new item


def lists_of(slice_: Slice, top: Top) -> tuple[Ints, Ints]:
    """(N, K) top items of all, and of the items that are new to the user."""
    all_NK = np.full((len(slice_.users), PLACES), NO_ITEM, dtype=np.int64)
    new_NK = all_NK.copy()
    for_strangers: Ints | None = None  # all of them get the same
    for at, state in enumerate(slice_.states):
        ranked = for_strangers if state is NOBODY and for_strangers is not None else top(state, slice_.cut_us)
        for_strangers = ranked if state is NOBODY else for_strangers
        fresh = ranked[~np.isin(ranked, state.item_P)]
        all_NK[at, : min(PLACES, ranked.size)] = ranked[:PLACES]
        new_NK[at, : min(PLACES, fresh.size)] = fresh[:PLACES]
    return all_NK, new_NK


def values_of(slice_: Slice, all_NK: Ints, new_NK: Ints) -> dict[str, Floats]:
    """Metric -> (N,); `new_ndcg@10` is nan for users who took nothing new."""
    lists = Lists(all_NK, [visit.items for visit in slice_.visits])
    values = {name: metric(lists) for name, metric in METRICS.items()}
    wanted_new = [
        np.setdiff1d(visit.items, state.item_P) for visit, state in zip(slice_.visits, slice_.states, strict=True)
    ]
    has_new = np.array([wanted.size > 0 for wanted in wanted_new], dtype=bool)
    new_lists = Lists(new_NK, wanted_new)
    values["new_ndcg@10"] = np.where(has_new, ndcg(new_lists, PLACES), np.nan)
    return values


def tops(model: HomepageModel, trees: lightgbm.Booster | None) -> dict[str, Top]:
    """Everything that is judged: the model as "challenger", the yardsticks, and the trees on the same features."""
    knowledge = model.knowledge
    depth = PLACES + 300

    def of_yardstick(name: str) -> Top:
        scorer = YARDSTICKS[name]
        return lambda state, as_of: strongest(scorer(state, knowledge, as_of) + 1e-12, depth, knowledge.on_sale(as_of))

    named: dict[str, Top] = {
        "challenger": lambda state, as_of: model.rank(state, as_of, knowledge.on_sale(as_of), depth).index_C
    }
    named |= {name: of_yardstick(name) for name in YARDSTICKS}
    if trees is not None:
        named["lightgbm"] = lambda state, as_of: _by_trees(model, trees, state, as_of)
    return named


def _by_trees(model: HomepageModel, trees: lightgbm.Booster, state: UserState, as_of_us: int) -> Ints:
    reading = read(state, model.knowledge, as_of_us)
    on_sale_I = model.knowledge.on_sale(as_of_us)
    index_C, _ = candidates(state, reading, model.knowledge, on_sale_I, model.retrieval)
    score_C = np.asarray(trees.predict(features(state, reading, model.knowledge, as_of_us, index_C), num_threads=1))
    return index_C[np.lexsort((index_C, -score_C))]


def judge(slice_: Slice, named: Mapping[str, Top], model: HomepageModel) -> Judged:
    """Every model on the same users."""
    values, lists, covered, unequal = {}, {}, {}, {}
    for name, top in named.items():
        all_NK, new_NK = lists_of(slice_, top)
        values[name], lists[name] = values_of(slice_, all_NK, new_NK), all_NK
        covered[name], unequal[name] = coverage(all_NK, len(model.items)), gini(all_NK, len(model.items))
    score_R, label_R = calibration_rows(slice_, model)
    bins = calibration_bins(model.calibration.probability(score_R), label_R)
    n_new = int(np.isfinite(values["challenger"]["new_ndcg@10"]).sum()) if values else 0
    return Judged(
        values, lists, covered, unequal, bins, expected_calibration_error(bins),
        float(score_R.std()) if np.isfinite(score_R).all() else float("nan"), n_new,
    )  # fmt: skip


def calibration_rows(slice_: Slice, model: HomepageModel) -> tuple[Floats, Floats]:
    """Scores of each user's best candidates and whether they were taken, flat over users."""
    on_sale_I = model.knowledge.on_sale(slice_.cut_us)
    scores, labels = [np.zeros(0)], [np.zeros(0)]
    for state, visit in zip(slice_.states, slice_.visits, strict=True):
        ranking = model.rank(state, slice_.cut_us, on_sale_I, CALIBRATION_ROWS)
        scores.append(ranking.score_C.astype(np.float64))
        labels.append(np.isin(ranking.index_C, visit.items).astype(np.float64))
    return np.concatenate(scores), np.concatenate(labels)


def uncalibrated(model: HomepageModel) -> bool:
    """Whether its probabilities are a default."""
    return model.calibration == Calibration()


def segments(slice_: Slice, model: HomepageModel) -> dict[str, Bools]:
    """Segment -> (N,) mask, from what was known at the cut."""
    sessions_N = np.array([state.n_sessions for state in slice_.states])
    days_N = np.array([(slice_.cut_us - state.last_us) / 86_400e6 for state in slice_.states])
    price_I = model.knowledge.statistics.values["log_price"]
    price_N = np.array([float(price_I[state.item_P].mean()) for state in slice_.states])
    low, high = np.quantile(price_N, [1 / 3, 2 / 3]) if price_N.size else (0.0, 0.0)
    return {
        "1 session so far": sessions_N <= 1,
        "2 to 4 sessions": (sessions_N > 1) & (sessions_N < 5),
        "5 sessions or more": sessions_N >= 5,
        "last seen within 30 days": days_N <= 30,
        "last seen 31 to 90 days ago": (days_N > 30) & (days_N <= 90),
        "last seen over 90 days ago": days_N > 90,
        "low price band": price_N <= low,
        "middle price band": (price_N > low) & (price_N < high),
        "high price band": price_N >= high,
    }
