"""Page policies of the simulated shop itself: the one that made the log, and the yardsticks random, popular, oracle.

Choices. The logging policy is Plackett-Luce over a utility that it refreshes at night: the logarithm of decayed
popularity plus a noise for each item and day. Gumbel noise draws a whole page at once, and the propensity of each slot
given the slots above it is the softmax over what is left: exact.
Shapes: R sessions, K slots, I items.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from models.simulator.draws import Bools, Floats, Ints
from models.simulator.sessions import SessionBatch
from models.simulator.shop import Answers, Shop
from models.simulator.truth import Who


@dataclass(frozen=True, eq=False)
class Pages:
    """R pages of K slots, each (R, K); `explored`: another item than greed would put there."""

    item_RK: Ints
    score_RK: Floats
    propensity_RK: Floats
    explored_RK: Bools


class PagePolicy(Protocol):
    """Fills pages for many sessions of the simulated shop at once, and may learn at night."""

    @property
    def name(self) -> str:
        """Name with its settings, as it is logged."""
        ...

    def pages(self, shop: Shop, batch: SessionBatch, rows_R: Ints, shelf_I: Bools, rng: np.random.Generator) -> Pages:
        """One page of `page_size` slots for each session, from what is on the shelf."""
        ...

    def learn(self, answers: list[Answers], rng: np.random.Generator) -> None:
        """What the day's shoppers did, before the next day opens."""
        ...


def points(answers: Answers) -> Floats:
    """(R, K) what popularity counts: a click 1, a cart 3 more, a purchase 9 more."""
    return np.asarray(answers.clicked_RK + 3.0 * answers.carted_RK + 9.0 * answers.bought_RK)


class Popularity:
    """Utility of an item = weight x log(1 + decayed points) + a noise drawn each night."""

    def __init__(self, items: int, weight: float = 0.6, noise: float = 0.3, decay: float = 0.9) -> None:
        self.weight, self.noise, self.decay = weight, noise, decay
        self._count_I, self.utility_I = np.zeros(items), np.zeros(items)

    def learn(self, answers: list[Answers], rng: np.random.Generator) -> None:
        """Fade what was counted, add the day, draw the noise."""
        self._count_I *= self.decay
        for one in answers:
            self._count_I += np.bincount(one.item_RK.ravel(), points(one).ravel(), self._count_I.size)
        noise_I = self.noise * rng.standard_normal(self._count_I.size)
        self.utility_I = self.weight * np.log1p(self._count_I) + noise_I


class PlackettLucePages(Popularity):
    """Samples pages; with weight and noise 0 it is the uniform policy."""

    @property
    def name(self) -> str:
        """Name with its settings."""
        return f"simulated-plackett-luce-w{self.weight:g}-n{self.noise:g}" if self.weight else "simulated-random"

    def pages(self, shop: Shop, batch: SessionBatch, rows_R: Ints, shelf_I: Bools, rng: np.random.Generator) -> Pages:
        """A draw of `page_size` items without replacement for each session."""
        shelf, k = np.flatnonzero(shelf_I), shop.params.page_size
        utility_S = self.utility_I[shelf] - self.utility_I[shelf].max()
        key_RS = rng.standard_exponential((rows_R.size, shelf.size), dtype=np.float64) / np.exp(utility_S)
        top_RK = np.argpartition(key_RS, k, axis=1)[:, :k]  # the smallest clocks, in a race
        top_RK = np.take_along_axis(top_RK, np.argsort(np.take_along_axis(key_RS, top_RK, 1), axis=1), 1)
        rank_S = np.empty(shelf.size, np.int64)
        rank_S[np.argsort(-utility_S, kind="stable")] = np.arange(shelf.size)
        return Pages(
            shelf[top_RK],
            self.utility_I[shelf][top_RK],
            slot_propensities(np.exp(utility_S), top_RK),
            explored_slots(rank_S[top_RK]),
        )


class CountedPages(Popularity):
    """The same page for everybody: what was clicked and bought most lately, counted anew each night."""

    name = "simulated-counted"

    def __init__(self, items: int) -> None:
        super().__init__(items, weight=1.0, noise=0.0)

    def pages(self, shop: Shop, batch: SessionBatch, rows_R: Ints, shelf_I: Bools, rng: np.random.Generator) -> Pages:
        """One page, repeated."""
        order = np.argsort(np.where(shelf_I, -self.utility_I, np.inf), kind="stable")[: shop.params.page_size]
        return _certain(np.tile(order, (rows_R.size, 1)), np.tile(self.utility_I[order], (rows_R.size, 1)))


class PopularPages:
    """The same page for everybody: the items that the average user likes best, from the truth.

    As good as popularity can be, so that the yardstick does not depend on how well a count was learned.
    """

    name = "simulated-popular"

    def __init__(self, shop: Shop) -> None:
        truth = shop.truth
        users = np.flatnonzero(~truth.people.bot_U)
        who = Who(users, 0, np.full(users.size, -1), np.zeros_like(users), np.zeros(users.size, np.bool_))
        self.rate_I = np.array([truth.fresh(who, item).click.mean() for item in range(shop.params.items)])

    def pages(self, shop: Shop, batch: SessionBatch, rows_R: Ints, shelf_I: Bools, rng: np.random.Generator) -> Pages:
        """One page, repeated."""
        order = np.argsort(np.where(shelf_I, -self.rate_I, np.inf), kind="stable")[: shop.params.page_size]
        return _certain(np.tile(order, (rows_R.size, 1)), np.tile(self.rate_I[order], (rows_R.size, 1)))

    def learn(self, answers: list[Answers], rng: np.random.Generator) -> None:
        """Nothing: it knows what is popular."""


class OraclePages:
    """The best page that there is, from the truth; `blind` to the session's intent: what a long history could tell."""

    def __init__(self, blind: bool = False) -> None:
        self.blind, self.name = blind, "simulated-oracle-blind" if blind else "simulated-oracle"

    def pages(self, shop: Shop, batch: SessionBatch, rows_R: Ints, shelf_I: Bools, rng: np.random.Generator) -> Pages:
        """Highest expected value of each session as it stands."""
        seen = replace(batch, intent_B=np.full(len(batch), -1)) if self.blind else batch
        item_RK = shop.oracle(seen, rows_R, shop.params.page_size, shelf_I)
        return _certain(item_RK, np.zeros(item_RK.shape))

    def learn(self, answers: list[Answers], rng: np.random.Generator) -> None:
        """Nothing: it knows."""


def _certain(item_RK: Ints, score_RK: Floats) -> Pages:
    return Pages(item_RK, score_RK, np.ones(item_RK.shape), np.zeros(item_RK.shape, np.bool_))


def slot_propensities(weight_S: Floats, place_RK: Ints) -> Floats:
    """(R, K) probability of each slot's candidate given the slots above: its weight over what is left of all weights.

    What is left is summed from the back, so that no small rest comes out of a difference of two large sums.
    """
    chosen_RK = weight_S[place_RK]
    rest_R = np.array([np.delete(weight_S, places).sum() for places in place_RK])
    left_RK = rest_R[:, None] + np.cumsum(chosen_RK[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(chosen_RK / left_RK, dtype=np.float64)


def explored_slots(rank_RK: Ints) -> Bools:
    """(R, K) which slots hold another item than greed would put there, from the items' ranks (0 is the best)."""
    rows, slots = rank_RK.shape
    used = np.zeros((rows, slots + 1), np.bool_)
    explored = np.zeros((rows, slots), np.bool_)
    for slot in range(slots):
        explored[:, slot] = rank_RK[:, slot] != used.argmin(axis=1)
        low = np.flatnonzero(rank_RK[:, slot] < slots)
        used[low, rank_RK[low, slot]] = True
    return explored
