"""How an item is liked when it is shown: clicks against what its positions would have brought, from impressions.

Choices. Counts of clicks follow what was shown, so that a page which shows an item proves it popular; here a click
counts against the expected clicks of the slots in which the item stood. Both fade with a half-life; few impressions
are pulled towards the item's category, a category towards the shop. A shop without impressions has no such statistic.
Shapes: I items, N impressions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.schema import Events, Slates

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HALF_LIFE_US = 14.0 * 86_400_000_000
PRIOR_ITEM, PRIOR_CATEGORY = 3.0, 10.0  # expected clicks that the prior weighs
LONGEST_PAGE = 101


@dataclass(frozen=True, eq=False)
class Shown:
    """N impressions sorted by time."""

    time_us: Ints
    item: Ints
    position: Ints
    clicked: npt.NDArray[np.bool_]

    @classmethod
    def from_arrow(cls, slates: pa.Table, events: pa.Table, index: dict[str, int]) -> Shown:
        """Slots of known items; a slot was clicked where an event of its request and item says so."""
        clicks = events.filter(
            pc.and_(pc.equal(events[Events.EVENT_TYPE], "click"), pc.is_valid(events[Events.REQUEST_ID]))
        )
        clicked = set(_keys(clicks, Events.REQUEST_ID, Events.ITEM_ID))
        item = np.array([index.get(one, -1) for one in slates[Slates.ITEM_ID].to_pylist()], np.int64)
        hit = np.array([key in clicked for key in _keys(slates, Slates.REQUEST_ID, Slates.ITEM_ID)], np.bool_)
        time_us = slates[Slates.SERVED_AT].cast(pa.int64()).to_numpy()
        position = np.clip(slates[Slates.POSITION].to_numpy().astype(np.int64), 0, LONGEST_PAGE - 1)
        rows = np.flatnonzero(item >= 0)
        rows = rows[np.argsort(time_us[rows], kind="stable")]
        return cls(time_us[rows], item[rows], position[rows], hit[rows])

    def appeal(self, category_I: Ints, cut_us: int) -> Floats:
        """(I,) logarithm of the item's clicks over the expected ones, before the cut."""
        n = int(np.searchsorted(self.time_us, cut_us, "left"))
        weight_N = np.exp2((self.time_us[:n] - cut_us) / HALF_LIFE_US)
        item_N, position_N = self.item[:n], self.position[:n]
        click_N = weight_N * self.clicked[:n]
        shown_S = np.bincount(position_N, weight_N, LONGEST_PAGE)
        rate_S = np.bincount(position_N, click_N, LONGEST_PAGE) / np.maximum(shown_S, 1e-9)
        clicks_I = np.bincount(item_N, click_N, category_I.size)
        expected_I = np.bincount(item_N, weight_N * rate_S[position_N], category_I.size)
        kind_I = category_I + 1  # -1, no category, is a kind of its own
        clicks_G, expected_G = (np.bincount(kind_I, x) for x in (clicks_I, expected_I))
        liked_G = (clicks_G + PRIOR_CATEGORY) / (expected_G + PRIOR_CATEGORY)
        liked_I = (clicks_I + PRIOR_ITEM * liked_G[kind_I]) / (expected_I + PRIOR_ITEM)
        return np.asarray(np.log(liked_I), dtype=np.float64)


def _keys(table: pa.Table, *names: str) -> list[tuple[str, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))
