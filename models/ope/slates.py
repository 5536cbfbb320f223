"""Estimators for whole pages: K slots, each with the probability of its item given the slots above.

Choices. Four assumptions about what a shopper's reaction to a slot depends on, from none to all: on the whole page
(SIPS), on the slots above and itself (RIPS, cascade-DR), on the item and its place alone (IIPS). A weaker assumption
costs variance: the weights of SIPS are a product over the page. Where an assumption is broken the estimator is biased,
which `ASSUMES` says in words for the report.
Sources: Swaminathan et al. (2017), McInerney et al. (2020), RIPS; Li et al. (2018), IIPS; Kiyohara et al. (2022),
cascade-DR.
Shapes: R pages, K slots.
"""

from __future__ import annotations

import numpy as np

from models.ope.estimators import Floats

ASSUMES = {
    "SIPS": "nothing about how slots act on each other",
    "RIPS": "a slot's reward depends on its item and the items above it",
    "cascade-DR": "a slot's reward depends on its item and the items above it",
    "IIPS": "a slot's reward depends on its item and its position alone",
}


def sips(reward_RK: Floats, weight_RK: Floats) -> Floats:
    """(R,) whole-page weight x whole-page reward."""
    return np.asarray(weight_RK.prod(axis=1) * reward_RK.sum(axis=1), dtype=np.float64)


def rips(reward_RK: Floats, weight_RK: Floats) -> Floats:
    """(R,) each slot's reward with the weights of the slots down to it."""
    return np.asarray((weight_RK.cumprod(axis=1) * reward_RK).sum(axis=1), dtype=np.float64)


def iips(reward_RK: Floats, marginal_RK: Floats) -> Floats:
    """(R,) each slot's reward with its own weight: target over logging probability of the item *at that position*.

    With weights given the slots above instead, it values the target slot by slot on the pages that were shown.
    """
    return np.asarray((marginal_RK * reward_RK).sum(axis=1), dtype=np.float64)


def cascade_dr(reward_RK: Floats, weight_RK: Floats, taken_RK: Floats, aimed_RK: Floats) -> Floats:
    """(R,) RIPS corrected by a model of what is still to come.

    `taken_RK` is the model's reward from this slot to the end, given its item and the slots above it; `aimed_RK` the
    same, averaged over the target's choice of this slot. Both are 0 without a model: then it is RIPS.
    """
    path_RK = weight_RK.cumprod(axis=1)
    above_RK = np.concatenate([np.ones((len(path_RK), 1)), path_RK[:, :-1]], axis=1)
    return np.asarray((path_RK * (reward_RK - taken_RK) + above_RK * aimed_RK).sum(axis=1), dtype=np.float64)
