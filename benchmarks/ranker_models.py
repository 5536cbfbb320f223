"""The models of the table: each tunes itself on the slice before the cut and is refitted on everything up to the cut.

Choices. One function a model, `Job -> Retriever`; what it tunes stands beside it, so that no value in the code belongs
to one data set. The seconds of a row hold the tuning, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import scipy.sparse as sp

from benchmarks.ranker_data import Task
from benchmarks.ranker_table import ndcg_of
from models.als import AlsModel, AlsParams
from models.baselines import ItemKnn, OwnCounts, Popular, recent_counts
from models.interactions import Interactions, Retriever
from models.transitions import TransitionModel, TransitionParams, climb, tune

TUNE_USERS = 6000
HALF_LIVES = (7.0, 14.0, 30.0, 60.0, 90.0, 180.0, 360.0)


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


MODELS: dict[str, Callable[[Job], Retriever]] = {
    "popular": popular,
    "recently_popular": recently_popular,
    "own_counts": own_counts,
    "item_knn": item_knn,
    "transitions": transitions,
    "counting": counting,
    "als": als,
}
