"""Pictures of items -> rows of `item_vectors`: colour and texture, by Pillow and numpy alone.

Choices. A vector that any machine can make in a few milliseconds, as the example of a modality; a shop with a trained
encoder writes its own rows beside these. Colour is a histogram over hue, saturation and value; texture is a histogram
of gradient directions in four quarters (Dalal and Triggs, 2005). Square roots of shares, so that a dot product is the
Bhattacharyya coefficient and a white background does not drown the rest.
Shapes: H x W pixels, E dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from features.errors import SourceError
from features.integrity import MANIFEST, write_manifest
from features.schema import ItemVectors, arrow_schema
from features.tables import read_table, table_files, write_rows

MODALITY = "image"
SIDE = 64
HUES, LEVELS, DIRECTIONS = 8, 3, 8
DIMENSIONS = HUES * LEVELS * LEVELS + 4 * DIRECTIONS
LARGEST_PIXELS = 50_000_000  # a decompression bomb is no product picture
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


@dataclass(frozen=True)
class Pictures:
    """Rows for `item_vectors`, and why a file was left out, by its name."""

    rows: pa.Table
    left_out: dict[str, str]


def vector_of(path: Path) -> npt.NDArray[np.float32]:
    """(E,) colour and texture of a picture. SourceError where it cannot be read or is unreasonably large."""
    try:
        with Image.open(path) as found:
            if found.width * found.height > LARGEST_PIXELS:
                raise SourceError(f"{path.name}: {found.width} x {found.height} pixels; scale it down")
            found.draft("RGB", (SIDE, SIDE))
            picture = found.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise SourceError(f"{path.name}: no picture that can be read ({error})") from error
    parts = np.concatenate([_colour(picture), _texture(picture)])
    vector: npt.NDArray[np.float32] = np.sqrt(parts).astype(np.float32)
    return vector


def _colour(picture: Image.Image) -> npt.NDArray[np.float64]:
    hsv_HW3 = np.asarray(picture.convert("HSV"), dtype=np.int64)
    hue = hsv_HW3[..., 0] * HUES // 256
    saturation, value = (hsv_HW3[..., at] * LEVELS // 256 for at in (1, 2))
    codes = (hue * LEVELS + saturation) * LEVELS + value
    share: npt.NDArray[np.float64] = np.bincount(codes.ravel(), minlength=HUES * LEVELS * LEVELS) / codes.size
    return share


def _texture(picture: Image.Image) -> npt.NDArray[np.float64]:
    grey_HW = np.asarray(picture.convert("L"), dtype=np.float64)
    down_HW, across_HW = np.gradient(grey_HW)
    strength_HW = np.hypot(down_HW, across_HW)
    turn_HW = (np.arctan2(down_HW, across_HW) % np.pi) / np.pi
    code_HW = np.minimum((turn_HW * DIRECTIONS).astype(np.int64), DIRECTIONS - 1)
    half = SIDE // 2
    quarters = [(slice(top, top + half), slice(left, left + half)) for top in (0, half) for left in (0, half)]
    counted = [np.bincount(code_HW[at].ravel(), strength_HW[at].ravel(), DIRECTIONS) for at in quarters]
    total = np.concatenate(counted)
    result: npt.NDArray[np.float64] = total / max(float(total.sum()), 1e-9)
    return result


def read_pictures(folder: Path) -> Pictures:
    """Every picture of a folder; the name without its suffix is the item's id. SourceError where there is none."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such directory; name a directory of pictures called ITEM_ID.jpg or .png")
    files = sorted(path for path in folder.iterdir() if path.suffix.casefold() in SUFFIXES)
    if not files:
        raise SourceError(f"{folder}: no picture in it; expected ITEM_ID{' or ITEM_ID'.join(SUFFIXES)}")
    rows: list[dict[str, object]] = []
    left_out: dict[str, str] = {}
    for path in files:
        try:
            vector = vector_of(path)
        except SourceError as error:
            left_out[path.name] = str(error)
            continue
        rows.append(
            {ItemVectors.ITEM_ID: path.stem, ItemVectors.MODALITY: MODALITY, ItemVectors.VECTOR: vector.tolist()}
        )
    return Pictures(pa.Table.from_pylist(rows, arrow_schema(ItemVectors.COLUMNS)), left_out)


def add_pictures(folder: Path, tables_dir: Path) -> Pictures:
    """Write the pictures of `folder` into `item_vectors` of `tables_dir`; rows of other items and modalities stay.

    Raises SourceError where there is no picture, or no directory of tables.
    """
    if not tables_dir.is_dir():
        raise SourceError(f"{tables_dir}: no such directory; name a directory of canonical tables")
    found = read_pictures(folder)
    old = [read_table(tables_dir, ItemVectors.TABLE)] if table_files(tables_dir, ItemVectors.TABLE) else []
    write_rows(tables_dir, ItemVectors.TABLE, [*old, found.rows])
    if (tables_dir / MANIFEST).exists():
        write_manifest(tables_dir)
    return found
