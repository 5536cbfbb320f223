"""Does the log tell anything about these models? Its clicks must follow the scores of at least one of them.

Choices. "Surely not worse" is also what a log shows that tells nothing: with clicks on the wrong items every order is
as good as every other, and dear items earn more whoever clicks. So before a comparison counts, clicks (not what they
earned) must lie more on what a model scores high than on the rest of the same page; a place's share of the clicks is
taken out, so that no model of looks is needed. A model of value may put dear items first that are clicked less: its
score is also read without what the price explains.
Source: assay sensitivity of a trial of non-inferiority (ICH E10, 2000).
Shapes: N slots of R pages.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.special import ndtri

from models.ope.estimators import Z95, Floats, estimate
from models.ope.faults import Fault
from models.ope.log import Ints, SlotLog
from models.ope.verdict import page_values

ERROR = 0.025  # shared by all scores that are asked


def followed(log: SlotLog, score_N: Floats) -> Floats:
    """(R,) by page: covariance of clicks and scores over its slots, less what the place explains; 0 in the mean where
    clicks know nothing of the items."""
    clicked_N = (log.reward_N > 0).astype(np.float64)
    return page_values(log, _centred(clicked_N, log.position_N) * _within(log, score_N))


def without(log: SlotLog, score_N: Floats, price_N: Floats) -> Floats:
    """(N,) scores less what the logarithm of the price explains within pages."""
    score_N, price_N = _within(log, score_N), _within(log, np.log1p(price_N))
    spread = float(price_N @ price_N)
    return score_N - float(score_N @ price_N) / spread * price_N if spread > 0 else score_N


def assay(log: SlotLog, scores: Iterable[Floats], price_N: Floats) -> Fault | None:
    """The fault of a log whose clicks surely follow none of these models' (N,) scores; prices in any currency.

    A log of clicks on random items is let through with a chance of `ERROR`.
    """
    read = [one_N for score_N in scores for one_N in (score_N, without(log, score_N, price_N))]
    told = [estimate(followed(log, score_N)) for score_N in read]
    surer = float(ndtri(1 - ERROR / len(told))) / Z95
    found = [(one.mean, surer * (one.high - one.mean)) for one in told]
    if any(mean > half > 0 for mean, half in found):
        return None
    seen = ", ".join(f"{mean:+.4f} ± {half:.4f}" for mean, half in found)
    why = (
        f"covariance of click and score within a page: {seen}; do the clicks name the right items, or are they too few?"
    )
    return Fault("clicks follow no model's scores", why)


def _within(log: SlotLog, value_N: Floats) -> Floats:
    return _centred(_centred(value_N, log.position_N), log.page_N)


def _centred(value_N: Floats, key_N: Ints) -> Floats:
    """Less the mean of what has the same key."""
    _, at_N = np.unique(key_N, return_inverse=True)
    result: Floats = value_N - (np.bincount(at_N, value_N) / np.bincount(at_N))[at_N]
    return result
