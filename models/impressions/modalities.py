"""Vectors of items from any encoder (`item_vectors`), beside the words of title, brand and category.

Choices. A modality is what its rows say it is: each is brought to unit length and to at most MOST directions, so that
a long vector is not a loud one; an item without one has zeros. What a modality is worth is not believed but tried: its
scale is the one that best ranks the newest clicks on items which nothing was learned from, as it will be asked to do
for new ones (a vector that merely tells known items apart must not win), and only a gain that shoppers agree on (lower
bound above zero) lets it in, so that noise stays out.
Shapes: I items, E dimensions of a modality.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from features.errors import SchemaError
from features.schema import ItemVectors
from models.binary import auc, auc_difference
from models.history import DAY_US
from models.impressions.columns import Catalogue, Floats, Floats32
from models.impressions.pages import Pages
from models.impressions.taste import taste
from models.items import ItemTable

MOST = 24
SCALES = (0.5, 1.0)
KEPT = (1.0, 0.5)  # of what was known before
DRAWS = 100
TRIED_DAYS = 3
SILENT = 0.25  # of the items, when a scale is tried


def read_vectors(table: pa.Table, items: ItemTable) -> dict[str, Floats32]:
    """Modality -> (I, E) unit vectors; unknown items are left out. SchemaError where lengths differ in a modality."""
    found: dict[str, Floats32] = {}
    names = table[ItemVectors.MODALITY].to_pylist()
    for modality in sorted(set(names)):
        rows = table.filter(pa.array([name == modality for name in names]))
        vectors = rows[ItemVectors.VECTOR].to_pylist()
        if len({len(vector) for vector in vectors}) != 1:
            raise SchemaError(f"item_vectors: the vectors of modality {modality!r} differ in length")
        made = np.zeros((len(items), len(vectors[0])), dtype=np.float32)
        for item_id, vector in zip(rows[ItemVectors.ITEM_ID].to_pylist(), vectors, strict=True):
            if item_id in items.index:
                made[items.index[item_id]] = vector
        found[modality] = _unit(_narrowed(np.nan_to_num(made)))
    return found


def _narrowed(made_IE: Floats32) -> Floats32:
    if made_IE.shape[1] <= MOST:
        return made_IE
    _, _, axes = np.linalg.svd(made_IE - made_IE.mean(axis=0), full_matrices=False)
    result: Floats32 = made_IE @ axes[:MOST].T
    return result


def _unit(made_IE: Floats32) -> Floats32:
    norm_I1 = np.linalg.norm(made_IE, axis=1, keepdims=True)
    result: Floats32 = np.divide(made_IE, norm_I1, out=np.zeros_like(made_IE), where=norm_I1 > 1e-9)
    return result


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
        result: Floats = base_N + taste(pages, tried, expected_RK, silent_I)[real]
        return result

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
