"""The simple rankers that a table must hold: popularity, what a user took before, and neighbours.

Choices. Each one is as strong as a careful engineer would make it in an afternoon; half-lives and decays are chosen by
the caller on a slice before the cut.
Shapes: B asked users, I items, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from models.interactions import DAY_S, Floats, Floats32, Interactions
from models.transitions import cosine, decayed, dense


def recent_counts(data: Interactions, half_life_days: float, as_of: int | None = None) -> Floats:
    """(I,) counts that halve every half-life, seen from `as_of` (default: the newest row)."""
    newest = (int(data.ts_R.max()) if data.ts_R.size else 0) if as_of is None else as_of
    age = np.maximum(newest - data.ts_R, 0) / DAY_S
    counts = np.bincount(data.item_R, weights=np.exp2(-age / half_life_days), minlength=data.n_items)
    return counts.astype(np.float64)


@dataclass(frozen=True)
class Popular:
    """The same list for everybody."""

    count_I: Floats

    def scores(self, asked: Interactions) -> Floats32:
        """(B, I)."""
        return np.tile(self.count_I.astype(np.float32), (len(asked), 1))


@dataclass(frozen=True)
class OwnCounts:
    """How often the user took the item; ties by what is popular."""

    count_I: Floats

    def scores(self, asked: Interactions) -> Floats32:
        """(B, I)."""
        own = dense(asked.matrix(np.ones(asked.item_R.size)))
        tie_I = 0.5 * self.count_I / max(float(self.count_I.max()), 1.0)
        result: Floats32 = own + tie_I.astype(np.float32)
        return result


@dataclass(frozen=True)
class OwnRecent:
    """What the user took lately: every row loses `decay` per place from the end."""

    decay: float

    def scores(self, asked: Interactions) -> Floats32:
        """(B, I)."""
        return dense(decayed(asked, self.decay))


@dataclass(frozen=True)
class ItemKnn:
    """Cosine neighbours over users of a history that loses `decay` per place."""

    relation: sp.csr_matrix
    decay: float

    @classmethod
    def fit(cls, data: Interactions, decay: float) -> ItemKnn:
        """Count."""
        return cls(cosine(data), decay)

    def scores(self, asked: Interactions) -> Floats32:
        """(B, I)."""
        return dense(decayed(asked, self.decay) @ self.relation)
