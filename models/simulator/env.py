"""EDGE: the simulated shop as a Gymnasium environment: one episode is one session, one step fills one slot.

Choices. The agent sees what a shop could know (the user's clicks by category before, this session's clicks, the page so
far, the candidates' category, price and popularity), never taste or intent. An action is one of `candidates` items that
are drawn for each page. The reward comes with the last slot of a page: what the shopper did, in GBP, or its exact
expectation (`expected=True`, less noise). SIMULATED.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from models.simulator.draws import Floats, Ints
from models.simulator.logs import play
from models.simulator.pages import PlackettLucePages
from models.simulator.params import SimulatorParams
from models.simulator.sessions import SessionBatch, sessions_at
from models.simulator.shop import Shop

Observation = dict[str, Any]
HORIZON_DAYS = 60  # sessions of training are drawn from this many days after the warm-up


class PageEnv(gym.Env[Observation, np.int64]):
    """Fill pages of `page_size` slots from `candidates` items; an item that stands on the page leaves its slot empty.

    `observation_space` (L categories, C candidates): `history`, `session`, `page` (L,) shares; `category` (C,) codes;
    `price`, `popularity` (C,) in 0..1; `free` (C,) 1 where not yet on the page; `place` (2,) share of slots and pages
    used. `info` holds `value` and `oracle`: the exact values in GBP of the page that was shown and of the best page of
    the same candidates.
    """

    metadata = {"render_modes": []}

    def __init__(
        self,
        params: SimulatorParams | None = None,
        candidates: int = 40,
        page_size: int = 8,
        warm_days: int = 2,
        expected: bool = False,
    ) -> None:
        params = params or SimulatorParams()
        self.shop = Shop(params)
        self._candidates, self._size, self._expected = candidates, page_size, expected
        self._leaves = len(self.shop.truth.catalogue.leaf_LD)
        self._first_day = warm_days
        self._history_UL = np.zeros((len(self.shop.truth.people.user_ids), self._leaves))
        self._popular_I = self._warm_up(warm_days)
        share = gym.spaces.Box(0.0, 1.0, (self._leaves,), np.float64)
        unit = gym.spaces.Box(0.0, 1.0, (candidates,), np.float64)
        self.action_space = gym.spaces.Discrete(candidates)
        self.observation_space = gym.spaces.Dict(
            {
                "history": share,
                "session": share,
                "page": share,
                "category": gym.spaces.MultiDiscrete([self._leaves] * candidates),
                "price": unit,
                "popularity": unit,
                "free": gym.spaces.MultiBinary(candidates),
                "place": gym.spaces.Box(0.0, 1.0, (2,), np.float64),
            }
        )
        self._batch: SessionBatch
        self._clicked_L: Floats = np.zeros(self._leaves)
        self._item_C: Ints = np.zeros(candidates, np.int64)
        self._slots: list[int] = []  # candidates by slot, -1 for an empty one

    def _warm_up(self, days: int) -> Floats:
        """Play the first days with the logging policy: histories of clicks and (I,) popularity in 0..1."""
        leaf_I = self.shop.truth.catalogue.leaf_I
        policy = PlackettLucePages(len(leaf_I))
        for day in play(self.shop, policy, days, self.shop.seed):
            for wave in day.waves:
                r, k = np.nonzero(wave.answers.clicked_RK)
                np.add.at(self._history_UL, (day.batch.user_B[wave.rows_R[r]], leaf_I[wave.answers.item_RK[r, k]]), 1.0)
        low, high = float(policy.utility_I.min()), float(policy.utility_I.max())
        return np.asarray((policy.utility_I - low) / max(high - low, 1e-9))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new session of a user who has arrived; the same seed gives the same session, candidates and luck."""
        super().reset(seed=seed)
        people = self.shop.truth.people
        day = self._first_day + int(self.np_random.integers(HORIZON_DAYS))
        here = np.flatnonzero((people.arrival_U <= day) & ~people.bot_U)
        weight = people.visits_U[here] / people.visits_U[here].sum()
        user = self.np_random.choice(here, p=weight)
        visit = self.np_random.integers(4)
        self._batch = sessions_at(self.shop.truth, day, np.array([user]), np.array([visit]))
        self._clicked_L = np.zeros(self._leaves)
        self._new_page()
        return self._observe(), {}

    def _new_page(self) -> None:
        shelf = np.flatnonzero(self.shop.truth.catalogue.available(self._batch.day))
        self._item_C = self.np_random.choice(shelf, self._candidates, replace=False)
        self._slots = []

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Put a candidate into the next slot; the session may end with the page."""
        chosen = int(action)
        self._slots.append(-1 if chosen in self._slots else chosen)
        if len(self._slots) < self._size:
            return self._observe(), 0.0, False, False, {}
        reward, stays, info = self._show()
        if stays:
            self._new_page()
        return self._observe(), reward, not stays, False, info

    def slot_value(self, action: int) -> float:
        """Exact expected value in GBP of a candidate in the next slot, 0 where it stands on the page already."""
        if action in self._slots:
            return 0.0
        return float(self._value(self._item_C[[action]][None], np.array([[len(self._slots) + 1]]))[0, 0])

    def _show(self) -> tuple[float, bool, dict[str, Any]]:
        """Show the page that is full; the empty slots are left out."""
        rows = np.array([0])
        filled = [(slot, at) for slot, at in enumerate(self._slots, 1) if at >= 0]
        position_1K = np.array([[slot for slot, _ in filled]])
        item_1K = self._item_C[[at for _, at in filled]][None]
        best_C = np.argsort(-self._value(self._item_C[None], np.ones((1, self._candidates), np.int64))[0])
        best_1K = self._item_C[best_C[: self._size]][None]
        oracle = float(self._value(best_1K, np.arange(1, self._size + 1)[None]).sum())
        answers = self.shop.answer(self._batch, rows, item_1K, position_1K, remember=False)
        value = float(answers.expected_R[0])
        leaf_K = self.shop.truth.catalogue.leaf_I[item_1K[0]]
        self._clicked_L += np.bincount(leaf_K, answers.clicked_RK[0], self._leaves)
        reward = value if self._expected else float(answers.value(self.shop.truth).sum())
        return reward, bool(answers.stays_R[0]), {"value": value, "oracle": oracle}

    def _value(self, item_1K: Ints, position_1K: Ints) -> Floats:
        chances = self.shop.probabilities(self._batch, np.array([0]), item_1K, position_1K)
        return self.shop.truth.value(chances)

    def _observe(self) -> Observation:
        catalogue, p = self.shop.truth.catalogue, self.shop.params
        on_page = [at for at in self._slots if at >= 0]
        free_C = np.ones(self._candidates, np.int8)
        free_C[on_page] = 0
        price_C = np.log(catalogue.price_I[self._item_C]) / 6.0
        return {
            "history": _share(self._history_UL[self._batch.user_B[0]]),
            "session": _share(self._clicked_L),
            "page": np.bincount(catalogue.leaf_I[self._item_C[on_page]], minlength=self._leaves) / self._size,
            "category": catalogue.leaf_I[self._item_C],
            "price": np.clip(price_C, 0.0, 1.0),
            "popularity": self._popular_I[self._item_C],
            "free": free_C,
            "place": np.array([len(self._slots) / self._size, self._batch.pages_B[0] / p.max_pages]),
        }


def _share(count_L: Floats) -> Floats:
    return count_L / max(float(count_L.sum()), 1.0)
