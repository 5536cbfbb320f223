"""A reward model for the doubly robust estimators: linear, fitted on the other folds.

Choices. Logistic for clicks, ridge for amounts, both by Newton's method on a few columns: a model need not be good for
DR to be right, it must only not have seen the round that it corrects, hence cross-fitting (Chernozhukov et al., 2018).
Where a few clicks are all there is, the penalty decides what the model says: it is the one that held-out rounds like.
Shapes: N rounds, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from models.ope.estimators import Floats

Ints = npt.NDArray[np.int64]
STEPS = 25
PENALTIES = (1.0, 10.0, 100.0, 1e3, 1e4)  # the last leaves the mean reward alone


@dataclass(frozen=True, eq=False)
class RewardModel:
    """Expected reward, linear in standardised features (`binary`: on the logit scale)."""

    mean_F: Floats
    scale_F: Floats
    weight_G: Floats  # F weights and the constant
    binary: bool

    @classmethod
    def fit(cls, x_NF: Floats, reward_N: Floats, penalty: float = 1.0) -> RewardModel:
        """Least penalised loss; `penalty` is that of the squared weights, in rounds."""
        mean_F, std_F = x_NF.mean(axis=0), x_NF.std(axis=0)
        scale_F = np.where(std_F > 1e-9, 1.0 / np.maximum(std_F, 1e-9), 0.0)
        z_NG = np.column_stack([(x_NF - mean_F) * scale_F, np.ones(len(x_NF))])
        ridge_G = np.full(z_NG.shape[1], penalty)
        ridge_G[-1] = 1e-6
        binary = bool(np.isin(reward_N, (0.0, 1.0)).all())
        weight_G = np.zeros(z_NG.shape[1])
        if binary:
            rate = (reward_N.sum() + 0.5) / (reward_N.size + 1.0)
            weight_G[-1] = np.log(rate / (1 - rate))
        for _ in range(STEPS if binary else 1):
            said_N = expit(z_NG @ weight_G) if binary else z_NG @ weight_G
            bend_N = np.maximum(said_N * (1 - said_N), 1e-6) if binary else np.ones(len(z_NG))
            slope_G = z_NG.T @ (said_N - reward_N) + ridge_G * weight_G
            step_G = np.linalg.solve((z_NG * bend_N[:, None]).T @ z_NG + np.diag(ridge_G), slope_G)
            weight_G = weight_G - step_G
            if float(np.abs(step_G).max()) < 1e-8:
                break
        return cls(mean_F, scale_F, weight_G, binary)

    @classmethod
    def tuned(cls, x_NF: Floats, reward_N: Floats, who_N: Ints, folds: int = 3) -> RewardModel:
        """Fitted with the penalty of the least held-out loss; rounds of one `who_N` are held out together."""
        fold_N = np.unique(who_N, return_inverse=True)[1] % folds
        loss = dict.fromkeys(PENALTIES, 0.0)
        for penalty in PENALTIES:
            for fold in range(folds):
                held_N = fold_N == fold
                model = cls.fit(x_NF[~held_N], reward_N[~held_N], penalty)
                loss[penalty] += model.loss(x_NF[held_N], reward_N[held_N])
        return cls.fit(x_NF, reward_N, min(loss, key=loss.__getitem__))

    def loss(self, x_NF: Floats, reward_N: Floats) -> float:
        """Sum over rounds: cross-entropy of clicks, squared error of amounts."""
        said_N = self.predict(x_NF)
        if not self.binary:
            return float(((said_N - reward_N) ** 2).sum())
        said_N = np.clip(said_N, 1e-9, 1 - 1e-9)
        return float(-(reward_N * np.log(said_N) + (1 - reward_N) * np.log1p(-said_N)).sum())

    def predict(self, x_F: Floats) -> Floats:
        """(..., F) -> (...) expected reward."""
        said = ((x_F - self.mean_F) * self.scale_F) @ self.weight_G[:-1] + self.weight_G[-1]
        return np.asarray(expit(said) if self.binary else said, dtype=np.float64)


def cross_fitted(x_NF: Floats, reward_N: Floats, folds: int, seed: int) -> Iterator[tuple[Ints, RewardModel]]:
    """(rows, a model that was fitted without them), `folds` times; the folds are drawn."""
    order = np.random.default_rng(seed).permutation(reward_N.size)
    for held in np.array_split(order, folds):
        others = np.setdiff1d(order, held)
        yield held, RewardModel.fit(x_NF[others], reward_N[others])
