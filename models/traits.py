"""What an item is, in names: its category, the category's first part, its brand, and the words of its title.

Names, not codes: what is learned of "brand Acme" holds in tomorrow's catalogue.
Shapes: I items, T traits of the whole catalogue, L traits of an item at most.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

KINDS = ("category", "top_category", "brand")
MOST_WORDS = 12  # of a title
_WORD = re.compile(r"[^\W_]+", re.UNICODE)


@dataclass(frozen=True, eq=False)
class Traits:
    """T names, sorted within their kind and with it before them ("brand Acme"), and (I, L) places, -1 where no more."""

    names: tuple[str, ...]
    place_IL: Ints
    index: dict[str, int] = field(repr=False)

    @classmethod
    def of(
        cls,
        categories: Sequence[str | None],
        tops: Sequence[str | None],
        brands: Sequence[str | None],
        titles: Sequence[str | None],
    ) -> Traits:
        """The traits of items, each told by one value of every sequence; None is no trait."""
        told_I = [
            [f"{kind} {name}" for kind, name in zip(KINDS, parts, strict=True) if name] + words_of_title(title)
            for *parts, title in zip(categories, tops, brands, titles, strict=True)
        ]
        names = tuple(sorted({name for told in told_I for name in told}))
        index = {name: at for at, name in enumerate(names)}
        place_IL = np.full((len(told_I), max(map(len, told_I), default=0)), -1, dtype=np.int64)
        for at, told in enumerate(told_I):
            place_IL[at, : len(told)] = [index[name] for name in told]
        return cls(names, place_IL, index)

    def __len__(self) -> int:
        return len(self.names)

    def sums(self, weight_T: npt.NDArray[np.float64], index_C: Ints) -> npt.NDArray[np.float64]:
        """(C,) the weights of some items' traits, added up."""
        found: npt.NDArray[np.float64] = np.append(weight_T, 0.0)[self.place_IL[index_C]].sum(axis=1)
        return found


def words(title: str | None) -> list[str]:
    """The words of two letters and more, in their order."""
    return [word for word in _WORD.findall((title or "").casefold()) if len(word) > 1]


def words_of_title(title: str | None) -> list[str]:
    """The first distinct words, as traits."""
    return [f"word {word}" for word in dict.fromkeys(words(title))][:MOST_WORDS]
