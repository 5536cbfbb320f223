"""Does the log tell anything about these models? Its clicks must follow the scores of at least one of them.

Choices. "Surely not worse" is also what a log shows that tells nothing: with clicks on the wrong items every order is
as good as every other, and dear items earn more whoever clicks. So before a comparison counts, clicks must lie more on
what a model scores high than on the rest of the same page. What place and price explain is taken out, so that neither
a model of looks nor the weight of prices can stand in for the knowledge of items.
Source: assay sensitivity of a trial of non-inferiority (ICH E10, 2000).
Shapes: N slots of R pages.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from models.ope.estimators import Floats, estimate
from models.ope.faults import Fault
from models.ope.log import Ints, SlotLog
from models.ope.verdict import page_values


def followed(log: SlotLog, score_N: Floats, price_N: Floats) -> Floats:
    """(R,) by page: covariance of clicks and scores over its slots, beyond what place and price explain; 0 in the mean
    where clicks know nothing of the items."""
    clicked_N = (log.reward_N > 0).astype(np.float64)
    score_N, price_N = (_centred(_centred(one_N, log.position_N), log.page_N) for one_N in (score_N, np.log1p(price_N)))
    spread = float(price_N @ price_N)
    if spread > 0:
        score_N = score_N - float(score_N @ price_N) / spread * price_N
    return page_values(log, _centred(clicked_N, log.position_N) * score_N)


def assay(log: SlotLog, scores: Iterable[Floats], price_N: Floats) -> Fault | None:
    """The fault of a log whose clicks surely follow none of these models' (N,) scores; prices in any currency."""
    told = [estimate(followed(log, score_N, price_N)) for score_N in scores]
    if any(one.low > 0 for one in told):
        return None
    seen = ", ".join(f"{one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}]" for one in told)
    why = (
        f"covariance of click and score within a page: {seen}; do the clicks name the right items, or are they too few?"
    )
    return Fault("clicks follow no model's scores", why)


def _centred(value_N: Floats, key_N: Ints) -> Floats:
    """Less the mean of what has the same key."""
    _, at_N = np.unique(key_N, return_inverse=True)
    result: Floats = value_N - (np.bincount(at_N, value_N) / np.bincount(at_N))[at_N]
    return result
