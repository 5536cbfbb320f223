"""Counting in order: what followed an item, what came before it, and what shares its users.

The yardstick that a network has to beat: fitted in a second, and hard to beat where histories are short.
Choices. Pairs within `window` places, weight 1/distance, because the next item matters most and the order within a
day is real. Forward and backward transitions are kept apart (a refill follows a starter set, not the other way) and
damped by powers of both popularities. History items lose weight by place, not by time: a history says more by its
order than by its clock. The values are chosen by `tune`, on a slice that the fit has not seen; none is a constant.
Source: item-to-item transitions as in Ludewig & Jannach, 2018 (SR, with decay); cosine: Deshpande & Karypis, 2004.
Shapes: U users, I items, B asked users, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.interactions import DAY_S, Floats32, Interactions

Params = TypeVar("Params")


@dataclass(frozen=True)
class TransitionParams:
    """`decay`: weight of a history item per place from its end; `backward`, `cosine`: shares beside forward = 1."""

    window: int = 10
    decay: float = 0.5
    backward: float = 0.3
    cosine: float = 0.3
    source_power: float = 0.5
    target_power: float = 0.3
    half_life_days: float = 1e9  # of a pair, seen from the newest row of the data


def directed(data: Interactions, window: int, half_life_days: float = 1e9) -> sp.csr_matrix:
    """(I, I) sum of 1/distance over ordered pairs of one history at most `window` apart, decayed by age."""
    owner, newest = data.owner_R, int(data.ts_R.max()) if data.ts_R.size else 0
    total = sp.csr_matrix((data.n_items, data.n_items))
    for distance in range(1, window + 1):
        same = owner[distance:] == owner[:-distance]
        source, target = data.item_R[:-distance][same], data.item_R[distance:][same]
        age = (newest - data.ts_R[distance:][same]) / DAY_S
        weight = np.exp2(-age / half_life_days) / distance
        total = total + sp.csr_matrix((weight, (source, target)), shape=total.shape)
    total.setdiag(0)
    total.eliminate_zeros()
    return total.tocsr()


def cosine(data: Interactions, shrinkage: float = 1.0) -> sp.csr_matrix:
    """(I, I) cosine of items over users, without the diagonal; long histories count less (1 / sqrt of length)."""
    weight = 1.0 / np.sqrt(np.sqrt(np.maximum(data.length_U, 1)))[data.owner_R]
    held = data.matrix(weight)
    product = (held.T @ held).tocsr()
    norm = np.sqrt(product.diagonal() + 1e-9)
    row = np.repeat(np.arange(product.shape[0]), np.diff(product.indptr))
    product.data /= norm[row] * norm[product.indices] + shrinkage
    product.setdiag(0)
    product.eliminate_zeros()
    return product.tocsr()


def damped(counts: sp.csr_matrix, source_power: float, target_power: float) -> sp.csr_matrix:
    """Divide by powers of the row and column sums, so that the popular neither speak nor are named too much."""
    row = np.asarray(counts.sum(axis=1)).ravel() + 1.0
    column = np.asarray(counts.sum(axis=0)).ravel() + 1.0
    return (sp.diags(row**-source_power) @ counts @ sp.diags(column**-target_power)).tocsr()


def decayed(asked: Interactions, decay: float) -> sp.csr_matrix:
    """(B, I) weights of the history: decay ** place from the end."""
    return asked.matrix(decay ** asked.from_end_R.astype(np.float64))


@dataclass(frozen=True)
class Counts:
    """The relations before damping: they depend on the data and the window alone, so a search reuses them."""

    forward: sp.csr_matrix
    cosine: sp.csr_matrix

    @classmethod
    def fit(cls, data: Interactions, params: TransitionParams) -> Counts:
        """Count once."""
        return cls(directed(data, params.window, params.half_life_days), cosine(data))


@dataclass(frozen=True)
class TransitionModel:
    """One (I, I) matrix; a score is linear in the history, so its explanation is exact."""

    relation: sp.csr_matrix
    params: TransitionParams

    @classmethod
    def fit(cls, data: Interactions, params: TransitionParams, counts: Counts | None = None) -> TransitionModel:
        """Count and mix; `counts` saves the counting where only the mix changed."""
        counts = counts or Counts.fit(data, params)
        powers = (params.source_power, params.target_power)
        mixed = damped(counts.forward, *powers)
        if params.backward:
            mixed = mixed + params.backward * damped(counts.forward.T.tocsr(), *powers)
        if params.cosine:
            mixed = mixed + params.cosine * counts.cosine
        return cls(mixed.tocsr(), params)

    def scores(self, asked: Interactions) -> Floats32:
        """(B, I)."""
        return dense(decayed(asked, self.params.decay) @ self.relation)


def dense(matrix: sp.csr_matrix) -> Floats32:
    """A sparse product as float32 rows."""
    made: Floats32 = matrix.astype(np.float32).toarray()
    return made


def climb(
    start: Params, choices: Mapping[str, Sequence[Any]], value: Callable[[Params], float], rounds: int = 2
) -> tuple[Params, float, int]:
    """Coordinate search: each field in turn takes its best choice; returns (params, value, evaluations).

    Ties keep what stands, so the result does not depend on noise in the last digit of equal choices.
    """
    best, best_value, spent = start, value(start), 1
    for _ in range(rounds):
        before = best
        for name, options in choices.items():
            for option in options:
                if getattr(best, name) == option:
                    continue
                tried = replace(best, **{name: option})  # type: ignore[type-var]
                got, spent = value(tried), spent + 1
                if got > best_value:
                    best, best_value = tried, got
        if best == before:
            break
    return best, best_value, spent


CHOICES: dict[str, Sequence[Any]] = {
    "decay": (0.3, 0.5, 0.7, 0.85),
    "backward": (0.0, 0.3, 1.0),
    "cosine": (0.0, 0.3, 1.0, 3.0),
    "source_power": (0.3, 0.5, 0.8),
    "target_power": (0.0, 0.15, 0.3),
    "half_life_days": (1e9, 360.0, 90.0),
}


def tune(
    data: Interactions, value: Callable[[TransitionModel], float], start: TransitionParams | None = None
) -> tuple[TransitionParams, float]:
    """The best values of CHOICES by `value`, which must judge on rows that `data` does not hold."""
    known: dict[tuple[int, float], Counts] = {}

    def judged(params: TransitionParams) -> float:
        key = (params.window, params.half_life_days)
        if key not in known:
            known[key] = Counts.fit(data, params)
        return value(TransitionModel.fit(data, params, known[key]))

    best, best_value, _ = climb(start or TransitionParams(), CHOICES, judged)
    return best, best_value


def normalised(scores_BI: npt.NDArray[np.floating]) -> Floats32:
    """(B, I) each row divided by its largest value, zeros where a row says nothing."""
    top = np.abs(scores_BI).max(axis=1, keepdims=True)
    result: Floats32 = (scores_BI / np.where(top > 0, top, 1.0)).astype(np.float32)
    return result
