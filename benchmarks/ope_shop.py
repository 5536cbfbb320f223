"""A corner of the simulated shop small enough that the value of any page policy is a sum: the truth for estimators.

Sessions, candidates and click probabilities come from `models.simulator`; every page of `slots` out of `candidates` is
enumerated, so that probabilities, marginals and values are exact. SIMULATED. `effect` breaks assumptions on purpose:
"cascade" lets a shopper leave after a click, "page" lets the last slot lift the first.
Shapes: B contexts, C candidates, K slots, P pages (orderings), N logged pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from models.ope import SlotLog
from models.ope.estimators import Floats
from models.ope.log import Bools, Ints
from models.simulator import Shop, SimulatorParams

STAYS_AFTER_CLICK, LIFT = 0.3, 3.0
SHOP = SimulatorParams(users=300, items=240, sessions_per_day=400, days=2, bots=0, click_bias=-2.4)


@dataclass(frozen=True, eq=False)
class Sample:
    """N logged pages: context, page, clicks (N, K)."""

    context_N: Ints
    page_N: Ints
    click_NK: Floats


class Corner:
    """B sessions, each with C candidates; a policy is given by utilities (B, C) and drawn as Plackett-Luce."""

    def __init__(self, contexts: int = 150, candidates: int = 8, slots: int = 3, effect: str = "", seed: int = 0):
        shop, rng = Shop(SHOP, seed=seed), np.random.default_rng([seed, 1])
        batch = shop.open(0)
        rows_B = rng.choice(len(batch), contexts, replace=False)
        shelf = np.flatnonzero(shop.truth.catalogue.available(0))
        self.item_BC = np.stack([rng.choice(shelf, candidates, replace=False) for _ in range(contexts)])
        chances = shop.probabilities(batch, rows_B, self.item_BC, np.ones_like(self.item_BC))
        self.attract_BC = np.clip(chances.attract, 0.002, 0.9)
        self.popular_BC = (
            np.log(shop.truth.catalogue.price_I[self.item_BC]) + shop.truth.catalogue.appeal_I[self.item_BC]
        )
        self.page_PK = np.array(list(permutations(range(candidates), slots)))
        self.look_K = shop.truth.examination(np.arange(1, slots + 1))
        self.effect, self.slots = effect, slots

    def slot_probabilities(self, utility_BC: Floats) -> Floats:
        """(B, P, K) probability of each slot's item given the slots above, under Plackett-Luce."""
        weight_BC = np.exp(utility_BC - utility_BC.max(axis=1, keepdims=True))
        chosen_BPK = weight_BC[:, self.page_PK]
        above_BPK = np.cumsum(chosen_BPK, axis=2) - chosen_BPK
        return chosen_BPK / (weight_BC.sum(axis=1)[:, None, None] - above_BPK)

    def expected_clicks(self) -> Floats:
        """(B, P, K) expected clicks of every slot of every page."""
        attract_BPK = self.attract_BC[:, self.page_PK]
        click_BPK = attract_BPK * self.look_K
        if self.effect == "cascade":
            stays_BPK = np.cumprod(1 - (1 - STAYS_AFTER_CLICK) * click_BPK, axis=2)
            click_BPK = click_BPK * np.concatenate([np.ones_like(stays_BPK[..., :1]), stays_BPK[..., :-1]], axis=2)
        if self.effect == "page":
            lift_BP = 1 + LIFT * (attract_BPK[..., -1] > np.median(self.attract_BC))
            click_BPK = np.concatenate(
                [np.minimum(0.95, click_BPK[..., :1] * lift_BP[..., None]), click_BPK[..., 1:]], 2
            )
        return click_BPK

    def value(self, slot_BPK: Floats) -> float:
        """Clicks a page of a policy with these slot probabilities, exactly."""
        return float((slot_BPK.prod(axis=2) * self.expected_clicks().sum(axis=2)).sum(axis=1).mean())

    def marginals(self, slot_BPK: Floats) -> Floats:
        """(B, K, C) probability of an item at a position."""
        page_BP = slot_BPK.prod(axis=2)
        marginal_BKC = np.zeros((*page_BP.shape[:1], self.slots, self.item_BC.shape[1]))
        for slot in range(self.slots):
            for item in range(self.item_BC.shape[1]):
                marginal_BKC[:, slot, item] = page_BP[:, self.page_PK[:, slot] == item].sum(axis=1)
        return marginal_BKC

    def draw(self, slot_BPK: Floats, pages: int, rng: np.random.Generator) -> Sample:
        """Log some pages of a policy; clicks are independent given the expected ones."""
        context_N = rng.integers(len(slot_BPK), size=pages)
        edge_BP = np.cumsum(slot_BPK.prod(axis=2), axis=1)
        shifted = (edge_BP / edge_BP[:, -1:] + np.arange(len(edge_BP))[:, None]).ravel()
        at = np.searchsorted(shifted, rng.random(pages) + context_N) - context_N * edge_BP.shape[1]
        page_N = np.clip(at, 0, edge_BP.shape[1] - 1)
        click_NK = rng.random((pages, self.slots)) < self.expected_clicks()[context_N, page_N]
        return Sample(context_N, page_N, click_NK.astype(np.float64))

    def log(self, sample: Sample, slot_BPK: Floats, utility_BC: Floats) -> SlotLog:
        """The sample as a service would log it."""
        n, k = sample.click_NK.shape
        place_NK = self.page_PK[sample.page_N]
        item_NK = self.item_BC[sample.context_N[:, None], place_NK]
        kinds, item = np.unique(item_NK, return_inverse=True)
        return SlotLog(
            np.repeat(np.arange(n), k), np.tile(np.arange(1, k + 1), n), item.ravel(),
            slot_BPK[sample.context_N, sample.page_N].ravel(), self._explored(utility_BC, sample, place_NK).ravel(),
            sample.click_NK.ravel(), np.repeat(np.arange(n), k),
            tuple(f"r{at}" for at in range(n)), tuple(f"i{at}" for at in kinds), tuple(f"s{at}" for at in range(n)),
            0, 0,
        )  # fmt: skip

    def _explored(self, utility_BC: Floats, sample: Sample, place_NK: Ints) -> Bools:
        left_NC = utility_BC[sample.context_N].copy()
        explored_NK = np.zeros(place_NK.shape, np.bool_)
        rows = np.arange(len(left_NC))
        for slot in range(place_NK.shape[1]):
            explored_NK[:, slot] = left_NC.argmax(axis=1) != place_NK[:, slot]
            left_NC[rows, place_NK[:, slot]] = -np.inf
        return explored_NK
