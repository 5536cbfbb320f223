"""Vectors of items from any encoder (`item_vectors`), beside the words of title, brand and category.

Choices. What a modality is worth is not believed but tried: its scale is the one that best ranks the newest clicks on
items which nothing was learned from, as it will be asked to do for new ones (a vector that merely tells known items
apart must not win). Only a gain that shoppers agree on (lower bound above zero) lets it in, so that noise stays out.
Shapes: I items, E dimensions of a modality.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from models.binary import auc, auc_difference
from models.history import DAY_US
from models.impressions.columns import Catalogue, Floats, Floats32
from models.impressions.pages import Pages
from models.impressions.taste import taste

SCALES = (0.5, 1.0)
KEPT = (1.0, 0.5)  # of what was known before
BELIEVED = (0.25, 0.5, 0.75, 1.0)  # of a taste: a mere shrinking of what was known must not count for a modality
DRAWS = 100
TRIED_DAYS = 3
SILENT = 0.25  # of the items, when a scale is tried


def with_modalities(
    catalogue: Catalogue, vectors: Mapping[str, Floats32], pages: Pages, expected_RK: Floats
) -> tuple[Catalogue, dict[str, float]]:
    """The catalogue with each modality that pays, at its best scale, and the scales (0: left out)."""
    newest_R = pages.time_us_R >= (int(pages.time_us_R.max()) // DAY_US + 1 - TRIED_DAYS) * DAY_US
    silent_I = np.random.default_rng(0).random(pages.n_items) < SILENT
    real = pages.real_RK & newest_R[:, None] & silent_I[pages.item_RK]
    label_N, base_N = pages.clicked_RK[real], np.log(np.maximum(expected_RK[real], 1e-9))
    shopper_N = np.broadcast_to(pages.shopper_R[:, None], real.shape)[real]

    def scored(tried: Catalogue) -> Floats:
        taste_N = taste(pages, tried, expected_RK, silent_I)[real]
        return max((base_N + share * taste_N for share in BELIEVED), key=lambda score_N: auc(label_N, score_N))

    best_N, scales = scored(catalogue), dict.fromkeys(vectors, 0.0)
    for name, vector_IE in vectors.items():
        tried = {
            (kept, scale): replace(catalogue, content_IE=kept * catalogue.content_IE).joined(scale * vector_IE)
            for kept in KEPT
            for scale in SCALES
        }
        score = {pair: scored(one) for pair, one in tried.items()}
        pair = max(score, key=lambda at: auc(label_N, score[at]))
        if auc_difference(label_N, score[pair], best_N, shopper_N, draws=DRAWS).low > 0:
            catalogue, best_N, scales[name] = tried[pair], score[pair], pair[1]
    return catalogue, scales
