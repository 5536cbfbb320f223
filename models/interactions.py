"""Who took what, in which order: the flat form that every retriever of the benchmark reads.

Choices. Rows lie user by user in the order of their history, because the order within a day carries signal that the
timestamps do not have. The same type serves as training data and as the histories that are asked about, so a model
cannot know more of a user at serving than in training. Users are rows, never features.
Shapes: U users, R rows, I items, B asked users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

DAY_S = 86_400
CELLS = 1 << 23  # scores in memory at once: 32 MiB for each retriever


@dataclass(frozen=True)
class Interactions:
    """U histories: rows indptr_U[u] to indptr_U[u + 1], oldest first; `as_of_U` is the moment (Unix seconds) asked."""

    indptr_U: Ints  # (U + 1,)
    item_R: Ints
    ts_R: Ints
    as_of_U: Ints
    n_items: int

    @classmethod
    def of_rows(cls, user: Ints, item: Ints, ts: Ints, n_items: int, as_of: int | None = None) -> Interactions:
        """Rows sorted by user and place; `as_of` None asks about the moment of each user's last row."""
        starts = np.flatnonzero(np.append(True, np.diff(user) != 0)) if user.size else np.zeros(0, dtype=np.int64)
        indptr = np.append(starts, user.size).astype(np.int64)
        last = ts[indptr[1:] - 1] if user.size else np.zeros(0, dtype=np.int64)
        return cls(indptr, item, ts, last if as_of is None else np.full(starts.size, as_of, dtype=np.int64), n_items)

    def __len__(self) -> int:
        return self.indptr_U.size - 1

    @property
    def length_U(self) -> Ints:
        """(U,) rows of each history."""
        return np.diff(self.indptr_U)

    @property
    def owner_R(self) -> Ints:
        """(R,) the user of each row."""
        return np.repeat(np.arange(len(self)), self.length_U)

    @property
    def from_end_R(self) -> Ints:
        """(R,) 0 for a user's last row, 1 for the one before it ..."""
        return np.repeat(self.indptr_U[1:], self.length_U) - 1 - np.arange(self.item_R.size)

    def users(self, at: Ints) -> Interactions:
        """Some users, in the given order."""
        length = self.length_U[at]
        indptr = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
        rows = np.arange(indptr[-1]) + np.repeat(self.indptr_U[at] - indptr[:-1], length)
        return Interactions(indptr, self.item_R[rows], self.ts_R[rows], self.as_of_U[at], self.n_items)

    def counts_I(self) -> Floats:
        """(I,) rows of each item."""
        return np.bincount(self.item_R, minlength=self.n_items).astype(np.float64)

    def matrix(self, weight_R: npt.NDArray[np.floating]) -> sp.csr_matrix:
        """(U, I) sums of weights."""
        made = sp.csr_matrix((weight_R, self.item_R, self.indptr_U), shape=(len(self), self.n_items))
        made.sum_duplicates()
        return made

    def sequences(self) -> list[Ints]:
        """The items of each user, oldest first."""
        return np.split(self.item_R, self.indptr_U[1:-1])


def chunks(users: int, n_items: int) -> list[Ints]:
    """User numbers in parts, so that the scores of a part are at most CELLS cells (and at least one user's)."""
    size = max(1, min(512, CELLS // max(n_items, 1)))
    return [np.arange(start, min(start + size, users)) for start in range(0, users, size)]


class Retriever(Protocol):
    """Scores every item for histories; higher is better."""

    def scores(self, asked: Interactions) -> Floats32:
        """(B, I)."""
        ...
