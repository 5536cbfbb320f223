"""What a page would have earned in another order: the comparison of two models on pages that a third thing served.

Choices. What serves is the champion with all that it learned since, or, before the first, what a page is made of
without one; what a model alone would have picked is so far from it that weights of whole choices tell nothing within a
night. Two orders of what *was* shown differ little from each other, and moving an item from one place to another
changes how many look at it by a ratio that the log knows. So the difference of two orders is known to a few percent
after a thousand pages. What it cannot tell: whether items that nobody was shown are better; and it assumes that a
reward is the look at the place times the worth of the item. Whether the log tells anything at all is asked beside it
(assay.py).
Source: position-based propensities (Joachims, Swaminathan and Schnabel, 2017).
Shapes: N slots of R pages, S positions.
"""

from __future__ import annotations

import numpy as np

from models.ope.betting import lower_bound
from models.ope.estimators import Floats, estimate
from models.ope.log import SlotLog
from models.ope.verdict import Judgement, OpeParams, decide, diagnostics, page_values

LEAST_LOOK = 0.05  # of the first place; a place that hardly anybody looks at would weigh without end


def looks(bias_S: Floats) -> Floats:
    """(S,) how many look at a place, of those who look at the first, from a click model's term of each position."""
    look_S = np.exp(bias_S - bias_S[1])
    result: Floats = np.clip(look_S, LEAST_LOOK, 1.0 / LEAST_LOOK)
    return result


def reordered(log: SlotLog, score_N: Floats, look_S: Floats) -> Floats:
    """(N,) reward of each slot, had the page's items stood in the order of these scores; ties stay as they were.

    The places are those that the page drew; slots come sorted by page and position.
    """
    position_N = np.minimum(log.position_N, look_S.size - 1)
    order_N = np.lexsort((log.position_N, -score_N, log.page_N))  # page by page, best first
    new_N = np.empty_like(position_N)
    new_N[order_N] = position_N  # the best item of a page gets its first place
    result: Floats = log.reward_N / look_S[position_N] * look_S[new_N]
    return result


def compare(
    log: SlotLog,
    mine_N: Floats,
    theirs_N: Floats,
    look_S: Floats,
    params: OpeParams | None = None,
    margin: float | None = None,
) -> Judgement:
    """The verdict on a model's scores against others: surely not worse by a share of `margin` (`margin_champion`).

    In the result `logging` is the others' order and `target` the model's, both in rewards a page. The floor of the
    bet is the most that the others' order earned on a page.
    """
    params = params or OpeParams()
    mine_R, theirs_R = (page_values(log, reordered(log, one_N, look_S)) for one_N in (mine_N, theirs_N))
    figures = (estimate(theirs_R), estimate(mine_R), estimate(mine_R - theirs_R))
    allowance = (
        (params.margin_champion if margin is None else margin) * float(theirs_R.mean()) if theirs_R.size else 0.0
    )
    told = diagnostics(log, np.ones(log.reward_N.size))
    floors = [-max(float(value_R.max(initial=0.0)), 1e-9) for value_R in (theirs_R, mine_R)]
    lower = lower_bound(mine_R - theirs_R, floors[0], params.alpha)
    worse = lower_bound(theirs_R - mine_R, floors[1], params.alpha) > allowance
    verdict, reason = decide(lower > -allowance, worse, allowance, figures[2], lower, told, params)
    return Judgement(verdict, (reason,), *figures, lower, told, ())
