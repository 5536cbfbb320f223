"""How alike the things are that one person takes, in one visit and in all of them: real shops beside the simulated one.

Two items are of one kind by chance with the probability that the kinds' shares give. `taste` says how many times as
often that holds of two items which one person took in different visits; `intent`, how many times as often of two items
of one visit as of two of that person's different visits. The shop of models/simulator is set by these two (its
`taste_weight` and `intent_weight`), between the two real shops that are measured here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD

from models.simulator import SimulatorParams, Truth
from models.simulator.draws import Floats, Ints
from models.simulator.sessions import sessions_at

KINDS = 32  # as many as the simulated shop has categories
DIMENSIONS = 64
VISITS = 4  # of each simulated user


@dataclass(frozen=True)
class Concentration:
    """Ratios of probabilities that two items are of one kind; 1 is nothing."""

    taste: float  # different visits of one person : different people
    intent: float  # one visit : different visits of one person


def kinds(words_IW: object, seed: int = 0) -> Ints:
    """(I,) one of `KINDS` kinds for each row of (I, W) sparse weights of words: k-means on unit latent vectors."""
    vectors_ID = TruncatedSVD(DIMENSIONS, random_state=seed).fit_transform(words_IW)
    vectors_ID = vectors_ID / np.maximum(np.linalg.norm(vectors_ID, axis=1, keepdims=True), 1e-9)
    return np.asarray(KMeans(KINDS, n_init=2, random_state=seed).fit_predict(vectors_ID), dtype=np.int64)


def taken(user_N: Ints, visit_N: Ints, kind_N: Ints) -> Concentration:
    """Of N things taken: each visit of two things or more counts once, and each person of two visits or more."""
    _, user_N = np.unique(user_N, return_inverse=True)
    _, visit_N = np.unique(np.stack([user_N, visit_N]), axis=1, return_inverse=True)
    visit_N = visit_N.reshape(-1)
    of_visit_VK = _table(visit_N, kind_N)
    owner_V = np.zeros(of_visit_VK.shape[0], np.int64)
    owner_V[visit_N] = user_N
    of_user_UK = _table(user_N, kind_N)
    same_V, all_V = (of_visit_VK * (of_visit_VK - 1)).sum(axis=1), of_visit_VK.sum(axis=1)
    within = float((same_V[all_V > 1] / (all_V * (all_V - 1))[all_V > 1]).mean())
    inside_U = np.bincount(owner_V, (of_visit_VK**2).sum(axis=1))
    pairs_U = of_user_UK.sum(axis=1) ** 2 - np.bincount(owner_V, all_V**2)
    among_U = (of_user_UK**2).sum(axis=1) - inside_U
    person = float((among_U[pairs_U > 0] / pairs_U[pairs_U > 0]).mean())
    total_K = of_user_UK.sum(axis=0)
    others = (total_K**2).sum() - (of_user_UK**2).sum()
    chance = float(others / (total_K.sum() ** 2 - (of_user_UK.sum(axis=1) ** 2).sum()))
    return Concentration(person / chance, within / person)


def _table(row_N: Ints, kind_N: Ints) -> Floats:
    """(R, KINDS) how many of each kind a row holds."""
    rows = int(row_N.max()) + 1
    return np.bincount(row_N * KINDS + kind_N, minlength=rows * KINDS).reshape(rows, KINDS).astype(np.float64)


def simulated(params: SimulatorParams, users: int = 400) -> Concentration:
    """Of the purchases of a simulated shop, exactly and by its truth: anything on the shelf, whatever a page shows."""
    truth = Truth(params, params.seed)
    shoppers = np.random.default_rng(params.seed).choice(params.users, min(users, params.users), replace=False)
    batch = sessions_at(truth, 0, np.repeat(shoppers, VISITS), np.tile(np.arange(VISITS), shoppers.size))
    order = np.argsort(batch.user_B, kind="stable")
    who = batch.who(order)
    item_BI = np.broadcast_to(np.arange(params.items), (order.size, params.items))
    never = np.zeros(item_BI.shape, np.bool_)
    chances = truth.probabilities(who, item_BI, np.ones_like(item_BI), np.full_like(item_BI, -1), never)
    kind_IK = np.eye(truth.catalogue.leaf_LD.shape[0])[truth.catalogue.leaf_I]
    bought_BK = chances.purchase @ kind_IK
    bought_BK = bought_BK / bought_BK.sum(axis=1, keepdims=True)
    bought_UVK = bought_BK.reshape(shoppers.size, VISITS, -1)
    within = float((bought_BK**2).sum(axis=1).mean())
    among_U = (bought_UVK.sum(axis=1) ** 2).sum(axis=1) - (bought_UVK**2).sum(axis=(1, 2))
    person = float(among_U.mean() / (VISITS * (VISITS - 1)))
    chance = float((bought_BK.mean(axis=0) ** 2).sum())
    return Concentration(person / chance, within / person)
