"""Other modalities of an item: read as they are told, scaled by what they are worth, silent where they are noise."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from features.errors import SchemaError
from features.schema import ItemVectors, arrow_schema
from models.impressions.modalities import MOST, read_vectors, with_modalities
from models.items import ItemRow, ItemTable
from tests.models.test_taste import ITEMS, shop

TABLE = ItemTable.from_rows([ItemRow(f"i{at}") for at in range(ITEMS)])


def vectors(*rows: tuple[str, str, list[float]]) -> pa.Table:
    names = (ItemVectors.ITEM_ID, ItemVectors.MODALITY, ItemVectors.VECTOR)
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], arrow_schema(ItemVectors.COLUMNS))


def test_each_modality_is_brought_to_one_length_and_few_directions() -> None:
    rng = np.random.default_rng(0)
    wide = [(f"i{at}", "text", rng.normal(size=300).tolist()) for at in range(ITEMS - 1)]
    told = read_vectors(vectors(("i0", "image", [3.0, 4.0]), ("other", "image", [1.0, 1.0]), *wide), TABLE)
    np.testing.assert_allclose(told["image"][0], [0.6, 0.8], rtol=1e-6)
    assert (told["image"][1:] == 0).all()
    assert told["text"].shape[1] <= MOST
    np.testing.assert_allclose(np.linalg.norm(told["text"][:-1], axis=1), 1, rtol=1e-5)
    with pytest.raises(SchemaError, match="modality 'image' differ in length"):
        read_vectors(vectors(("i0", "image", [3.0, 4.0]), ("i1", "image", [1.0])), TABLE)


def test_signal_comes_in_and_noise_stays_out() -> None:
    pages, catalogue = shop(days=10)
    blind = catalogue.joined(np.zeros((ITEMS, 1), dtype=np.float32))
    blind.content_IE[:] = 0.0
    kind = np.eye(2, dtype=np.float32)[np.arange(ITEMS) % 2]
    noise = np.random.default_rng(1).normal(size=(ITEMS, 5)).astype(np.float32) * 1e-3
    expected_RK = np.full(pages.item_RK.shape, 0.5)
    found, scales = with_modalities(blind, {"image": kind, "noise": noise}, pages, expected_RK)
    assert scales["image"] > 0 and scales["noise"] == 0
    assert found.content_IE.shape[1] == blind.content_IE.shape[1] + 2
