"""Pictures become vectors: alike where they look alike, named where they cannot be read, nothing else touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from features.errors import SourceError
from features.pictures import DIMENSIONS, add_pictures, vector_of
from features.schema import ItemVectors, arrow_schema
from features.tables import read_table, write_rows


def picture(path: Path, colour: tuple[int, int, int], stripes: int = 0, size: tuple[int, int] = (120, 90)) -> Path:
    """One colour on white, with vertical stripes where asked."""
    pixels = np.full((size[1], size[0], 3), 255, dtype=np.uint8)
    pixels[15:75, 20:100] = colour
    if stripes:
        pixels[15:75, 20:100:stripes] = 0
    Image.fromarray(pixels).save(path)
    return path


def test_what_looks_alike_is_near_and_what_does_not_is_far(tmp_path: Path) -> None:
    red, wine = picture(tmp_path / "red.png", (220, 20, 20)), picture(tmp_path / "wine.jpg", (200, 30, 25))
    blue = picture(tmp_path / "blue.png", (20, 20, 220))
    striped = picture(tmp_path / "striped.png", (220, 20, 20), stripes=8)
    at = {path.stem: vector_of(path) for path in (red, wine, blue, striped)}
    assert all(one.shape == (DIMENSIONS,) and np.isfinite(one).all() for one in at.values())
    assert at["red"] @ at["wine"] > at["red"] @ at["blue"] + 0.1
    assert at["red"] @ at["red"] > at["red"] @ at["striped"] + 0.01


def test_the_vector_hangs_on_the_picture_and_not_on_its_size(tmp_path: Path) -> None:
    large = picture(tmp_path / "large.png", (30, 160, 60), size=(120, 90))
    with Image.open(large) as found:
        found.resize((480, 360)).save(tmp_path / "larger.png")
    assert vector_of(large) @ vector_of(tmp_path / "larger.png") > 0.95 * (vector_of(large) @ vector_of(large))


def test_pictures_join_what_is_there_and_a_broken_one_is_named(tmp_path: Path) -> None:
    folder, tables = tmp_path / "pictures", tmp_path / "tables"
    folder.mkdir()
    picture(folder / "i1.png", (220, 20, 20))
    picture(folder / "i2.PNG", (20, 20, 220))
    (folder / "i3.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    (folder / "notes.txt").write_text("no picture")
    old = [{"item_id": "i1", "modality": name, "vector": [1.0, 2.0]} for name in ("text", "image")]
    write_rows(tables, ItemVectors.TABLE, [pa.Table.from_pylist(old, arrow_schema(ItemVectors.COLUMNS))])
    words = [sys.executable, "-m", "flows.cli", "pictures", str(folder), str(tables)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert "2 pictures in, 1 left out" in said and "i3.jpg" in said
    rows = {(row["item_id"], row["modality"]): row["vector"] for row in read_table(tables, "item_vectors").to_pylist()}
    assert sorted(rows) == [("i1", "image"), ("i1", "text"), ("i2", "image")]
    assert rows["i1", "text"] == [1.0, 2.0]
    assert len(rows["i1", "image"]) == DIMENSIONS
    add_pictures(folder, tables)
    assert read_table(tables, "item_vectors").num_rows == 3


def test_an_empty_folder_is_an_error_that_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"ITEM_ID\.jpg"):
        add_pictures(tmp_path, tmp_path)
