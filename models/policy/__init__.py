"""Policies: utilities of candidates -> one slot at a time, each with the exact probability of what was chosen.

One protocol for all of them, so that the page and the tests do not care which one serves. A policy is asked slot by
slot, because modules, rules and diversity change what may stand in the next slot; the probability that it returns is
that of its own draw among the candidates allowed there, which is what the log needs.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


class Choice(NamedTuple):
    """What stands in one slot: the candidate's place, its exact probability, and what greed would have put there."""

    place: int
    propensity: float
    greedy: int

    @property
    def explored(self) -> bool:
        """True where the slot differs from the greedy one."""
        return self.place != self.greedy


class SlotPolicy(Protocol):
    """Chooses one candidate for one slot."""

    @property
    def name(self) -> str:
        """Name with its settings, as it is logged."""
        ...

    def choose(self, utility_C: FloatArray, allowed_C: BoolArray, rng: np.random.Generator) -> Choice:
        """One draw among the allowed candidates, at least one of them; utilities are finite, higher is better."""
        ...
