"""Each shopper's own taste: how much more than others they click on a category, a brand, a word, a price.

Choices. A regression for each shopper beside the common one, shrunk to nothing where little is known, and fitted to
their own impressions: what was passed by counts as much as what was clicked, so a page that is filled for a person
proves nothing of them. What shoppers have in common is the prior: who likes teapots likes mugs, says the covariance of
all shoppers' weights, so that few clicks tell of shelves that were never shown. It is learned from the log (empirical
Bayes), and with it how strong tastes are in this shop. Names, not codes, hold the weights, so that a taste outlives the
catalogue that it was fitted on and travels with the history row: it is gone with the shopper's rows.
Source: Zhang et al., 2016 (GLMix: a model for each member beside the common one); a Poisson likelihood with normal
priors, their covariance by expectation-maximisation with Laplace's approximation, over-relaxed.
Shapes: M distinct pairs of shopper and item, sorted by shopper, K weights, R factors of their covariance, C candidates,
I items, U shoppers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from models.items import ItemTable

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Precision of a weight before anything is learned: how many expected clicks it takes to believe it by half.
PRECISION: Mapping[str, float] = {"category": 6.0, "top_category": 8.0, "brand": 24.0, "word": 24.0}
PRICE, PRICE_SQUARED = "price", "price²"
PRICE_PRECISION = (16.0, 60.0)
BOLDNESS_PRECISION = 4.0  # how much a shopper clicks at all
MOST_NAMES = 120  # that tastes are told in: those that pages show most
PEOPLE = 250  # the covariance is learned from: those with the most clicks
BEFORE = 10.0  # shoppers that the precisions above stand for
ROUNDS, RELAXED = 6, 1.8  # of expectation-maximisation (more of them fit the few); how far beyond a step (below 2)
LEAST_VARIANCE = 1e-4
KEPT_VARIANCE, MOST_FACTORS = 0.95, 48
STEPS, LONGEST_STEP = 3, 2.0  # of Newton, for one shopper
LARGEST = 6.0  # logarithm of a taste for one item
LEAST = 0.01  # weights below it are left out of a row


@dataclass(frozen=True)
class Taste:
    """Weights by name ("category Mugs", "price"): what a shopper's clicks are multiplied with, as logarithms."""

    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def on(self, items: ItemTable, index_C: Ints) -> Floats:
        """(C,) their sum for these items; 0 where nothing is known."""
        if not self.weights:
            return np.zeros(index_C.size)
        weight_T = np.zeros(len(items.traits))
        for name, weight in self.weights.items():
            at = items.traits.index.get(name)
            if at is not None:
                weight_T[at] = weight
        price_C = items.standard_price_I[index_C]
        told_C = items.traits.sums(weight_T, index_C)
        told_C += self.weights.get(PRICE, 0.0) * price_C
        told_C += self.weights.get(PRICE_SQUARED, 0.0) * (price_C**2 - 1.0)
        return told_C


NO_TASTE = Taste()


@dataclass(frozen=True, eq=False)
class Pairs:
    """M distinct pairs of shopper and item among impressions; R impressions are of somebody known, each of a pair."""

    who_M: Ints
    item_M: Ints
    row_R: Ints
    place_R: Ints

    @classmethod
    def of(cls, who_N: Ints, item_N: Ints, items: int) -> Pairs:
        """From N impressions; -1 is nobody known."""
        row_R = np.flatnonzero(who_N >= 0)
        pair_M, place_R = np.unique(who_N[row_R] * items + item_N[row_R], return_inverse=True)
        return cls(pair_M // items, pair_M % items, row_R, place_R)

    def sums(self, value_N: npt.NDArray[np.generic]) -> Floats:
        """(M,) of what is told of each impression."""
        return np.bincount(self.place_R, value_N[self.row_R], self.who_M.size).astype(np.float64)

    def shoppers(self) -> Iterator[tuple[int, slice]]:
        """Everybody who has a pair, and where theirs lie."""
        who_U, start_U = np.unique(self.who_M, return_index=True)
        for who, start, size in zip(
            who_U.tolist(), start_U.tolist(), np.bincount(self.who_M)[who_U].tolist(), strict=True
        ):
            yield who, slice(start, start + size)


@dataclass(frozen=True, eq=False)
class TastePrior:
    """What is known of a shopper before their first click: (K, K) the covariance of their K weights.

    The K weights are those of `names`, of the price, of its square, and of how much somebody clicks at all.
    """

    names: tuple[str, ...]
    spread_KK: Floats

    @cached_property
    def factor_KR(self) -> Floats:
        """(K, R) the axes that hold nearly all of the variance, each as long as its standard deviation."""
        value_K, axis_KK = np.linalg.eigh(self.spread_KK)
        order = np.argsort(-value_K, kind="stable")
        kept = int(np.searchsorted(np.cumsum(value_K[order]), KEPT_VARIANCE * value_K.sum())) + 1
        first = order[: min(kept, MOST_FACTORS)]
        found: Floats = axis_KK[:, first] * np.sqrt(value_K[first])
        return found

    def features(self, items: ItemTable) -> Floats:
        """(I, K) what each weight is multiplied with."""
        column_T = np.full(len(items.traits) + 1, len(self.names), dtype=np.int64)
        for column, name in enumerate(self.names):
            if name in items.traits.index:
                column_T[items.traits.index[name]] = column
        x_IK = np.zeros((len(items), len(self.names) + 1))
        np.put_along_axis(x_IK, column_T[items.traits.place_IL], 1.0, axis=1)
        price_I = items.standard_price_I
        return np.column_stack([x_IK[:, :-1], price_I, price_I**2 - 1.0, np.ones(len(items))])

    def along(self, items: ItemTable) -> Floats:
        """(I, R) where items lie along the factors."""
        return self.features(items) @ self.factor_KR

    @classmethod
    def learn(
        cls, items: ItemTable, pairs: Pairs, expected_M: Floats, click_M: Floats, start: TastePrior | None = None
    ) -> TastePrior:
        """From pairs with the clicks that the average shopper would have made and those made.

        `start`: what was learned of fewer; its names stay.
        """
        shown_I = np.bincount(pairs.item_M, expected_M, len(items)).astype(np.float64)
        names = start.names if start else _most_shown(items, shown_I)
        kind_K = [PRECISION[name.split(" ", 1)[0]] for name in names]
        base_KK: Floats = np.diag(1.0 / np.array([*kind_K, *PRICE_PRECISION, BOLDNESS_PRECISION], dtype=np.float64))
        x_IK = cls(names, base_KK).features(items)
        rows_of = dict(pairs.shoppers())
        clicks = {who: float(click_M[rows].sum()) for who, rows in rows_of.items()}
        most = sorted((who for who, n in clicks.items() if n > 0), key=lambda who: (-clicks[who], who))[:PEOPLE]
        theirs = [rows_of[who] for who in sorted(most)]
        people = [(x_IK[pairs.item_M[rows]], expected_M[rows], click_M[rows]) for rows in theirs]
        weights, spread_KK = [np.zeros(len(base_KK)) for _ in people], start.spread_KK if start else base_KK
        for _ in range(ROUNDS if people else 0):
            precision_KK, told_KK = np.linalg.inv(spread_KK).astype(np.float64), np.zeros_like(base_KK)
            for at, person in enumerate(people):
                slope_K, curve_KK = _slopes(weights[at], *person, precision_KK)
                doubt_KK = np.linalg.inv(curve_KK)
                weights[at] = _moved(weights[at], doubt_KK @ slope_K)
                told_KK += np.outer(weights[at], weights[at]) + doubt_KK
            target_KK = (told_KK + BEFORE * base_KK) / (len(people) + BEFORE)
            spread_KK = _positive(spread_KK + RELAXED * (target_KK - spread_KK))
        return cls(names, spread_KK)


def _most_shown(items: ItemTable, weight_I: Floats) -> tuple[str, ...]:
    """The names that weigh most, in their order; one that everything has tells nothing apart and is left out."""
    traits = items.traits
    place_IL, size = traits.place_IL, len(traits)
    total_T = np.bincount(place_IL.ravel() + 1, np.repeat(weight_I, place_IL.shape[1]), size + 1)[1:]
    some_T = np.bincount(place_IL.ravel() + 1, minlength=size + 1)[1:] < len(items)
    order = np.argsort(-np.where(some_T, total_T, 0.0), kind="stable")[:MOST_NAMES]
    return tuple(traits.names[at] for at in sorted(order.tolist()) if some_T[at] and total_T[at] > 0)


def _slopes(
    w_K: Floats, x_NK: Floats, expected_N: Floats, click_N: Floats, precision_KK: Floats
) -> tuple[Floats, Floats]:
    """(K,) slope and (K, K) curvature of a shopper's log posterior at their weights."""
    rate_N = expected_N * np.exp(np.clip(x_NK @ w_K, -LARGEST, LARGEST))
    return x_NK.T @ (click_N - rate_N) - precision_KK @ w_K, (x_NK * rate_N[:, None]).T @ x_NK + precision_KK


def _moved(w_K: Floats, step_K: Floats) -> Floats:
    return w_K + step_K * min(1.0, LONGEST_STEP / max(float(np.abs(step_K).max()), 1e-9))


def _positive(spread_KK: Floats) -> Floats:
    """The nearest covariance: symmetric, nothing below `LEAST_VARIANCE`."""
    value_K, axis_KK = np.linalg.eigh((spread_KK + spread_KK.T) / 2.0)
    found: Floats = (axis_KK * np.maximum(value_K, LEAST_VARIANCE)) @ axis_KK.T
    return found


@dataclass(frozen=True, eq=False)
class Tastes:
    """Of U shoppers: (U, K) weights of the names, the price and its square."""

    names: tuple[str, ...]
    who_ids: Sequence[str]
    weight_UK: Floats

    @cached_property
    def _place(self) -> dict[str, int]:
        return {user: at for at, user in enumerate(self.who_ids)}

    def of(self, user_id: str) -> Taste:
        """One shopper's; none of somebody who saw no page."""
        who = self._place.get(user_id)
        if who is None:
            return NO_TASTE
        named = zip((*self.names, PRICE, PRICE_SQUARED), self.weight_UK[who].tolist(), strict=True)
        return Taste({name: weight for name, weight in named if abs(weight) > LEAST})

    @classmethod
    def fit(
        cls, prior: TastePrior, y_IR: Floats, who_ids: Sequence[str], pairs: Pairs,
        expected_M: Floats, click_M: Floats, start_UR: Floats | None = None,
    ) -> tuple[Tastes, Floats, Floats]:  # fmt: skip
        """From pairs with the clicks that the average shopper would have made and those made; `y_IR` is `prior.along`.

        Beside the tastes: (M,) what they say of the pairs, and (U, R) factors to start from when the clicks that the
        average shopper would have made are known better.
        """
        unit_RR, told_M = np.eye(y_IR.shape[1]), np.zeros(pairs.who_M.size)
        factor_UR = np.zeros((len(who_ids), y_IR.shape[1])) if start_UR is None else start_UR.copy()
        for who, rows in pairs.shoppers():
            y_NR = y_IR[pairs.item_M[rows]]
            for _ in range(STEPS if start_UR is None else STEPS // 2):
                slope_R, curve_RR = _slopes(factor_UR[who], y_NR, expected_M[rows], click_M[rows], unit_RR)
                factor_UR[who] = _moved(factor_UR[who], np.linalg.solve(curve_RR, slope_R).astype(np.float64))
            told_M[rows] = y_NR @ factor_UR[who]
        return cls(prior.names, who_ids, (factor_UR @ prior.factor_KR.T)[:, :-1]), told_M, factor_UR
