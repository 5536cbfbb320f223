"""Vectors of items from any encoder (the table `item_vectors`): each modality at unit length, in few directions.

Choices. A modality is what its rows say it is: a long vector is not a loud one, and an item without one has zeros, so
that a new item can come before its picture. What a modality is worth the ranker learns, from its likeness columns.
Shapes: I items, E dimensions of a modality.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.errors import SchemaError
from features.schema import ItemVectors
from models.items import ItemTable

Floats32 = npt.NDArray[np.float32]

MOST = 24


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
