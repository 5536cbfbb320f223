"""Impressions as arrays: pages of slots, their labels, and what each shopper had done before.

Choices. A row is a page (one request), because its slots share a shopper, a moment and a history. Labels join by
request and item, never by time. An action is (item, kind, time): a `view` of what the same session clicked is the same
act and counts once. A shopper is their user id or, for a guest, their session: one history over all platforms, so what
was done on the web is known in the app. Pages that a crawler was served must be gone before (features/cleaning.py).
Shapes: R pages, K slots (padded), H history actions, A actions, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import TrainingError
from features.schema import Events, Slates

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CLICK, CART, BUY = range(3)
KINDS = {"view": CLICK, "click": CLICK, "add_to_cart": CART, "purchase": BUY}
PLATFORMS = ("web", "ios", "android", "other")
STEPS_H = 50
NO_ITEM = -1


@dataclass(frozen=True)
class Actions:
    """A actions sorted by (shopper, time)."""

    shopper: Ints
    session: Ints
    item: Ints
    kind: Ints
    time_us: Ints


@dataclass(frozen=True)
class Pages:
    """R pages sorted by time. `item_RK` is NO_ITEM where a page is shorter; labels are of the slot."""

    request_ids: tuple[str, ...]
    shopper_R: Ints
    session_R: Ints
    time_us_R: Ints
    platform_R: Ints
    guest_R: Bools
    item_RK: Ints
    position_RK: Ints
    clicked_RK: Bools
    carted_RK: Bools
    bought_RK: Bools
    end_R: Ints  # the page's history is actions[end - H : end] as far as they are the shopper's
    start_R: Ints
    actions: Actions
    n_items: int

    def __len__(self) -> int:
        return self.shopper_R.size

    @property
    def real_RK(self) -> Bools:
        """Which slots were filled."""
        result: Bools = self.item_RK != NO_ITEM
        return result

    def rows(self, at: Ints | Bools) -> Pages:
        """Some pages; the actions stay."""
        at = np.flatnonzero(at) if at.dtype == bool else at
        names = [name for name in vars(self) if name.endswith(("_R", "_RK"))]
        ids = tuple(self.request_ids[one] for one in at.tolist())
        return replace(self, request_ids=ids, **{name: getattr(self, name)[at] for name in names})

    def history(self, at: Ints) -> tuple[Ints, Bools]:
        """(B, H) action numbers before each page, oldest first and right-padded, and which are real."""
        place = self.start_R[at][:, None] + np.arange(STEPS_H)[None, :]
        real = place < self.end_R[at][:, None]
        return np.where(real, place, 0), real

    @classmethod
    def from_tables(cls, slates: pa.Table, events: pa.Table, index: dict[str, int]) -> Pages:
        """Clean `slates` and `events`, and the item index. TrainingError where no slot of a known item is left."""
        events = events.filter(pc.is_in(events[Events.EVENT_TYPE], pa.array(list(KINDS))))
        item_S = _codes(slates[Slates.ITEM_ID], index)
        slates, item_S = slates.filter(pa.array(item_S >= 0)), item_S[item_S >= 0]
        if not item_S.size:
            raise TrainingError("slates hold no slot of a known item: there are no impressions to learn from")
        item_E = _codes(events[Events.ITEM_ID], index)
        events, item_E = events.filter(pa.array(item_E >= 0)), item_E[item_E >= 0]
        shoppers = _Names([_shopper_names(slates), _shopper_names(events)])
        sessions = _Names([slates[Slates.SESSION_ID].to_pylist(), events[Events.SESSION_ID].to_pylist()])
        actions = _actions(events, item_E, shoppers.codes[1], sessions.codes[1])
        requests = _Names([slates[Slates.REQUEST_ID].to_pylist()])
        labels = _labels(events, item_E, requests.index, len(index))
        return _assembled(slates, item_S, requests, shoppers.codes[0], sessions.codes[0], labels, actions, len(index))


class _Names:
    """Codes of strings, in sorted order, the same over several columns."""

    def __init__(self, columns: Sequence[Sequence[str]]) -> None:
        self.names = sorted({name for column in columns for name in column})
        self.index = {name: at for at, name in enumerate(self.names)}
        self.codes = [np.array([self.index[name] for name in column], dtype=np.int64) for column in columns]


def _codes(column: pa.ChunkedArray, index: dict[str, int]) -> Ints:
    return np.array([index.get(name, -1) for name in column.to_pylist()], dtype=np.int64)


def _shopper_names(table: pa.Table) -> list[str]:
    """User or, for a guest, session."""
    pairs = zip(table[Events.USER_ID].to_pylist(), table[Events.SESSION_ID].to_pylist(), strict=True)
    return [f"u:{user}" if user is not None else f"s:{session}" for user, session in pairs]


def _times(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64)


def _actions(events: pa.Table, item_E: Ints, shopper_E: Ints, session_E: Ints) -> Actions:
    kind = np.array([KINDS[name] for name in events[Events.EVENT_TYPE].to_pylist()], dtype=np.int64)
    time_us = _times(events[Events.EVENT_TIME])
    order = np.lexsort((kind, time_us, shopper_E))
    columns = [column[order] for column in (shopper_E, session_E, item_E, kind, time_us)]
    shopper, session, item, kind, _ = columns
    key = np.stack([shopper, session, item, kind], axis=1)
    _, first = np.unique(key, axis=0, return_index=True)
    kept = np.sort(first)
    return Actions(*(column[kept] for column in columns))


def _labels(events: pa.Table, item_E: Ints, requests: dict[str, int], n_items: int) -> list[Ints]:
    """For click, cart and purchase the sorted request x item keys that have one."""
    code = np.array([requests.get(name, -1) for name in events[Events.REQUEST_ID].to_pylist()], dtype=np.int64)
    kinds = np.array(events[Events.EVENT_TYPE].to_pylist(), dtype=object)
    return [
        np.unique((code * n_items + item_E)[(code >= 0) & (kinds == name)])
        for name in ("click", "add_to_cart", "purchase")
    ]


def _assembled(
    slates: pa.Table,
    item_S: Ints,
    requests: _Names,
    shopper_S: Ints,
    session_S: Ints,
    labels: list[Ints],
    actions: Actions,
    n_items: int,
) -> Pages:
    served_S, request_S = _times(slates[Slates.SERVED_AT]), requests.codes[0]
    position_S = slates[Slates.POSITION].to_numpy().astype(np.int64)
    order = np.lexsort((position_S, request_S))
    request_S, item_S, position_S = request_S[order], item_S[order], position_S[order]
    first = np.flatnonzero(np.append(True, np.diff(request_S) != 0))
    place_S = np.arange(request_S.size) - np.repeat(first, np.diff(np.append(first, request_S.size)))
    row_S = np.cumsum(np.append(True, np.diff(request_S) != 0)) - 1
    shape = (first.size, int(place_S.max()) + 1)
    item_RK, position_RK = np.full(shape, NO_ITEM), np.zeros(shape, dtype=np.int64)
    item_RK[row_S, place_S], position_RK[row_S, place_S] = item_S, position_S
    told = []
    for keys in labels:
        found = np.zeros(shape, dtype=bool)
        found[row_S, place_S] = np.isin(request_S * n_items + item_S, keys)
        told.append(found)
    at = order[first]
    platform = slates[Slates.PLATFORM].to_pylist()
    platform_R = np.array([PLATFORMS.index(platform[one] or "other") for one in at.tolist()], dtype=np.int64)
    guest_R = np.asarray(pc.is_null(slates[Slates.USER_ID]).to_numpy())[at]
    time_us_R, shopper_R = served_S[at], shopper_S[at]
    start_R, end_R = _spans(actions, shopper_R, time_us_R)
    told[CLICK] = told[CLICK] | told[CART] | told[BUY]  # a later step implies the earlier
    pages = Pages(
        tuple(requests.names[one] for one in request_S[first].tolist()), shopper_R, session_S[at], time_us_R,
        platform_R, guest_R, item_RK, position_RK, told[CLICK], told[CART], told[BUY], end_R, start_R, actions, n_items,
    )  # fmt: skip
    return pages.rows(np.lexsort((request_S[first], time_us_R)))


def _spans(actions: Actions, shopper_R: Ints, time_us_R: Ints) -> tuple[Ints, Ints]:
    """(start, end) of each page's last H actions before its moment."""
    moments, code = np.unique(np.concatenate([actions.time_us, time_us_R]), return_inverse=True)
    code_A, code_R = code[: actions.time_us.size], code[actions.time_us.size :]
    end_R = np.searchsorted(actions.shopper * moments.size + code_A, shopper_R * moments.size + code_R, "left")
    first_R = np.searchsorted(actions.shopper, shopper_R, "left")
    return np.maximum(first_R, end_R - STEPS_H), end_R
