"""Which slot of a page gets clicked: a conditional logit over a few live signals, fitted while the shop runs.

Choices. The model's score is one of the signals, so a trained ranker stays what it is until clicks say otherwise; a
shop without a ranker starts from prior weights that any shop would sign (what fits this session, what earns clicks)
and soon has its own. Conditional on a click, because then only the order matters, not how often somebody clicks at
all. A page's place effect is a signal of its own that is fitted and not used for ranking. Gaussian prior, Newton steps
(the likelihood is concave), a few thousand pages: milliseconds.
Source: McFadden (1974).
Shapes: M slots of all pages one after the other, F signals, N pages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

KEPT_PAGES = 3000
STEPS = 4


@dataclass(eq=False)
class ClickedPage:
    """Signals (S, F) of a page as they were served, and (S,) what was clicked (0 = not)."""

    x_SF: Floats32
    clicked_S: Floats32
    days: float


class Choices:
    """The newest clicked pages and the weights that explain them."""

    def __init__(self, prior_F: Sequence[float], prior_sd: float = 0.6, half_life_days: float = 14.0) -> None:
        self.prior_F = np.asarray([*prior_F, -1.0])  # the last is the place: log(position)
        self.weights_F: Floats = self.prior_F[:-1]
        self.pages: deque[ClickedPage] = deque(maxlen=KEPT_PAGES)
        self.added = 0
        self._precision, self._half = 1.0 / prior_sd**2, half_life_days

    def add(self, x_SF: Floats32, days: float) -> ClickedPage:
        """A page with its first click to come; the caller marks `clicked_S`."""
        place_S1 = np.log(np.arange(1, len(x_SF) + 1, dtype=np.float32))[:, None]
        page = ClickedPage(np.concatenate([x_SF, place_S1], axis=1), np.zeros(len(x_SF), np.float32), days)
        self.pages.append(page)
        self.added += 1
        return page

    def fit(self, days: float) -> None:
        """Newton steps from the prior to the posterior mode; pages fade with their age."""
        pages = list(self.pages)
        if not pages:
            return
        x_MF = np.concatenate([page.x_SF for page in pages]).astype(np.float64)
        y_M = np.concatenate([page.clicked_S for page in pages]).astype(np.float64)
        start_N = np.concatenate([[0], np.cumsum([len(page.x_SF) for page in pages])[:-1]])
        size_N = np.diff([*start_N, len(x_MF)])
        age_N = np.array([page.days for page in pages])
        y_M *= np.repeat(np.exp2(-np.maximum(days - age_N, 0.0) / self._half), size_N)
        clicks_N = np.add.reduceat(y_M, start_N)
        weights_F = self.prior_F.copy()
        for _ in range(STEPS):
            p_M = softmax(x_MF @ weights_F, start_N, size_N)
            scaled_M = p_M * np.repeat(clicks_N, size_N)
            mean_NF = np.add.reduceat(x_MF * p_M[:, None], start_N)
            gradient_F = x_MF.T @ (y_M - scaled_M) - self._precision * (weights_F - self.prior_F)
            hessian_FF = (x_MF * scaled_M[:, None]).T @ x_MF - (mean_NF * clicks_N[:, None]).T @ mean_NF
            hessian_FF += self._precision * np.eye(len(weights_F))
            step_F = np.linalg.solve(hessian_FF, gradient_F)
            weights_F += step_F * min(1.0, 2.0 / max(float(np.abs(step_F).max()), 1e-9))
        if np.isfinite(weights_F).all():
            self.weights_F = weights_F[:-1]


def softmax(score_M: Floats, start_N: npt.NDArray[np.int64], size_N: npt.NDArray[np.int64]) -> Floats:
    """(M,) probabilities within each page."""
    top_M = np.repeat(np.maximum.reduceat(score_M, start_N), size_N)
    weight_M = np.exp(score_M - top_M)
    result: Floats = weight_M / np.repeat(np.add.reduceat(weight_M, start_N), size_N)
    return result
