"""Each shopper's own taste: how much more than others they click on a category, a brand, a price in the same places.

Choices. A regression for each shopper beside the common one, shrunk to nothing where little is known, and fitted to
their own impressions: what was passed by counts as much as what was clicked, so a page that is filled for a person
proves nothing of them. Names, not codes, hold the weights, so that a taste outlives the catalogue that it was fitted on
and travels with the history row: it is gone with the shopper's rows, and no model holds it.
Source: Zhang et al., 2016 (GLMix: a model for each member beside the common one); a Poisson likelihood with normal
priors, one Newton step for each block of weights in turn.
Shapes: N impressions, M distinct pairs of shopper and item, K weights of a block, C candidates, I items, U shoppers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from models.items import ItemTable

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Precision of the normal prior: about how many expected clicks a weight must have to be believed by half.
PRECISION: Mapping[str, float] = {"category": 6.0, "top_category": 8.0, "brand": 24.0}
PRICE, PRICE_SQUARED = "price", "price²"
PRICE_PRECISION = (16.0, 60.0)
NEVER = 1e12  # precision of a weight that is to stay 0: that of items without a group
BOLDNESS_PRECISION = 4.0  # how much a shopper clicks at all
ROUNDS, LONGEST_STEP = 8, 1.0
LEAST = 1e-3  # weights below it are left out of a row


@dataclass(frozen=True)
class Taste:
    """Weights by name ("category Mugs", "price"): what a shopper's clicks are multiplied with, as logarithms."""

    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def on(self, items: ItemTable, index_C: Ints) -> Floats:
        """(C,) their sum for these items; 0 where nothing is known."""
        told_C = np.zeros(index_C.size)
        if not self.weights:
            return told_C
        for kind, code_I in items.codes.items():
            weight_G = np.zeros(items.groups[kind] + 1)  # the last is of items without a group
            place = items.group_places[kind]
            for name, weight in self.weights.items():
                at = place.get(name)
                if at is not None:
                    weight_G[at] = weight
            told_C += weight_G[code_I[index_C]]
        price_C = items.standard_price_I[index_C]
        told_C += self.weights.get(PRICE, 0.0) * price_C
        told_C += self.weights.get(PRICE_SQUARED, 0.0) * (price_C**2 - 1.0)
        return told_C


NO_TASTE = Taste()


@dataclass(frozen=True, eq=False)
class Tastes:
    """Of U shoppers: K cells (shopper and group) of each kind, sorted, with their weights; (U, 2) weights of price."""

    items: ItemTable
    who_ids: Sequence[str]
    cell_K: dict[str, Ints]
    weight_K: dict[str, Floats]
    price_U2: Floats

    @cached_property
    def _place(self) -> dict[str, int]:
        return {user: at for at, user in enumerate(self.who_ids)}

    def of(self, user_id: str) -> Taste:
        """One shopper's; none of somebody who saw no page."""
        who = self._place.get(user_id)
        if who is None:
            return NO_TASTE
        found: dict[str, float] = {}
        for kind, cell_K in self.cell_K.items():
            names, size = self.items.group_names[kind], self.items.groups[kind] + 1
            low, high = np.searchsorted(cell_K, [who * size, (who + 1) * size])
            for cell, weight in zip(cell_K[low:high].tolist(), self.weight_K[kind][low:high].tolist(), strict=True):
                if abs(weight) > LEAST and cell % size:
                    found[names[cell % size - 1]] = weight
        found |= dict(zip((PRICE, PRICE_SQUARED), self.price_U2[who].tolist(), strict=True))
        return Taste(found)

    @classmethod
    def fit(
        cls, items: ItemTable, who_ids: Sequence[str], who_M: Ints, item_M: Ints, expected_M: Floats, click_M: Floats
    ) -> tuple[Tastes, Floats]:
        """From pairs with the clicks that the average shopper would have made and those made; (M,) logs beside it."""
        cells = {kind: who_M * (items.groups[kind] + 1) + code_I[item_M] + 1 for kind, code_I in items.codes.items()}
        unique = {kind: np.unique(cell_M, return_inverse=True) for kind, cell_M in cells.items()}
        blocks = [
            _Block(place_M, np.where(cell_K % (items.groups[kind] + 1) == 0, NEVER, PRECISION[kind]))
            for kind, (cell_K, place_M) in unique.items()
        ]
        blocks.append(_Block(who_M, np.full(len(who_ids), BOLDNESS_PRECISION)))
        price_M = items.standard_price_I[item_M]
        slopes = [
            _Block(who_M, np.full(len(who_ids), precision), x_M)
            for x_M, precision in zip((price_M, price_M**2 - 1.0), PRICE_PRECISION, strict=True)
        ]
        told_M = np.zeros(who_M.size)
        for _ in range(ROUNDS):
            for block in (*blocks, *slopes):
                told_M += block.step(expected_M * np.exp(np.clip(told_M, -8.0, 8.0)), click_M)
        weights = {kind: block.weight_K for kind, block in zip(unique, blocks, strict=False)}
        price_U2 = np.stack([slope.weight_K for slope in slopes], axis=1)
        return cls(items, who_ids, {kind: cell_K for kind, (cell_K, _) in unique.items()}, weights, price_U2), told_M


class _Block:
    """Weights that no pair has two of, so that a Newton step of all of them is a few sums."""

    def __init__(self, place_M: Ints, precision_K: Floats, x_M: Floats | None = None) -> None:
        self.place_M, self.precision_K, self.x_M = place_M, precision_K, x_M
        self.weight_K = np.zeros(precision_K.size)

    def step(self, rate_M: Floats, click_M: Floats) -> Floats:
        """Move the weights; (M,) what that adds to the pairs' logarithms."""
        x_M, size = self.x_M, self.weight_K.size
        left_M = click_M - rate_M
        told_K = np.bincount(self.place_M, left_M if x_M is None else left_M * x_M, size)
        spread_K = np.bincount(self.place_M, rate_M if x_M is None else rate_M * x_M**2, size)
        step_K = (told_K - self.precision_K * self.weight_K) / (spread_K + self.precision_K)
        step_K = np.clip(step_K, -LONGEST_STEP, LONGEST_STEP)
        self.weight_K += step_K
        moved_M: Floats = step_K[self.place_M] * (1.0 if x_M is None else x_M)
        return moved_M
