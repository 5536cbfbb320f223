"""The bound that decides: a lower bound on a mean that holds at every moment, by betting against smaller means.

Choices. Values bounded below by a known floor are bet on: capital prod(1 + c (x / m - 1)) grows only if the mean of x
is above m, and by Ville's inequality it ever exceeds 1 / alpha with probability at most alpha when it is not. So no
distribution, no large sample and no fixed sample size are assumed, and looking again tomorrow is allowed. Weights may
be as large as they like, since only the floor matters. The stakes c are a fixed mixture: no tuning on the data.
Sources: Waudby-Smith and Ramdas (2021), betting; Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro (2022),
off-policy. Shapes: N rounds, in the order of time; J stakes.
"""

from __future__ import annotations

import numpy as np

from features.errors import UsageError
from models.ope.estimators import Floats

STAKES_J = np.geomspace(0.002, 0.9, 14)
CHUNK = 100_000


def log_capital(value_N: Floats, mean: float) -> float:
    """The highest logarithm that the capital against "the mean is at most `mean`" ever had; values >= 0."""
    total_J = np.zeros(STAKES_J.size)
    best = 0.0
    for start in range(0, value_N.size, CHUNK):
        gain_N = value_N[start : start + CHUNK] / mean - 1.0
        path_NJ = total_J + np.cumsum(np.log1p(STAKES_J * gain_N[:, None]), axis=0)
        total_J = path_NJ[-1]
        peak_N = path_NJ.max(axis=1)
        capital_N = peak_N + np.log(np.exp(path_NJ - peak_N[:, None]).mean(axis=1))
        best = max(best, float(capital_N.max()))
    return best


def lower_bound(value_N: Floats, floor: float, alpha: float = 0.05, steps: int = 40) -> float:
    """The largest mean that the capital after all rounds refutes at `alpha`, `floor` if none is; values >= `floor`."""
    lifted_N = _lifted(value_N, floor)
    if not lifted_N.size or float(lifted_N.max()) <= 0:
        return floor
    kinds_N, count_N = np.unique(lifted_N, return_counts=True)  # most rounds are alike: nothing was clicked
    low, high = 0.0, float(lifted_N.mean())
    for _ in range(steps):
        middle = (low + high) / 2
        if middle <= 0:
            break
        total_J = count_N @ np.log1p(STAKES_J * (kinds_N / middle - 1.0)[:, None])
        if total_J.max() + np.log(np.exp(total_J - total_J.max()).mean()) >= np.log(1 / alpha):
            low = middle
        else:
            high = middle
        if high - low < 1e-5 * high:
            break
    return low + floor


def _lifted(value_N: Floats, floor: float) -> Floats:
    lifted_N = value_N - floor
    if lifted_N.size and float(lifted_N.min()) < -1e-9 * max(1.0, abs(floor)):
        raise UsageError(f"betting: a value of {float(value_N.min()):g} lies below the floor {floor:g}")
    return np.maximum(lifted_N, 0.0)
