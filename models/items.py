"""The catalogue as the model knows it: one frozen table, an index from id to row, and what a text says of an item.

Choices. Content is hashed TF-IDF of title, brand and category, reduced by a seeded random projection followed by a
truncated SVD, because it works offline, needs no vocabulary file, and gives a new item its vector without training.
Hashing is CRC-32: stable over processes and versions, which `hash()` is not.
Shapes: I items, W hashed words, E content dimensions.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from features.schema import Items
from models.traits import Traits, words

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

WORDS_W = 4096
CONTENT_E = 32


@dataclass(frozen=True)
class ItemRow:
    """One row of `items`; None is unknown (price, currency ...), `available` None counts as available."""

    item_id: str
    title: str | None = None
    brand: str | None = None
    category: str | None = None
    price: float | None = None
    currency: str | None = None
    image_url: str | None = None
    available: bool | None = None
    listed_at_us: int = 0


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


@dataclass(frozen=True)
class ItemTable:
    """I items, in the order of the model's arrays."""

    item_ids: tuple[str, ...]
    titles: tuple[str | None, ...]
    brands: tuple[str | None, ...]
    categories: tuple[str | None, ...]
    image_urls: tuple[str | None, ...]
    currencies: tuple[str | None, ...]
    price_I: npt.NDArray[np.float64]  # nan = unknown
    available_I: Bools
    listed_at_I: Ints  # microseconds, 0 = unknown
    index: dict[str, int] = field(repr=False)
    vectors: Mapping[str, Floats] = field(default_factory=dict, repr=False)  # modality -> (I, E) unit vectors

    @classmethod
    def from_rows(cls, rows: Sequence[ItemRow]) -> ItemTable:
        """Rows in the order that they are given; an id must not come twice."""
        return cls(
            item_ids=tuple(row.item_id for row in rows),
            titles=tuple(row.title for row in rows),
            brands=tuple(row.brand for row in rows),
            categories=tuple(row.category for row in rows),
            image_urls=tuple(row.image_url for row in rows),
            currencies=tuple(row.currency for row in rows),
            price_I=np.array([_number(row.price) for row in rows], dtype=np.float64),
            available_I=np.array([row.available is not False for row in rows], dtype=bool),
            listed_at_I=np.array([row.listed_at_us for row in rows], dtype=np.int64),
            index={row.item_id: at for at, row in enumerate(rows)},
        )

    @classmethod
    def from_arrow(cls, table: pa.Table) -> ItemTable:
        """The canonical `items` table, sorted by item id, so that the order of a file changes nothing."""
        names = (
            Items.ITEM_ID,
            Items.TITLE,
            Items.BRAND,
            Items.CATEGORY,
            Items.PRICE,
            Items.CURRENCY,
            Items.IMAGE_URL,
            Items.AVAILABLE,
        )
        empty = [None] * table.num_rows
        columns: list[list[Any]] = [
            table[name].to_pylist() if name in table.column_names else list(empty) for name in names
        ]
        listed = (
            table[Items.LISTED_AT].cast(pa.int64()).to_pylist()
            if Items.LISTED_AT in table.column_names
            else list(empty)
        )
        rows = [ItemRow(*values) for values in zip(*columns, [at or 0 for at in listed], strict=True)]
        return cls.from_rows(sorted(rows, key=lambda row: row.item_id))

    def row(self, at: int) -> ItemRow:
        """One item as a row again."""
        price = float(self.price_I[at])
        return ItemRow(
            self.item_ids[at],
            self.titles[at],
            self.brands[at],
            self.categories[at],
            None if math.isnan(price) else price,
            self.currencies[at],
            self.image_urls[at],
            bool(self.available_I[at]),
            int(self.listed_at_I[at]),
        )

    def merge(self, rows: Sequence[ItemRow]) -> ItemTable:
        """Replace known items in place and append new ones, which have no vectors yet; nobody's index moves."""
        known = {row.item_id: row for row in rows}
        kept = [known.pop(item_id) if item_id in known else self.row(at) for at, item_id in enumerate(self.item_ids)]
        added = list(known.values())
        vectors = {name: np.pad(one_IE, ((0, len(added)), (0, 0))) for name, one_IE in self.vectors.items()}
        return replace(ItemTable.from_rows(kept + added), vectors=vectors)

    def __len__(self) -> int:
        return len(self.item_ids)

    def marked(self, some: Ints) -> Bools:
        """(I,) which items are among some."""
        result = np.zeros(len(self), dtype=np.bool_)
        result[some] = True
        return result

    def places(self, index_C: Ints) -> Ints:
        """(I,) where each item stands among some, -1 where it does not."""
        place_I = np.full(len(self), -1, dtype=np.int64)
        place_I[index_C] = np.arange(index_C.size)
        return place_I

    @cached_property
    def codes(self) -> dict[str, Ints]:
        """(I,) codes of each kind of group, -1 where unknown."""
        return {
            "category": self.category_codes_I,
            "top_category": self.top_category_codes_I,
            "brand": self.brand_codes_I,
        }

    @cached_property
    def groups(self) -> dict[str, int]:
        """How many codes each kind of group has."""
        return {name: int(code_I.max(initial=-1)) + 1 for name, code_I in self.codes.items()}

    @cached_property
    def traits(self) -> Traits:
        """What every item is, in names."""
        return Traits.of(self.categories, self._top_categories, self.brands, self.titles)

    @cached_property
    def standard_price_I(self) -> npt.NDArray[np.float64]:
        """(I,) log price around its mean in units of its standard deviation; 0 where unknown."""
        known_I = np.isfinite(self.price_I) & (self.price_I > 0)
        price_I = np.log(np.where(known_I, self.price_I, 1.0))
        if not known_I.any():
            return price_I
        spread = max(float(price_I[known_I].std()), 1e-9)
        return np.where(known_I, (price_I - price_I[known_I].mean()) / spread, 0.0)

    @cached_property
    def category_codes_I(self) -> Ints:
        """(I,) code of the full category path, -1 where unknown."""
        return _codes(self.categories)

    @cached_property
    def top_category_codes_I(self) -> Ints:
        """(I,) code of the first part of the category path, -1 where unknown."""
        return _codes(self._top_categories)

    @property
    def _top_categories(self) -> list[str | None]:
        return [None if text is None else text.split(">")[0].strip() for text in self.categories]

    @cached_property
    def brand_codes_I(self) -> Ints:
        """(I,) code of the brand, -1 where unknown."""
        return _codes(self.brands)


def _codes(values: Sequence[str | None]) -> Ints:
    known = {value: code for code, value in enumerate(sorted({value for value in values if value}))}
    return np.array([known.get(value, -1) if value else -1 for value in values], dtype=np.int64)


def words_of(title: str | None, brand: str | None, category: str | None) -> list[str]:
    """The words of an item; brand and the parts of the category are words of their own kind."""
    found = words(title)
    if brand:
        found.append("brand:" + brand.casefold())
    parts = [part.strip().casefold() for part in (category or "").split(">") if part.strip()]
    return found + ["category:" + ">".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def hashed_words(items: ItemTable) -> sp.csr_matrix:
    """(I, W) counts of hashed words."""
    rows: list[int] = []
    columns: list[int] = []
    for at, texts in enumerate(zip(items.titles, items.brands, items.categories, strict=True)):
        found = [zlib.crc32(word.encode("utf-8", "surrogatepass")) % WORDS_W for word in words_of(*texts)]
        rows.extend([at] * len(found))
        columns.extend(found)
    ones = np.ones(len(rows), dtype=np.float32)
    return sp.csr_matrix((ones, (rows, columns)), shape=(len(items), WORDS_W))


@dataclass(frozen=True)
class ContentSpace:
    """From words to a content vector: inverse document frequency, then a linear projection."""

    idf_W: Floats
    projection_WE: Floats

    @classmethod
    def fit(cls, items: ItemTable) -> ContentSpace:
        """Learn both from the catalogue; deterministic (fixed start vector, fixed signs)."""
        counts = hashed_words(items)
        seen_W = np.asarray((counts > 0).sum(axis=0)).ravel()
        idf_W = np.log((1.0 + len(items)) / (1.0 + seen_W)).astype(np.float32) + 1.0
        projection_WE = np.zeros((WORDS_W, CONTENT_E), dtype=np.float32)
        rank = min(CONTENT_E, min(counts.shape) - 1, int((seen_W > 0).sum()) - 1)
        if rank >= 1:
            weighted = _unit_rows(counts.multiply(idf_W[None, :]).tocsr()).astype(np.float64)
            start = np.random.default_rng(0).standard_normal(min(weighted.shape))
            _, strength, right = svds(weighted, k=rank, v0=start)
            order = np.argsort(-strength, kind="stable")
            axes = right[order].T
            axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])[None, :]
            projection_WE[:, : axes.shape[1]] = axes
        return cls(idf_W, projection_WE)

    def vectors(self, items: ItemTable) -> Floats:
        """(I, E) unit vectors; zero where an item has no words."""
        weighted = _unit_rows(hashed_words(items).multiply(self.idf_W[None, :]).tocsr())
        vectors = np.asarray(weighted @ self.projection_WE, dtype=np.float32)
        norm = np.linalg.norm(vectors, axis=1, keepdims=True)
        result: Floats = np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 1e-6)
        return result


def _unit_rows(matrix: sp.csr_matrix) -> sp.csr_matrix:
    norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sp.diags(np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)) @ matrix


def unavailable(items: ItemTable, at: int) -> ItemTable:
    """The same table with one item withdrawn."""
    mask = items.available_I.copy()
    mask[at] = False
    return replace(items, available_I=mask)
