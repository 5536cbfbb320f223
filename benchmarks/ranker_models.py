"""The models of the table: each tunes itself on the slice before the cut and is refitted on everything up to the cut.

Choices. One function a model, `Job -> Retriever`; what it tunes stands beside it, so that no value in the code belongs
to one data set. The seconds of a row hold the tuning, too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from lightgbm import Booster

from benchmarks.ranker_data import Task
from benchmarks.ranker_table import HEAD, METRICS, ndcg_of
from models.als import AlsModel, AlsParams
from models.baselines import ItemKnn, OwnCounts, OwnRecent, Popular, recent_counts
from models.cold import AttributeTransitions, ColdOnly, ContentModel, trend_of_attributes
from models.encoders import ENCODERS
from models.fusion import Clock, FusionModel, FusionParams, Sources, fit_trees, labelled, lifted_ranks
from models.interactions import Interactions, Retriever
from models.next_item import NextItemModel, NextItemParams, train
from models.transitions import TransitionModel, TransitionParams, climb, tune

TUNE_USERS = 6000
COLD_PRICE = 0.05  # share of NDCG@10 that may be paid for cold items: a choice of the shop, not of the data
COLD_LIFTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
LEAST_LISTS = 30  # with a wanted candidate, to learn trees from
LEAST_COLD = 0.01  # of the slice's targets, to look at cold items at all
HALF_LIVES = (0.25, 0.5, 1.0, 2.0, 4.0, 7.0, 14.0, 30.0, 60.0, 90.0, 180.0, 360.0)


@dataclass(frozen=True)
class Job:
    """The slice to tune on, the training data of the judged task, and what is known of the items."""

    tuning: Task
    train: Interactions
    attributes: sp.csr_matrix | None
    seed: int

    def value(self, model: Retriever) -> float:
        """NDCG@10 on (at most TUNE_USERS users of) the slice."""
        return ndcg_of(self.tuning.some(TUNE_USERS, self.seed), model.scores)


def popular(job: Job) -> Retriever:
    """All-time counts."""
    return Popular(job.train.counts_I())


def recently_popular(job: Job) -> Retriever:
    """Counts with the half-life that the slice likes best."""
    best = max(HALF_LIVES, key=lambda days: job.value(Popular(recent_counts(job.tuning.train, days))))
    return Popular(recent_counts(job.train, best))


def own_counts(job: Job) -> Retriever:
    """What the user took most often."""
    return OwnCounts(job.train.counts_I())


def item_knn(job: Job) -> Retriever:
    """Cosine over users, the decay tuned."""
    fitted = ItemKnn.fit(job.tuning.train, 1.0)
    best = max((0.3, 0.5, 0.7, 0.85, 1.0), key=lambda decay: job.value(replace(fitted, decay=decay)))
    return ItemKnn.fit(job.train, best)


def transitions(job: Job) -> Retriever:
    """What followed the last items, in order: window 10, weight 1/distance, nothing tuned."""
    return TransitionModel.fit(job.train, TransitionParams(backward=0.0, cosine=0.0))


def counting(job: Job) -> Retriever:
    """Transitions forward and backward and cosine, mixed as the slice likes best: the yardstick."""
    best, _ = tune(job.tuning.train, job.value)
    return TransitionModel.fit(job.train, best)


def als(job: Job) -> Retriever:
    """iALS, its penalty and the weight of the unobserved tuned."""
    choices = {"unobserved": (0.001, 0.003, 0.01), "penalty": (0.001, 0.003, 0.01), "decay": (0.5, 0.7, 1.0)}
    quick, _, _ = climb(
        AlsParams(rounds=3), choices, lambda params: job.value(AlsModel.fit(job.tuning.train, params)), rounds=1
    )
    return AlsModel.fit(job.train, replace(quick, rounds=8))


def network(job: Job, encoder: str = "transformer") -> tuple[NextItemModel, NextItemModel]:
    """One network before the slice, stopped by it, and one of the same length on everything up to the cut."""
    params = NextItemParams(encoder=encoder, seed=job.seed + 11)
    early, curves = train(job.tuning.train, params, attributes=job.attributes, validate=job.value, progress=_say)
    late, _ = train(job.train, params, attributes=job.attributes, stop_after=curves.best_epoch, progress=_say)
    return early, late


def _say(name: str, epoch: int, epochs: int, figures: dict[str, float]) -> None:
    told = " ".join(f"{what} {figure:.4f}" for what, figure in figures.items())
    _note(f"{name} {epoch}/{epochs} {told}")


def content(job: Job) -> Retriever:
    """What kind of item follows what kind; without attributes the popular ones."""
    if job.attributes is None:
        return popular(job)
    return AttributeTransitions.fit(job.train, job.attributes, 0.7)


def cold_content(job: Job) -> Callable[[Interactions], Retriever]:
    """The content model (alike, or what follows what) and decay that rank the slice's cold targets best."""
    attributes, task = job.attributes, job.tuning
    assert attributes is not None  # noqa: S101 - the caller looked

    def maker(follows: bool, decay: float) -> Callable[[Interactions], Retriever]:
        if follows:
            return lambda data: AttributeTransitions.fit(data, attributes, decay)
        return lambda _data: ContentModel.fit(attributes, decay)

    cold = task.users(np.flatnonzero(task.cold_N))
    options = [maker(follows, decay) for follows in (False, True) for decay in (0.7, 1.0)]
    if not len(cold.asked):
        return options[0]
    return max(options, key=lambda make: ndcg_of(cold, ColdOnly.over(make(task.train), task.train).scores))


def cold_lift(job: Job, early: Sources, params: FusionParams) -> float:
    """The lift with the best cold NDCG@10 whose price overall is at most COLD_PRICE, on users the trees never saw."""
    task = job.tuning
    if task.cold_N.mean() < LEAST_COLD:
        return 0.0
    held_N = np.random.default_rng(job.seed).random(len(task.asked)) < 1 / 3
    learn, held = task.users(np.flatnonzero(~held_N)), task.users(np.flatnonzero(held_N))
    trees = learned(early, learn, params)
    if trees is None or not len(held.asked):
        return 0.0
    ranks = lifted_ranks(FusionModel(early, trees, params, task.mask_seen), held.asked, held.target_N, COLD_LIFTS)
    gains = [METRICS[HEAD](rank_N) for rank_N in ranks]
    overall = [float(gain_N.mean()) for gain_N in gains]
    cold = [float(gain_N[held.cold_N].mean()) if held.cold_N.any() else 0.0 for gain_N in gains]
    allowed = [at for at in range(len(COLD_LIFTS)) if overall[at] >= (1 - COLD_PRICE) * max(overall)]
    _note(f"cold lifts {COLD_LIFTS}: overall {np.round(overall, 4).tolist()}, cold {np.round(cold, 4).tolist()}")
    return COLD_LIFTS[max(allowed, key=lambda at: (cold[at], overall[at]))]


def learned(early: Sources, task: Task, params: FusionParams) -> Booster | None:
    """Trees from the slice's targets; None where too few of them are candidates."""
    if len(task.asked) < LEAST_LISTS:
        return None
    lists = labelled(early, task.asked, [np.array([item]) for item in task.target_N], task.mask_seen, params)
    return fit_trees(*lists, params) if lists[2].size >= LEAST_LISTS else None


def _note(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def sources(
    data: Interactions,
    job: Job,
    mix: TransitionParams,
    net: Retriever | None,
    cold: Callable[[Interactions], Retriever] | None,
) -> Sources:
    """The retrievers of the fusion; the first is the fallback."""
    bare = TransitionParams(backward=0.0, cosine=0.0, target_power=0.0)
    found: dict[str, Retriever] = {
        "counting": TransitionModel.fit(data, mix),
        "next": TransitionModel.fit(data, replace(bare, decay=0.1, source_power=1.0)),
        "before": TransitionModel.fit(data, replace(bare, backward=1.0, target_power=0.3)),
        "people": ItemKnn.fit(data, 0.85),
        "recent": Popular(recent_counts(data, 30.0)),
        "als": AlsModel.fit(data, AlsParams(rounds=4)),
    }
    if not job.tuning.mask_seen:  # people take things again: a ranker that does not know that loses to a count
        found |= {"own": OwnCounts(data.counts_I()), "own_recent": OwnRecent(0.7)}
    known = {}
    if job.attributes is not None and cold is not None:
        kinds = AttributeTransitions.fit(data, job.attributes, 0.7)
        found |= {
            "content": ContentModel.fit(job.attributes, 0.7),
            "kinds": kinds,
            "cold": ColdOnly.over(cold(data), data),
        }
        known["attribute_trend"] = trend_of_attributes(data, job.attributes)
    if net is not None:
        found["network"] = net
    return Sources(found, Clock.fit(data), known)


def fused(job: Job, nets: tuple[Retriever, Retriever] | tuple[None, None]) -> Retriever:
    """Trees over the retrievers, learned on the slice, applied to the same retrievers fitted up to the cut."""
    mix, _ = tune(job.tuning.train, job.value)
    params = FusionParams(seed=job.seed + 5)
    cold = cold_content(job) if job.attributes is not None else None
    early = sources(job.tuning.train, job, mix, nets[0], cold)
    trees = learned(early, job.tuning, params)
    if trees is None:
        _note(f"fewer than {LEAST_LISTS} users of the slice took a candidate: too few to learn trees from")
        return _without_trees(job, mix)
    gains = sorted(zip(trees.feature_importance("gain"), trees.feature_name(), strict=True), reverse=True)
    _note(f"{trees.num_trees()} trees; {[(name, round(gain)) for gain, name in gains[:12]]}")
    lift = cold_lift(job, early, params) if cold is not None else 0.0
    late = sources(job.train, job, mix, nets[1], cold)
    return FusionModel(late, trees, params, job.tuning.mask_seen, lift)


def _without_trees(job: Job, mix: TransitionParams) -> Retriever:
    """What the slice likes best of counting, popularity and, where people take things again, their own counts."""
    makers: dict[str, Callable[[Interactions], Retriever]] = {
        "counting": lambda data: TransitionModel.fit(data, mix),
        "recently popular": lambda data: Popular(recent_counts(data, 30.0)),
    }
    if not job.tuning.mask_seen:
        makers["own counts"] = lambda data: OwnCounts(data.counts_I())
    best = max(makers, key=lambda name: job.value(makers[name](job.tuning.train)))
    _note(f"{best} instead")
    return makers[best](job.train)


def lightgbm(job: Job) -> Retriever:
    """The fusion without a network."""
    return fused(job, (None, None))


def fusion(job: Job) -> Retriever:
    """The fusion with the sequence network: what ships."""
    return fused(job, network(job))


def encoder(name: str) -> Callable[[Job], Retriever]:
    """One family of networks alone."""
    return lambda job: network(job, name)[1]


MODELS: dict[str, Callable[[Job], Retriever]] = {
    "popular": popular,
    "recently_popular": recently_popular,
    "own_counts": own_counts,
    "item_knn": item_knn,
    "transitions": transitions,
    "counting": counting,
    "als": als,
    "content": content,
    "lightgbm": lightgbm,
    **{name: encoder(name) for name in ENCODERS},
    "fusion": fusion,
}
