"""iALS: matrix factorisation of implicit feedback by alternating least squares.

Choices. User factors are never kept: a history is folded in when it is asked about, by the same ridge regression that
training uses, so a stranger's two items work as well as a known user's. The penalty of a row grows with its count
(frequency scaling), which is what made the old model hold up against newer ones.
Source: Hu, Koren & Volinsky, 2008; Rendle et al., 2022 (frequency scaling).
Shapes: U users, I items, D factors, B asked users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from models.interactions import Floats32, Interactions
from models.transitions import decayed

BATCH = 1024


@dataclass(frozen=True)
class AlsParams:
    """`unobserved`: weight of everything not taken; `decay`: weight of a history item per place when asked."""

    factors: int = 64
    rounds: int = 8
    penalty: float = 0.003
    unobserved: float = 0.003
    scaling: float = 1.0
    decay: float = 0.7
    seed: int = 3


def solve(matrix: sp.csr_matrix, other_ID: Floats32, params: AlsParams) -> Floats32:
    """(rows, D) least squares of each sparse row on the other side's factors."""
    d = other_ID.shape[1]
    base_DD = params.unobserved * (other_ID.T @ other_ID)
    found = np.zeros((matrix.shape[0], d), dtype=np.float32)
    for start in range(0, matrix.shape[0], BATCH):
        part = matrix[start : start + BATCH].tocsr()
        outer_XDD = np.zeros((part.shape[0], d, d), dtype=np.float32)
        for row in range(part.shape[0]):
            held = slice(part.indptr[row], part.indptr[row + 1])
            factor_KD = other_ID[part.indices[held]]
            outer_XDD[row] = (factor_KD * part.data[held, None]).T @ factor_KD
        mass = np.asarray(part.sum(axis=1)).ravel() + params.unobserved * other_ID.shape[0]
        ridge = params.penalty * mass**params.scaling
        outer_XDD += base_DD + ridge[:, None, None] * np.eye(d, dtype=np.float32)
        right_XD = np.asarray(part @ other_ID)
        found[start : start + BATCH] = np.linalg.solve(outer_XDD, right_XD[:, :, None])[:, :, 0]
    return found


@dataclass(frozen=True)
class AlsModel:
    """(I, D) item factors."""

    item_ID: Floats32
    params: AlsParams

    @classmethod
    def fit(cls, data: Interactions, params: AlsParams) -> AlsModel:
        """Alternate `rounds` times; deterministic for a seed."""
        held = data.matrix(np.ones(data.item_R.size, dtype=np.float32)).astype(np.float32)
        turned = held.T.tocsr()
        rng = np.random.default_rng(params.seed)
        scale = 0.1 / np.sqrt(params.factors)
        item_ID = (rng.standard_normal((data.n_items, params.factors)) * scale).astype(np.float32)
        for _ in range(params.rounds):
            user_UD = solve(held, item_ID, params)
            item_ID = solve(turned, user_UD, params)
        return cls(item_ID, params)

    def scores(self, asked: Interactions) -> Floats32:
        """(B, I) by folding the histories in."""
        weights = decayed(asked, self.params.decay).astype(np.float32)
        result: Floats32 = solve(weights, self.item_ID, self.params) @ self.item_ID.T
        return result
