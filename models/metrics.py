"""Ranking metrics: one value a user first, the mean and its interval last.

Choices. Every metric returns (N,), because the gate and every interval need the users; nothing is sampled: lists are
the top of a ranking over all eligible items. Intervals resample users, since rows of one user are not independent;
a comparison resamples the same users on both sides.
Shapes: N users, K list places. Source: Järvelin & Kekäläinen, 2002 (NDCG).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DRAWS = 2000
NO_ITEM = -1


@dataclass(frozen=True)
class Lists:
    """Ranked lists of N users and what each of them wanted.

    `item_NK` holds no item twice and NO_ITEM where a list ends early; `wanted` one array of distinct items a user.
    """

    item_NK: Ints
    wanted: Sequence[Ints]

    def hits(self, k: int) -> Bools:
        """(N, k) whether the listed item was wanted; a list of fewer than k places has no hit beyond its end."""
        found = np.zeros((len(self.wanted), k), dtype=bool)
        for at, wanted in enumerate(self.wanted):
            listed = self.item_NK[at, :k]
            found[at, : listed.size] = np.isin(listed, wanted) & (listed != NO_ITEM)
        return found

    def n_wanted(self) -> Floats:
        """(N,)"""
        return np.array([wanted.size for wanted in self.wanted], dtype=np.float64)


def _discount(k: int) -> Floats:
    result: Floats = 1.0 / np.log2(np.arange(2, k + 2))
    return result


def _share(part_N: npt.NDArray[Any], whole_N: Floats) -> Floats:
    """(N,) part / whole, 0 where there is no whole."""
    result: Floats = np.divide(part_N, whole_N, out=np.zeros(whole_N.size), where=whole_N > 0)
    return result


def ndcg(lists: Lists, k: int) -> Floats:
    """(N,) in [0, 1]: the ideal list holds min(k, wanted) hits; a user who wanted nothing scores 0.

    >>> float(ndcg(Lists(np.array([[3, 7]]), [np.array([7])]), 2)[0].round(4))
    0.6309
    """
    ideal = np.concatenate([[0.0], np.cumsum(_discount(k))])[np.minimum(lists.n_wanted(), k).astype(int)]
    gained = lists.hits(k) @ _discount(k)
    return _share(gained, ideal)


def recall(lists: Lists, k: int) -> Floats:
    """(N,) share of the wanted items that the list holds."""
    return _share(lists.hits(k).sum(1), lists.n_wanted())


def precision(lists: Lists, k: int) -> Floats:
    """(N,) share of the k places that were wanted."""
    return _share(lists.hits(k).sum(1), np.full(len(lists.wanted), float(k)))


def hit_rate(lists: Lists, k: int) -> Floats:
    """(N,) 1 where at least one place was wanted."""
    return np.asarray(lists.hits(k).any(1), dtype=np.float64)


def reciprocal_rank(lists: Lists, k: int) -> Floats:
    """(N,) 1 / place of the first wanted item, 0 where there is none."""
    hits = lists.hits(k)
    return np.asarray(np.where(hits.any(1), 1.0 / (hits.argmax(1) + 1.0), 0.0))


def average_precision(lists: Lists, k: int) -> Floats:
    """(N,) mean precision at the wanted places, over min(k, wanted)."""
    hits = lists.hits(k)
    at_place = np.cumsum(hits, axis=1) / np.arange(1, k + 1)
    return _share((at_place * hits).sum(1), np.minimum(lists.n_wanted(), k))


def f1(lists: Lists, k: int) -> Floats:
    """(N,) harmonic mean of precision and recall."""
    both = precision(lists, k), recall(lists, k)
    return _share(2 * both[0] * both[1], both[0] + both[1])


def novelty(lists: Lists, count_I: Floats, k: int) -> Floats:
    """(N,) mean surprise of the listed items in bits: minus log2 of their share of all that was taken before.

    An item that nobody took counts as if it had been taken once; an empty list scores 0.
    """
    share_I = np.maximum(count_I, 1.0) / max(float(np.maximum(count_I, 1.0).sum()), 1.0)
    listed = lists.item_NK[:, :k]
    bits_NK = np.where(listed == NO_ITEM, 0.0, -np.log2(share_I[listed]))
    return _share(bits_NK.sum(1), (listed != NO_ITEM).sum(1).astype(np.float64))


def diversity(lists: Lists, vector_IE: npt.NDArray[np.floating], k: int) -> Floats:
    """(N,) mean distance (1 - cosine) over the pairs of a list; 0 for a list of fewer than two items."""
    norm_I = np.linalg.norm(vector_IE, axis=1, keepdims=True)
    unit_IE = np.divide(vector_IE, norm_I, out=np.zeros_like(vector_IE), where=norm_I > 0)
    values = np.zeros(len(lists.wanted))
    for at, row in enumerate(lists.item_NK[:, :k]):
        listed = row[row != NO_ITEM]
        if listed.size > 1:
            cosine = unit_IE[listed] @ unit_IE[listed].T
            values[at] = 1.0 - float(cosine[np.triu_indices(listed.size, 1)].mean())
    return values


METRICS: dict[str, Callable[[Lists], Floats]] = {
    "ndcg@10": lambda lists: ndcg(lists, 10),
    "recall@10": lambda lists: recall(lists, 10),
    "precision@10": lambda lists: precision(lists, 10),
    "f1@10": lambda lists: f1(lists, 10),
    "hit_rate@10": lambda lists: hit_rate(lists, 10),
    "mrr@10": lambda lists: reciprocal_rank(lists, 10),
    "map@10": lambda lists: average_precision(lists, 10),
}


@dataclass(frozen=True)
class Estimate:
    """A mean over users with its two-sided 95 % interval."""

    mean: float
    low: float
    high: float
    users: int

    def to_json(self) -> dict[str, float | int]:
        """Rounded to what the interval can support."""
        values = {"mean": self.mean, "low": self.low, "high": self.high}
        return {name: round(value, 6) for name, value in values.items()} | {"users": self.users}


def bootstrap_means(values_N: Floats, seed: int = 0, draws: int = DRAWS) -> Floats:
    """(draws,) means of resampled users.

    A resample of N users is a multinomial draw over them, so one product replaces N x draws look-ups.
    """
    n = values_N.size
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(values_N, return_counts=True)
    result: Floats = rng.multinomial(n, counts / n, size=draws) @ distinct / n
    return result


def estimate(values_N: Floats, seed: int = 0) -> Estimate:
    """Mean and percentile bootstrap interval by user; zeros where there is nobody."""
    if values_N.size == 0:
        return Estimate(0.0, 0.0, 0.0, 0)
    low, high = np.quantile(bootstrap_means(values_N, seed), [0.025, 0.975])
    return Estimate(float(values_N.mean()), float(low), float(high), int(values_N.size))


def by_segment(values_N: Floats, masks: Mapping[str, Bools]) -> dict[str, Estimate]:
    """Segment -> mean and interval over its users."""
    return {name: estimate(values_N[mask]) for name, mask in masks.items()}


def coverage(item_NK: Ints, n_items: int) -> float:
    """Share of the catalogue that stands in at least one list."""
    listed = np.unique(item_NK[item_NK != NO_ITEM])
    return listed.size / max(n_items, 1)


def gini(item_NK: Ints, n_items: int) -> float:
    """Inequality of how often items are listed: 0 all alike, 1 one item takes everything."""
    shown = np.sort(np.bincount(item_NK[item_NK != NO_ITEM], minlength=n_items).astype(np.float64))
    total = shown.sum()
    if total == 0:
        return 0.0
    place = np.arange(1, n_items + 1)
    return float((2 * place - n_items - 1) @ shown / (n_items * total))
