"""What one user or session did, as the model reads it.

Choices. No user id and no user embedding anywhere: a user *is* this history. It is kept as distinct (item, event
type) pairs with a count and two times, sorted by the last time, because that is what the online store holds and it
bounds the work of a request whatever a heavy user did. Decayed counts assume evenly spaced repeats between the first
and the last time: exact for one and two repeats, and the same formula offline and online.
Shapes: P pairs of one user.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from features.history import HistoryRow
from features.schema import EVENT_TYPES, SESSION_GAP_S
from models.taste import NO_TASTE, Taste

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TYPE_CODE = {name: code for code, name in enumerate(EVENT_TYPES)}
PURCHASE = TYPE_CODE["purchase"]
# How much an event says about what its user wants; `return` and `remove_from_cart` take back.
TYPE_WEIGHT = np.array(
    [{"view": 1.0, "click": 1.0, "add_to_cart": 2.0, "purchase": 3.0}.get(name, 0.0) for name in EVENT_TYPES]
)
MAX_PAIRS = 500
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Action:
    """One live event, in order of arrival."""

    item_id: str
    event_type: str
    time_us: int
    session_id: str | None = None
    quantity: float = 1.0
    price: float = math.nan


@dataclass(frozen=True)
class UserState:
    """P distinct (item, type) pairs sorted by their last time, four numbers about their user, and their taste."""

    item_P: Ints
    type_P: Ints
    count_P: Floats
    quantity_P: Floats
    first_us_P: Ints
    last_us_P: Ints
    session_P: Bools  # touched in the session that runs now
    n_sessions: float
    first_us: int
    last_us: int
    taste: Taste = NO_TASTE  # from what pages showed, as of the night before

    @property
    def is_stranger(self) -> bool:
        """Nothing is known that a model could use."""
        return self.item_P.size == 0

    def bought_since(self, then_us: int, in_visit: bool = False) -> Ints:
        """(B,) items that were bought since a moment, anyhow or in the session that runs now."""
        mine_P: Bools = (self.type_P == PURCHASE) & (self.last_us_P >= then_us)
        if in_visit:
            mine_P &= self.session_P
        return np.asarray(self.item_P[mine_P], dtype=np.int64)

    @classmethod
    def build(
        cls, row: HistoryRow | None, events: Sequence[Action], index: Mapping[str, int], session_id: str | None = None
    ) -> UserState:
        """The stored row, then live events newer than it; items that the index does not know are left out.

        `session_id` names the session that runs now; without it the session of the newest event counts.
        """
        pairs: dict[tuple[int, int], _Pair] = {}
        n_sessions, first_us, taste = 0.0, 0, NO_TASTE
        if row is not None:
            n_sessions, first_us = float(row.n_sessions), int(row.first_time)
            taste = Taste(dict(zip(row.taste_names.tolist(), row.taste_weights.tolist(), strict=True)))
            _read_row(row, index, pairs)
        return cls._grown(pairs, (n_sessions, first_us, taste), events, index, session_id)

    def extended(self, events: Sequence[Action], index: Mapping[str, int], session_id: str | None = None) -> UserState:
        """The same history with live events after it, in their order of arrival."""
        if not events:
            return self
        return self._grown(self._pairs(), (self.n_sessions, self.first_us, self.taste), events, index, session_id)

    @classmethod
    def _grown(
        cls,
        pairs: dict[tuple[int, int], _Pair],
        before: tuple[float, int, Taste],
        events: Sequence[Action],
        index: Mapping[str, int],
        session_id: str | None,
    ) -> UserState:
        n_sessions, first_us, taste = before
        sessions: set[str | None] = set()
        if session_id is None and events:
            session_id = events[-1].session_id
        for arrival, event in enumerate(events, start=1):
            at = index.get(event.item_id)
            if at is None or event.event_type not in TYPE_CODE:
                continue
            pair = pairs.setdefault((at, TYPE_CODE[event.event_type]), _Pair(0.0, 0.0, event.time_us, event.time_us))
            pair.add(event, session_id, arrival)
            sessions.add(event.session_id)
            first_us = min(first_us or event.time_us, event.time_us)
        return cls._from_pairs(pairs, n_sessions + len(sessions), first_us, taste)

    def _pairs(self) -> dict[tuple[int, int], _Pair]:
        keys = zip(self.item_P.tolist(), self.type_P.tolist(), strict=True)
        columns = (self.count_P, self.quantity_P, self.first_us_P, self.last_us_P, self.session_P)
        values = zip(*(column.tolist() for column in columns), strict=True)
        return {key: _Pair(*value) for key, value in zip(keys, values, strict=True)}

    @classmethod
    def _from_pairs(
        cls, pairs: dict[tuple[int, int], _Pair], n_sessions: float, first_us: int, taste: Taste
    ) -> UserState:
        ordered = sorted(pairs.items(), key=lambda kv: (kv[1].arrival, kv[1].last_us, kv[0]))[-MAX_PAIRS:]
        return cls(
            item_P=np.array([key[0] for key, _ in ordered], dtype=np.int64),
            type_P=np.array([key[1] for key, _ in ordered], dtype=np.int64),
            count_P=np.array([pair.count for _, pair in ordered]),
            quantity_P=np.array([pair.quantity for _, pair in ordered]),
            first_us_P=np.array([pair.first_us for _, pair in ordered], dtype=np.int64),
            last_us_P=np.array([pair.last_us for _, pair in ordered], dtype=np.int64),
            session_P=np.array([pair.live for _, pair in ordered], dtype=bool),
            n_sessions=n_sessions,
            first_us=first_us,
            last_us=max((pair.last_us for _, pair in ordered), default=0),
            taste=taste,
        )

    def renumbered(self, place: Mapping[int, int]) -> UserState:
        """The same history under another item table's numbers; items that it lacks are left out."""
        moved = np.array([place.get(item, -1) for item in self.item_P.tolist()], dtype=np.int64)
        kept = self._rows(moved >= 0)
        return replace(kept, item_P=moved[moved >= 0])

    def without(self, item: int) -> UserState:
        """The same history as if this item had never been touched (for explanations)."""
        return self._rows(self.item_P != item)

    def _rows(self, keep: Bools) -> UserState:
        return replace(
            self,
            item_P=self.item_P[keep],
            type_P=self.type_P[keep],
            count_P=self.count_P[keep],
            quantity_P=self.quantity_P[keep],
            first_us_P=self.first_us_P[keep],
            last_us_P=self.last_us_P[keep],
            session_P=self.session_P[keep],
        )

    def decayed(self, as_of_us: int, half_life_days: float) -> Floats:
        """(P,) counts in which an event loses half its weight every half-life; spaced evenly from first to last.

        What was touched in the running session counts as of now, whatever time its events carry: the session
        follows the order of arrival. Remembered, so it cannot be written to.
        """
        known = self._decayed.get((as_of_us, half_life_days))
        if known is None:
            age = np.where(self.session_P, 0.0, np.maximum(as_of_us - self.last_us_P, 0) / DAY_US)
            known = np.exp2(-age / half_life_days)
            rows, repeats, gap = self._repeated
            ratio = np.exp2(-gap / half_life_days)
            known[rows] *= np.where(ratio < 1.0 - 1e-9, (1.0 - ratio**repeats) / np.maximum(1.0 - ratio, 1e-9), repeats)
            known.setflags(write=False)
            self._decayed[as_of_us, half_life_days] = known
        return known

    @cached_property
    def _decayed(self) -> dict[tuple[int, float], Floats]:
        """By moment and half-life: a page asks for the same ones again and again."""
        return {}

    @cached_property
    def _repeated(self) -> tuple[Ints, Floats, Floats]:
        """(Q,) the pairs that came more than once, how often, and the days between."""
        rows = np.flatnonzero(self.count_P > 1.0)
        repeats = self.count_P[rows]
        return rows, repeats, (self.last_us_P - self.first_us_P)[rows] / DAY_US / np.maximum(repeats - 1.0, 1.0)


@dataclass
class _Pair:
    """A pair while it is being counted."""

    count: float
    quantity: float
    first_us: int
    last_us: int
    live: bool = False
    arrival: int = 0  # 0: stored; else the place of its newest live event
    session: str | None = None

    def add(self, event: Action, session_id: str | None, arrival: int) -> None:
        """One more event; within one session a repeat moves the time, not the count."""
        same = (
            self.count > 0
            and self.session == event.session_id
            and (event.session_id is not None or event.time_us - self.last_us < SESSION_GAP_S * 1_000_000)
        )
        self.count += 0.0 if same else 1.0
        self.quantity += event.quantity
        self.first_us = min(self.first_us, event.time_us)
        self.last_us = max(self.last_us, event.time_us)
        self.session = event.session_id
        self.live = self.live or event.session_id == session_id
        self.arrival = arrival


def _read_row(row: HistoryRow, index: Mapping[str, int], pairs: dict[tuple[int, int], _Pair]) -> None:
    columns = (row.item_ids, row.event_types, row.counts, row.quantities, row.first_times, row.last_times)
    for item_id, name, *values in zip(*(column.tolist() for column in columns), strict=True):
        at = index.get(item_id)
        if at is not None and name in TYPE_CODE:
            pairs[(at, TYPE_CODE[name])] = _Pair(*values)
