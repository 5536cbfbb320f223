"""Pools of scored candidates -> one page of modules, slot by slot, each slot with its exact probability.

Choices. Modules and their order are fixed before the first draw (they follow from the request), so the propensity
of a slot is the policy's probability of the item among what is allowed there, given the slots above. Diversity is a
greedy re-scoring (MMR on category and brand): each slot above lowers the utility of its like, before the draw.
Rules narrow `allowed` before the draw. A last module, `discover`, fills what is left, so that a page is short only
where items are.
Legend: I items of the catalogue, P candidates of a pool.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from models.policy import BoolArray, FloatArray, IntArray, SlotPolicy
from models.policy.plackett_luce import utilities
from models.rules import CompiledRules, ItemFacts

FILLER = "discover"


@dataclass(frozen=True)
class PageParams:
    """diversity: utility lost by an item whose like stands above; least: fewer candidates leave a module out."""

    diversity: float = 0.06
    least: int = 4


@dataclass(frozen=True)
class Pool:
    """One module's candidates, best first; `size` slots are wanted of it.

    `drawn_by_P`: what its slots are drawn by, where the module has an order of its own; it descends as well.
    """

    module: str
    title: str
    index_P: IntArray
    score_P: FloatArray
    size: int
    drawn_by_P: FloatArray | None = None

    @property
    def order_P(self) -> FloatArray:
        """(P,) what its slots are drawn by."""
        return np.asarray(self.score_P if self.drawn_by_P is None else self.drawn_by_P, dtype=np.float64)


class PlacedSlot(NamedTuple):
    """One slot of the page; `item` is the place in the catalogue."""

    position: int
    module: str
    title: str
    item: int
    score: float
    propensity: float
    explored: bool


@dataclass
class _Draft:
    """The page while it is composed; arrays by code, with one place more for "unknown" (code -1), which stays 0."""

    page_size: int
    used_I: BoolArray
    pins: dict[int, int]
    category_N: FloatArray  # 1 - 0.5 ** (slots above of this category): what diversity takes
    brand_N: FloatArray
    caps: list[IntArray]
    slots: list[PlacedSlot] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)


class Composer:
    """Composes pages of one catalogue under one set of rules; immutable."""

    def __init__(self, facts: ItemFacts, rules: CompiledRules, policy: SlotPolicy, params: PageParams) -> None:
        self.facts, self.rules, self.policy, self.params = facts, rules, policy, params

    def compose(
        self, pools: Sequence[Pool], filler: Pool, eligible_I: BoolArray, page_size: int, rng: np.random.Generator
    ) -> tuple[list[PlacedSlot], Counter[str]]:
        """At most page_size slots, no item twice, only eligible ones; and how often each kind of rule acted."""
        blocked_I = ~eligible_I | self.rules.excluded_I
        pins = {p: i for p, i in self.rules.pins.items() if p <= page_size and not blocked_I[i]}
        draft = _Draft(page_size, blocked_I, pins, *self._counts(), caps=self._cap_counts(pins))
        draft.hits["exclude"] = int((self.rules.excluded_I & eligible_I).sum())
        draft.used_I[list(pins.values())] = True  # kept for its own slot
        for pool in (*pools, filler):
            self._fill(draft, pool, page_size if pool is filler else pool.size, pool is filler, rng)
        return draft.slots, draft.hits

    def _counts(self) -> tuple[FloatArray, FloatArray]:
        facts = self.facts
        sizes = (int(code_I.max(initial=-1)) + 2 for code_I in (facts.category_code_I, facts.brand_code_I))
        category_N, brand_N = (np.zeros(size) for size in sizes)
        return category_N, brand_N

    def _cap_counts(self, pins: dict[int, int]) -> list[IntArray]:
        """What pins take of each cap beforehand."""
        counts = []
        for code_I, _, first in self.rules.caps:
            count_N = np.zeros(int(code_I.max(initial=-1)) + 2, dtype=np.int64)
            for position, item in pins.items():
                if position <= first and code_I[item] >= 0:
                    count_N[code_I[item]] += 1
            counts.append(count_N)
        return counts

    def _fill(self, draft: _Draft, pool: Pool, size: int, last: bool, rng: np.random.Generator) -> None:
        free_P = ~draft.used_I[pool.index_P]
        size = min(size, draft.page_size - len(draft.slots))
        if size <= 0 or (not last and int(free_P.sum()) < min(self.params.least, size)):
            return
        free = np.flatnonzero(free_P)
        near, whole = _Part(pool, free[: 2 * size + 20], self), None  # the rest only where rules leave nothing
        for _ in range(size):
            position = len(draft.slots) + 1
            if position in draft.pins:
                self._put(draft, pool, draft.pins[position], 1.0, 1.0, False)
                draft.hits["pin"] += 1
            elif not self._draw(draft, near, False, rng):
                whole = whole or _Part(pool, free, self)
                if not self._draw(draft, whole, last, rng):
                    return

    def _draw(self, draft: _Draft, part: _Part, last: bool, rng: np.random.Generator) -> bool:
        """Draw one slot from the part; False where the rules leave nothing of it."""
        allowed_P = ~draft.used_I[part.index_P]
        for count_N, (code_I, most, first) in zip(draft.caps, self.rules.caps, strict=True):
            if len(draft.slots) < first:
                code_P = code_I[part.index_P]
                blocked_P = (count_N[code_P] >= most) & (code_P >= 0)
                draft.hits["cap"] += int((blocked_P & allowed_P).any())
                allowed_P &= ~blocked_P
        if self._must_be_new(draft):
            new_P = allowed_P & self.rules.new_I[part.index_P]
            if new_P.any() or not last:
                draft.hits["new"] += int(new_P.any())
                allowed_P = new_P
        if not np.count_nonzero(allowed_P):
            return False
        choice = self.policy.choose(self._utility(draft, part), allowed_P, rng)
        item, score = int(part.index_P[choice.place]), float(part.score_P[choice.place])
        for count_N, (code_I, _, first) in zip(draft.caps, self.rules.caps, strict=True):
            if len(draft.slots) < first and code_I[item] >= 0:
                count_N[code_I[item]] += 1
        draft.hits["lift"] += int(self.rules.lift_I[item] != 0)
        self._put(draft, part.pool, item, score, choice.propensity, choice.explored)
        return True

    def _utility(self, draft: _Draft, part: _Part) -> FloatArray:
        if not self.params.diversity or not draft.slots:
            return part.utility_P
        like_P = draft.brand_N[part.brand_P]
        like_P *= 0.5
        like_P += draft.category_N[part.category_P]
        like_P *= -self.params.diversity
        like_P += part.utility_P
        return like_P

    def _must_be_new(self, draft: _Draft) -> bool:
        if not self.rules.at_least_new:
            return False
        done = sum(bool(self.rules.new_I[slot.item]) for slot in draft.slots)
        coming = [item for position, item in draft.pins.items() if position > len(draft.slots)]
        missing = self.rules.at_least_new - done - sum(bool(self.rules.new_I[item]) for item in coming)
        return missing > 0 and draft.page_size - len(draft.slots) - len(coming) <= missing

    def _put(self, draft: _Draft, pool: Pool, item: int, score: float, propensity: float, explored: bool) -> None:
        position = len(draft.slots) + 1
        draft.slots.append(PlacedSlot(position, pool.module, pool.title, item, _finite(score), propensity, explored))
        draft.used_I[item] = True
        for like_N, code_I in (
            (draft.category_N, self.facts.category_code_I),
            (draft.brand_N, self.facts.brand_code_I),
        ):
            if code_I[item] >= 0:
                like_N[code_I[item]] = (1 + like_N[code_I[item]]) / 2


class _Part:
    """Some rows of a pool, that a slot is drawn from, with their utilities and codes."""

    def __init__(self, pool: Pool, rows: IntArray, composer: Composer) -> None:
        self.pool, self.index_P = pool, pool.index_P[rows]
        self.score_P = np.asarray(pool.score_P, dtype=np.float64)[rows]
        self.utility_P = utilities(pool.order_P[rows]) + composer.rules.lift_I[self.index_P]
        self.category_P = composer.facts.category_code_I[self.index_P]
        self.brand_P = composer.facts.brand_code_I[self.index_P]


def _finite(score: float) -> float:
    """Scores go into JSON, which has no NaN and no infinity."""
    return score if math.isfinite(score) else 0.0 if math.isnan(score) else math.copysign(1e30, score)
