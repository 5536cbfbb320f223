"""The simulated page as a problem for agents: an episode is a session, a step fills a slot. SIMULATED.

Choices. What an agent sees of a candidate is what a shop could know: popularity, price, how the person's history, this
session's clicks and the page so far lean to its category. The reward of a slot is its exact expected value in GBP, so
that thousands of sessions are enough; whether the shopper asks for another page is drawn, and depends on the clicks:
that is what a horizon above one page could use. Shapes: A candidates, F features.
"""

from __future__ import annotations

import numpy as np

from models.policy.rl.problem import Floats, View
from models.simulator.env import Observation, PageEnv
from models.simulator.params import SimulatorParams

NAMES = ("popularity", "price", "history", "session", "page", "slot", "later page", "history x popularity")


class PageProblem:
    """Fill pages of `slots` from `candidates` items until the shopper leaves."""

    def __init__(
        self, params: SimulatorParams | None = None, candidates: int = 20, slots: int = 6, discount: float = 0.95
    ) -> None:
        self.env = PageEnv(params, candidates, slots, expected=True)
        self.actions, self.features, self.discount = candidates, len(NAMES), discount
        self.states = 4 * slots
        self._slots = slots
        self._seen: Observation = {}
        self.values: list[float] = []  # of the pages of this session
        self.oracles: list[float] = []

    def reset(self, rng: np.random.Generator) -> View:
        """A new session."""
        self._seen, _ = self.env.reset(seed=int(rng.integers(2**31)))
        self.values, self.oracles = [], []
        return self._view()

    def step(self, action: int, rng: np.random.Generator) -> tuple[View, float, bool]:
        """Fill the next slot."""
        reward = self.env.slot_value(action)
        self._seen, _, ended, _, info = self.env.step(np.int64(action))
        if info:
            self.values.append(info["value"])
            self.oracles.append(info["oracle"])
        return self._view(), reward, ended

    def best(self) -> Floats:
        """(A,) the exact value of every candidate in the next slot: the oracle's eyes."""
        return np.array([self.env.slot_value(at) for at in range(self.actions)])

    def _view(self) -> View:
        seen = self._seen
        leaf_A = seen["category"]
        likes = [np.asarray(seen[name])[leaf_A] for name in ("history", "session", "page")]
        popular_A, price_A = seen["popularity"], seen["price"]
        slot, page = float(seen["place"][0]), float(seen["place"][1])
        same = np.ones(self.actions)
        x_AF = np.column_stack([popular_A, price_A, *likes, slot * same, page * same, likes[0] * popular_A])
        coarse = min(round(slot * self._slots), self._slots - 1) * 4 + 2 * (page > 0) + (likes[1].max() > 0)
        return View(int(coarse), x_AF, seen["free"].astype(np.bool_))
