"""Each shopper's own taste: weights on content and price, fitted to what they clicked and to what they passed by.

Choices. A regression for each shopper, shrunk to nothing where little is known: one Newton step from what the average
shopper would have done in those slots, so two sums a shopper (a vector and a matrix) hold it all, and yesterday's are
enough for today. What was passed by counts as much as what was clicked, which no average over clicks can say. A sum
over a history is no embedding of a user: it is gone with their rows.
Source: Zhang et al., 2016 (GLMix: a model for each member beside the common one).
Shapes: R pages, K slots, C shoppers, E weights, I items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.history import DAY_US
from models.impressions.columns import Catalogue, Floats, Floats32
from models.impressions.pages import Pages

SHRINKAGE = 4.0  # expected clicks along a direction of content at which half of what they say is believed
PRICE_SCALE = 0.3


def described(catalogue: Catalogue) -> Floats:
    """(I, E) content and the price with its square, on comparable scales."""
    spread = max(float(catalogue.log_price_I.std()), 1e-9)
    price_I = PRICE_SCALE * (catalogue.log_price_I - catalogue.log_price_I.mean()) / spread
    return np.column_stack([catalogue.content_IE, price_I, price_I**2])


def taste(
    pages: Pages, catalogue: Catalogue, expected_RK: Floats, silent_I: npt.NDArray[np.bool_] | None = None
) -> Floats32:
    """(R, K) what each shopper's weights of the night before say; `expected_RK`: the average shopper's clicks.

    Nothing is learned from the items of `silent_I`: to them each taste is as it is to a new item.
    """
    phi_IE = described(catalogue)
    ridge = SHRINKAGE * np.eye(phi_IE.shape[1])
    told_RK = np.zeros(pages.item_RK.shape, dtype=np.float32)
    shoppers, code_R = np.unique(pages.shopper_R, return_inverse=True)
    sums = np.zeros((shoppers.size, phi_IE.shape[1]))
    squares = np.zeros((shoppers.size, *ridge.shape))
    day_R = pages.time_us_R // DAY_US
    for day in np.unique(day_R).tolist():
        rows = np.flatnonzero(day_R == day)
        rows = rows[np.argsort(code_R[rows], kind="stable")]
        seen, first = np.unique(code_R[rows], return_index=True)
        weight_CE = np.linalg.solve(squares[seen] + ridge, sums[seen][:, :, None])[:, :, 0]
        for at, of, mine in zip(seen.tolist(), weight_CE, np.split(rows, first[1:]), strict=True):
            x_NE = phi_IE[pages.item_RK[mine]]
            told_RK[mine] = x_NE @ of
            real_RK = pages.real_RK[mine]
            if silent_I is not None:
                real_RK = real_RK & ~silent_I[pages.item_RK[mine]]
            flat_NE, expected_N = x_NE[real_RK], expected_RK[mine][real_RK]
            sums[at] += (pages.clicked_RK[mine][real_RK] - expected_N) @ flat_NE
            squares[at] += (flat_NE * expected_N[:, None]).T @ flat_NE
    told_RK[~pages.real_RK] = 0.0
    return told_RK
