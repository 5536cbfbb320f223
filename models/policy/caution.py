"""How little a policy has to mistrust what pages hardly showed: as little as the log's own choices allow.

Choices. On a log that showed a few items only, what was never shown looks as good as its like, and a policy fitted to
it fills its pages with the unknown; on one that tried a bit of everything the same mistrust keeps what is new and hot
off the page. Which of the two a log is, its propensities say: the mean weight is the share of a policy's choices that
the log has shown. So the least mistrust is taken at which that share is large enough. Rewards are not looked at.
Shapes: K slots, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.homepage import HomepageModel
from models.policy.impressions import Page, People
from models.policy.plackett_luce import PlackettLuceParams
from models.policy.proof import on_page, own_ranking, visits

ENOUGH = 1 / 3  # of a policy's choices, that the log must have shown
PAGES = 300  # the newest, which say it
STEPS = (0.0, 0.25, 0.5, 1.0)  # of the most


def least_caution(
    model: HomepageModel, pages: Sequence[Page], people: People, params: PlackettLuceParams, most: float
) -> float:
    """The weight of `appeal_doubt` to take off the model's score: the least at which the log shows enough, or `most`.

    Pages by time; the model's own score takes nothing off yet.
    """
    weights = [step * most for step in STEPS]
    shown = shown_shares(model, pages[-PAGES:], people, params, weights)
    return next((weight for weight, share in zip(weights, shown, strict=True) if share >= ENOUGH), most)


def shown_shares(
    model: HomepageModel, pages: Sequence[Page], people: People, params: PlackettLuceParams, weights: Sequence[float]
) -> list[float]:
    """For each weight of the doubt, the mean over all slots of the policy's propensity over the log's."""
    on_sale_I, doubt_I = (
        model.knowledge.on_sale(model.trained_until_us),
        model.knowledge.statistics.values["appeal_doubt"],
    )
    ratios: list[list[float]] = [[] for _ in weights]
    for page, state in visits(pages, people):
        ranking = own_ranking(model, page, state, on_sale_I)
        for weight, found in zip(weights, ratios, strict=True):
            score_C = ranking.score_C.astype(np.float64) - weight * doubt_I[ranking.index_C]
            best = np.argsort(-score_C, kind="stable")
            told_K = on_page(page, score_C[best], ranking.index_C[best], params)
            found += (told_K / page.propensity_K).tolist()
    return [float(np.mean(found)) if found else 0.0 for found in ratios]
