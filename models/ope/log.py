"""The log of a page policy as arrays: one row a slot, with its propensity and what it earned.

Choices. Only slots that were drawn count: a deterministic or sponsored slot (propensity 1) is the same under every
policy; how many were left out is told. Rewards join by request and item, never by time. A reward is clipped at `cap`,
because a bound that holds for any distribution pays for the largest reward that could come.
Shapes: N slots of R pages, sorted by page and position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.schema import Events, Slates
from models.ope.estimators import Floats

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RewardParams:
    """What an event is worth; a purchase adds `margin` of its price x quantity."""

    click: float = 1.0
    cart: float = 0.0
    margin: float = 0.0
    cap: float = 1.0  # of one slot's reward


@dataclass(frozen=True, eq=False)
class SlotLog:
    """N drawn slots; `page_N` numbers the pages in the order of time, `who_N` the sessions (or users) behind them."""

    page_N: Ints
    position_N: Ints
    item_N: Ints
    propensity_N: Floats
    explored_N: Bools
    reward_N: Floats
    who_N: Ints
    request_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    who_ids: tuple[str, ...]
    left_out: int  # deterministic and sponsored slots
    repeated: int  # rows of a slot that was there already

    @property
    def pages(self) -> int:
        """Pages with at least one drawn slot."""
        return int(np.unique(self.page_N).size)

    @classmethod
    def from_tables(cls, slates: pa.Table, events: pa.Table, reward: RewardParams | None = None) -> SlotLog:
        """Drawn slots of the surface `home` with their rewards."""
        if Slates.SURFACE in slates.column_names:
            slates = slates.filter(pc.fill_null(pc.equal(slates[Slates.SURFACE], "home"), True))
        earned = rewards(events, reward or RewardParams())
        keys, first = _first_rows(slates)
        drawn = _drawn(slates) & first
        rows = np.flatnonzero(drawn)
        rows = rows[np.lexsort((keys[1][rows], _times(slates)[rows]))]
        page_of: dict[str, int] = {}
        requests = slates[Slates.REQUEST_ID].take(pa.array(rows)).to_pylist()
        items = slates[Slates.ITEM_ID].take(pa.array(rows)).to_pylist()
        page_N = np.array([page_of.setdefault(request, len(page_of)) for request in requests], np.int64)
        item_N, item_ids = _numbered(items)
        who_N, who_ids = _numbered(_who(slates.take(pa.array(rows))))
        order = np.lexsort((keys[1][rows], page_N))
        gained = [earned.get(pair, 0.0) for pair in zip(requests, items, strict=True)]
        return cls(
            page_N[order], keys[1][rows][order], item_N[order],
            slates[Slates.PROPENSITY].to_numpy()[rows][order].astype(np.float64),
            _flag(slates, Slates.EXPLORED)[rows][order], np.array(gained)[order], who_N[order],
            tuple(page_of), item_ids, who_ids, int((~_drawn(slates) & first).sum()), int((~first).sum()),
        )  # fmt: skip

    def take(self, keep_N: Bools) -> SlotLog:
        """Some of the slots; names and counts stay."""
        arrays = {name: value[keep_N] for name, value in vars(self).items() if name.endswith("_N") and value.size}
        return SlotLog(**{**vars(self), **arrays})


def rewards(events: pa.Table, params: RewardParams) -> dict[tuple[str, str], float]:
    """(request, item) -> what the slot earned, at most `cap`."""
    worth = {"click": params.click, "view": params.click, "add_to_cart": params.cart, "purchase": 0.0}
    mine = events.filter(
        pc.and_(pc.is_valid(events[Events.REQUEST_ID]), pc.is_in(events[Events.EVENT_TYPE], pa.array(list(worth))))
    )
    names = (Events.REQUEST_ID, Events.ITEM_ID, Events.EVENT_TYPE, Events.PRICE, Events.QUANTITY)
    found: dict[tuple[str, str], dict[str, float]] = {}
    for request, item, kind, price, pieces in zip(*(mine[name].to_pylist() for name in names), strict=True):
        value = params.margin * (price or 0.0) * (pieces or 1) if kind == "purchase" else worth[kind]
        kinds = found.setdefault((request, item), {})
        kind = "click" if kind == "view" else kind  # a page that was opened: the same act
        kinds[kind] = max(kinds.get(kind, 0.0), value)
    return {pair: min(params.cap, sum(kinds.values())) for pair, kinds in found.items()}


def _drawn(slates: pa.Table) -> Bools:
    """(N,) slots with a propensity below 1 that nobody paid for."""
    propensity = slates[Slates.PROPENSITY].to_numpy(zero_copy_only=False).astype(np.float64)
    drawn: Bools = np.isfinite(propensity) & (propensity > 0) & (propensity < 1) & ~_flag(slates, Slates.SPONSORED)
    return drawn


def _flag(slates: pa.Table, name: str) -> Bools:
    if name not in slates.column_names:
        return np.zeros(slates.num_rows, np.bool_)
    flag: Bools = pc.fill_null(slates[name], False).to_numpy(zero_copy_only=False).astype(np.bool_)
    return flag


def _times(slates: pa.Table) -> Ints:
    times: Ints = slates[Slates.SERVED_AT].cast(pa.int64()).to_numpy().astype(np.int64)
    return times


def _first_rows(slates: pa.Table) -> tuple[tuple[Ints, Ints], Bools]:
    """Codes of request and position, and which rows are the first of theirs."""
    request = slates[Slates.REQUEST_ID].combine_chunks().dictionary_encode()
    request_N = request.indices.to_numpy().astype(np.int64)
    position_N = slates[Slates.POSITION].to_numpy().astype(np.int64)
    _, first = np.unique(np.stack([request_N, position_N]), axis=1, return_index=True)
    is_first = np.zeros(slates.num_rows, np.bool_)
    is_first[first] = True
    return (request_N, position_N), is_first


def _numbered(values: list[Any]) -> tuple[Ints, tuple[str, ...]]:
    code: dict[str, int] = {}
    numbers = np.array([code.setdefault(value, len(code)) for value in values], np.int64)
    return numbers, tuple(code)


def _who(slates: pa.Table) -> list[str]:
    columns = [slates[name].to_pylist() for name in (Slates.SESSION_ID, Slates.USER_ID, Slates.REQUEST_ID)]
    return [session or user or request for session, user, request in zip(*columns, strict=True)]
