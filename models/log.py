"""The behaviour log as flat arrays: what counting, statistics and targets read.

Choices. Arrays of codes instead of tables, because every model needs the same five columns; a guest is a user of one
session, so that a guest's basket still teaches what goes together. Rows that take something back (`return`,
`remove_from_cart`) and searches are left out: they are no wish for an item.
Shapes: R rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import TrainingError
from features.schema import Events
from models.appeal import Shown
from models.history import TYPE_CODE, TYPE_WEIGHT
from models.items import ItemTable

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ActionLog:
    """R rows sorted by time; `user` and `session` are codes, `item` is the row of the item table."""

    user: Ints  # a guest has a code of its own for each session
    is_guest: npt.NDArray[np.bool_]
    session: Ints
    item: Ints
    type_code: Ints
    time_us: Ints
    quantity: npt.NDArray[np.float64]
    price: npt.NDArray[np.float64]  # nan = unknown
    user_ids: tuple[str, ...]  # of the codes below len(user_ids); guests lie above
    n_items: int
    shown: Shown | None = None  # what pages showed; of all times, whatever rows are taken

    @classmethod
    def from_arrow(
        cls, events: pa.Table, index: dict[str, int], n_items: int, slates: pa.Table | None = None
    ) -> ActionLog:
        """Cleaned `events` (sorted by time, every row with a session id), the item index and `slates` -> arrays.

        Raises TrainingError where no row is left.
        """
        item = np.array([index.get(one, -1) for one in events[Events.ITEM_ID].to_pylist()], dtype=np.int64)
        type_code = np.array([TYPE_CODE[one] for one in events[Events.EVENT_TYPE].to_pylist()], dtype=np.int64)
        keep = (item >= 0) & (TYPE_WEIGHT[type_code] > 0)
        if not keep.any():
            raise TrainingError("no view, click, cart or purchase of a known item is left to learn from: see validate")
        table = events.filter(pa.array(keep))
        users = table[Events.USER_ID].to_pylist()
        names = tuple(sorted({user for user in users if user is not None}))
        code = {name: at for at, name in enumerate(names)}
        session = _session_codes(table)
        guest = np.array([user is None for user in users])
        user = np.array([code[u] if u is not None else 0 for u in users], dtype=np.int64)
        user = np.where(guest, len(names) + session, user)
        quantity = pc.fill_null(table[Events.QUANTITY], 1).to_numpy().astype(np.float64)
        price = table[Events.PRICE].to_numpy().astype(np.float64)
        time_us = table[Events.EVENT_TIME].cast(pa.int64()).to_numpy()
        order = np.argsort(time_us, kind="stable")
        shown = Shown.from_arrow(slates, events, index) if slates is not None and slates.num_rows else None
        whole = cls(user, guest, session, item[keep], type_code[keep], time_us, quantity, price, names, n_items, shown)
        return whole.rows(order)

    def tastes(self, items: ItemTable, cut_us: int) -> dict[str, tuple[int, Mapping[str, float]]]:
        """Of everybody who saw pages before the cut: the time of the newest one, and weights by name (taste.py)."""
        if self.shown is None:
            return {}
        last, tastes = self.shown.last_seen(cut_us), self.shown.liking(items, cut_us).tastes
        return {user: (at, tastes.of(user).weights) for user, at in last.items()}

    def before(self, cut_us: int) -> ActionLog:
        """Rows strictly before the cut."""
        return self.rows(np.arange(int(np.searchsorted(self.time_us, cut_us, "left"))))

    def between(self, start_us: int, end_us: int) -> ActionLog:
        """Rows from start (inclusive) to end (exclusive)."""
        low, high = np.searchsorted(self.time_us, [start_us, end_us], "left")
        return self.rows(np.arange(int(low), int(high)))

    def rows(self, at: Ints) -> ActionLog:
        """Some rows, in their order."""
        return replace(
            self,
            user=self.user[at],
            is_guest=self.is_guest[at],
            session=self.session[at],
            item=self.item[at],
            type_code=self.type_code[at],
            time_us=self.time_us[at],
            quantity=self.quantity[at],
            price=self.price[at],
        )


def _session_codes(table: pa.Table) -> Ints:
    """Codes by (user, session id): two users may use one session id."""
    keys = table.select([Events.USER_ID, Events.SESSION_ID]).to_pylist()
    pairs = [(row[Events.USER_ID] or "", row[Events.SESSION_ID] or "") for row in keys]
    code = {pair: at for at, pair in enumerate(sorted(set(pairs)))}
    return np.array([code[pair] for pair in pairs], dtype=np.int64)
