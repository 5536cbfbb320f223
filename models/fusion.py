"""Fusion: boosted trees over what each retriever says of a candidate, fitted on a slice that none of them has seen.

Choices. The retrievers are fitted twice: before the slice, where their scores become features and the slice's targets
labels, and on everything up to the cut, where the same trees read the fresh scores. So features must mean the same at
both times: values within a user's list, places in it, and logarithms of counts. Ages and recent counts are seen from
the moment that is asked about. The number of trees is chosen on a third of the slice's users, then all are used.
Shapes: B asked users, I items, N candidate rows (flat, user by user), F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import lightgbm
import numpy as np
import numpy.typing as npt
import torch

from models.interactions import DAY_S, Floats, Floats32, Interactions, Ints, Retriever, chunks

WINDOWS_DAYS = (7, 30, 90, 365)
NEVER = 1e9


@dataclass(frozen=True)
class FusionParams:
    """`depth`: candidates that each retriever names; `users`: most lists to learn from."""

    depth: int = 50
    users: int = 8_000
    leaves: int = 15
    learning_rate: float = 0.05
    max_trees: int = 400
    least_leaf: int = 60
    seed: int = 5


@dataclass(frozen=True)
class Clock:
    """How often each item was taken within a window of any moment: sorted (item, time) keys."""

    key_R: Ints
    base: int
    first_I: Ints
    total_I: Floats

    @classmethod
    def fit(cls, data: Interactions) -> Clock:
        """Sort once."""
        base = int(data.ts_R.min()) - 1 if data.ts_R.size else 0
        first = np.full(data.n_items, np.iinfo(np.int64).max)
        np.minimum.at(first, data.item_R, data.ts_R)
        return cls(np.sort(data.item_R * (1 << 36) + data.ts_R - base), base, first, data.counts_I())

    def until(self, item_N: Ints, ts_N: Ints) -> Ints:
        """(N,) rows of each item up to the moment."""
        moment = np.clip(ts_N - self.base, 0, (1 << 36) - 1)
        at = np.searchsorted(self.key_R, item_N * (1 << 36) + moment, "right")
        return (at - np.searchsorted(self.key_R, item_N * (1 << 36), "left")).astype(np.int64)

    def features(self, item_N: Ints, as_of_N: Ints) -> dict[str, Floats]:
        """Log counts in windows before the moment (and after it, where the data goes on), and the age in days."""
        now = self.until(item_N, as_of_N)
        told: dict[str, Floats] = {"log_total": np.log1p(self.total_I[item_N])}
        for days in WINDOWS_DAYS:
            told[f"log_last_{days}"] = np.log1p(now - self.until(item_N, as_of_N - days * DAY_S))
            told[f"log_next_{days}"] = np.log1p(self.until(item_N, as_of_N + days * DAY_S) - now)
        known = self.first_I[item_N] < np.iinfo(np.int64).max
        told["age_days"] = np.where(known, (as_of_N - np.where(known, self.first_I[item_N], 0)) / DAY_S, -NEVER)
        return told


@dataclass(frozen=True)
class Candidates:
    """N rows, user by user: who, which item, and the features."""

    user_N: Ints
    item_N: Ints
    x_NF: Floats32
    names: tuple[str, ...]

    def sizes(self, n_users: int) -> Ints:
        """(B,) rows of each user."""
        return np.bincount(self.user_N, minlength=n_users).astype(np.int64)


@dataclass(frozen=True)
class Sources:
    """Fitted retrievers by name and the clock of the same data."""

    retrievers: Mapping[str, Retriever]
    clock: Clock
    item_I: Mapping[str, Floats] = field(default_factory=dict)  # what else is known of the items

    def candidates(self, asked: Interactions, depth: int, mask_seen: bool) -> tuple[Candidates, Floats32]:
        """The union of each retriever's best, with features; and the first retriever's scores as a fallback."""
        score = {name: one.scores(asked) for name, one in self.retrievers.items()}
        if mask_seen:
            for score_BI in score.values():
                score_BI[asked.owner_R, asked.item_R] = -np.inf
        named = [_named(score_BI, depth) for score_BI in score.values()]
        union = [np.unique(np.concatenate(parts)) for parts in zip(*named, strict=True)]
        item_N = np.concatenate(union).astype(np.int64)
        user_N = np.repeat(np.arange(len(asked)), [row.size for row in union])
        columns: dict[str, npt.NDArray[np.floating]] = {}
        for name, score_BI in score.items():
            value_N = score_BI[user_N, item_N]
            columns[name] = np.where(np.isfinite(value_N), value_N, -1.0)
            columns[name + "_gap"], columns[name + "_place"] = _within(value_N, user_N)
        columns |= self.clock.features(item_N, asked.as_of_U[user_N])
        columns |= {name: value_I[item_N] for name, value_I in self.item_I.items()}
        columns |= _user_features(asked, user_N, self.clock)
        if not mask_seen:
            columns |= _own_features(asked, user_N, item_N)
        x_NF = np.stack([column.astype(np.float32) for column in columns.values()], axis=1)
        if mask_seen:  # a list may be forced to hold own items where little else scores
            own = asked.matrix(np.ones(asked.item_R.size))[user_N, item_N]
            keep = np.asarray(own).ravel() == 0
            user_N, item_N, x_NF = user_N[keep], item_N[keep], x_NF[keep]
        return Candidates(user_N, item_N, x_NF, tuple(columns)), next(iter(score.values()))


def _named(score_BI: Floats32, depth: int) -> list[Ints]:
    """For each user the items above the bound; what a retriever says nothing of (its lowest score) is not named.

    No tie is cut by item number: numbers may tell when, or with whom, an item first appeared.
    """
    depth = min(depth, score_BI.shape[1] - 1)
    bound_B1 = -np.partition(-score_BI, depth, axis=1)[:, depth : depth + 1]
    low_B1 = np.where(np.isfinite(score_BI), score_BI, np.inf).min(axis=1, keepdims=True)
    row, item = np.nonzero((score_BI > bound_B1) & (score_BI > low_B1))
    return np.split(item.astype(np.int64), np.searchsorted(row, np.arange(1, score_BI.shape[0])))


def _within(value_N: npt.NDArray[np.floating], user_N: Ints) -> tuple[Floats, Floats]:
    """(N,) distance to the user's best candidate in shares of its spread, and log of the place."""
    if not value_N.size:
        return np.empty(0), np.empty(0)
    value_N = np.where(np.isfinite(value_N), value_N, np.nanmin(np.where(np.isfinite(value_N), value_N, np.nan)))
    order = np.lexsort((-value_N, user_N))
    starts = np.flatnonzero(np.append(True, np.diff(user_N) != 0))
    size = np.diff(np.append(starts, user_N.size))
    fresh = np.append(True, (np.diff(user_N[order]) != 0) | (np.diff(value_N[order]) != 0))
    place = np.empty(user_N.size)  # equal values share the first place
    place[order] = np.maximum.accumulate(np.where(fresh, np.arange(user_N.size), 0)) - np.repeat(starts, size)
    top = np.repeat(np.maximum.reduceat(value_N, starts), size)
    low = np.repeat(np.minimum.reduceat(value_N, starts), size)
    return (top - value_N) / np.maximum(top - low, 1e-9), np.log1p(place)


def _own_features(asked: Interactions, user_N: Ints, item_N: Ints) -> dict[str, Floats]:
    """Of what the user took before: how often, days since, the usual days between, and whether it is due."""
    key_R = asked.owner_R * asked.n_items + asked.item_R
    order = np.lexsort((asked.ts_R, key_R))
    key_R, day_R = key_R[order], asked.ts_R[order] / DAY_S
    start = np.flatnonzero(np.append(True, np.diff(key_R) != 0))
    end = np.append(start[1:], key_R.size)
    wanted_N = user_N * asked.n_items + item_N
    at_N = np.searchsorted(key_R[start], wanted_N).clip(max=start.size - 1)
    held_N = key_R[start][at_N] == wanted_N
    times_N = np.where(held_N, (end - start)[at_N], 0)
    ago_N = np.where(held_N, asked.as_of_U[user_N] / DAY_S - day_R[end - 1][at_N], NEVER)
    span_N = (day_R[end - 1] - day_R[start])[at_N]
    gap_N = np.where(times_N > 1, span_N / np.maximum(times_N - 1, 1), NEVER)
    due_N = np.where(times_N > 1, (ago_N + 1.0) / (gap_N + 1.0), -1.0)
    return {"own_times": times_N.astype(np.float64), "own_ago": ago_N, "own_gap": gap_N, "own_due": due_N}


def _user_features(asked: Interactions, user_N: Ints, clock: Clock) -> dict[str, Floats]:
    length = asked.length_U.astype(np.float64)
    last = asked.indptr_U[1:] - 1
    idle = (asked.as_of_U - asked.ts_R[last]) / DAY_S
    return {
        "length": np.log1p(length)[user_N],
        "idle_days": idle[user_N],
        "last_log_total": np.log1p(clock.total_I[asked.item_R[last]])[user_N],
    }


@dataclass(frozen=True)
class FusionModel:
    """Trees over fitted sources; `cold_lift` is added to the scores of items that training never held."""

    sources: Sources
    trees: lightgbm.Booster
    params: FusionParams
    mask_seen: bool
    cold_lift: float = 0.0

    def scores(self, asked: Interactions) -> Floats32:
        """(B, I): candidates by the trees, everything else far below by the first retriever."""
        found, fallback_BI = self.sources.candidates(asked, self.params.depth, self.mask_seen)
        finite = np.where(np.isfinite(fallback_BI), fallback_BI, 0.0)
        scores = (finite / max(float(np.abs(finite).max()), 1e-9) - 1e6).astype(np.float32)
        told_N = _told(self.trees, found.x_NF)
        told_N += self.cold_lift * (self.sources.clock.total_I[found.item_N] == 0)
        scores[found.user_N, found.item_N] = told_N.astype(np.float32)
        return scores


def _told(trees: lightgbm.Booster, x_NF: Floats32) -> Floats:
    """(N,) scores; none where nobody has a candidate."""
    return np.asarray(trees.predict(x_NF, num_threads=torch.get_num_threads())) if len(x_NF) else np.empty(0)


def labelled(
    sources: Sources, asked: Interactions, wanted: Sequence[Ints], mask_seen: bool, params: FusionParams
) -> tuple[Floats32, Floats, Ints, tuple[str, ...]]:
    """(N, F), (N,) labels and group sizes of the lists that hold a wanted item; `asked` is not empty."""
    rng = np.random.default_rng(params.seed)
    chosen = np.arange(len(asked))
    if chosen.size > params.users:
        chosen = np.sort(rng.choice(chosen, params.users, replace=False))
    xs, labels, sizes = [], [], []
    names: tuple[str, ...] = ()
    for part in chunks(chosen.size, asked.n_items):
        at = chosen[part]
        found, _ = sources.candidates(asked.users(at), params.depth, mask_seen)
        names = found.names
        codes = np.concatenate([row * asked.n_items + wanted[user] for row, user in enumerate(at)])
        label_N = np.isin(found.user_N * asked.n_items + found.item_N, codes).astype(np.float64)
        hit_B = np.bincount(found.user_N, weights=label_N, minlength=at.size) > 0
        keep = hit_B[found.user_N]
        xs.append(found.x_NF[keep])
        labels.append(label_N[keep])
        sizes.append(found.sizes(at.size)[hit_B])
    return np.concatenate(xs), np.concatenate(labels), np.concatenate(sizes).astype(np.int64), names


def fit_trees(
    x_NF: Floats32, label_N: Floats, size_G: Ints, names: tuple[str, ...], params: FusionParams
) -> lightgbm.Booster:
    """LambdaMART; the number of trees from a third of the lists, then refitted on all."""
    settings = {
        "objective": "lambdarank",
        "num_leaves": params.leaves,
        "learning_rate": params.learning_rate,
        "min_data_in_leaf": params.least_leaf,
        "feature_fraction": 0.5,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "lambda_l2": 10.0,
        "lambdarank_truncation_level": 20,
        "metric": "ndcg",
        "eval_at": [10],
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": torch.get_num_threads(),
        "seed": params.seed,
        "verbose": -1,
    }
    test_G = np.random.default_rng(params.seed).permutation(size_G.size) % 3 == 0
    test_N = np.repeat(test_G, size_G)

    def data(rows_N: npt.NDArray[np.bool_], groups_G: npt.NDArray[np.bool_]) -> lightgbm.Dataset:
        return lightgbm.Dataset(
            x_NF[rows_N], label=label_N[rows_N], group=size_G[groups_G], feature_name=list(names), free_raw_data=True
        )

    learn = data(~test_N, ~test_G)
    stopped = lightgbm.train(
        settings,
        learn,
        params.max_trees,
        valid_sets=[data(test_N, test_G)],
        callbacks=[lightgbm.early_stopping(40, verbose=False)],
    )
    rounds = max(20, int(stopped.best_iteration * 1.2))
    return lightgbm.train(settings, data(np.ones_like(test_N), np.ones_like(test_G)), rounds)


def lifted_ranks(model: FusionModel, asked: Interactions, target_B: Ints, lifts: Sequence[float]) -> list[Ints]:
    """For each lift the (B,) rank of the target among the candidates, 10**6 where it is none."""
    ranks: list[list[Ints]] = [[] for _ in lifts]
    for at in chunks(len(asked), asked.n_items):
        found, _ = model.sources.candidates(asked.users(at), model.params.depth, model.mask_seen)
        told_N = _told(model.trees, found.x_NF)
        cold_N = model.sources.clock.total_I[found.item_N] == 0
        hit = np.flatnonzero(found.item_N == target_B[at][found.user_N])
        for place, lift in enumerate(lifts):
            score_N = told_N + lift * cold_N
            own_B = np.full(at.size, np.inf)
            own_B[found.user_N[hit]] = score_N[hit]
            above_B = np.bincount(found.user_N, weights=score_N > own_B[found.user_N], minlength=at.size)
            ranks[place].append(np.where(np.isfinite(own_B), 1 + above_B, 10**6).astype(np.int64))
    return [np.concatenate(parts) for parts in ranks]
