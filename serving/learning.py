"""Online learning of one worker: follows the event log, keeps live counts and weights, hands out what it knows.

Choices. The log is the only truth: every worker of a machine reads it for itself, a restart counts the newest events
again, an erasure or a rollback (`homeranker unlearn`) counts all again without what is gone; until the end of the log
is reached, pages stand on what was known before. A click on a page of ours is joined to the slate that was logged, with
the signals as they were served. Work is bounded: so many events a turn, and a rest after each hand-out that is a
multiple of what it took, so that pages never wait for it.
Events that a champion was trained on (exported, and older than its last day) are not added to its popularity again.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models.choice import Choices, ClickedPage
from models.history import TYPE_CODE
from models.live import LearningParams, LiveCounts, Seen
from models.live_signals import NAMES
from serving.event_log import EventLog

TURN = 2000  # events read at once
KEPT_EVENTS = 200_000  # counted again after a restart
KEPT_PAGES = 2000  # pages whose later clicks are still joined
UNLEARNED = "unlearned"  # the fact that lists what is not to be learned from: pairs of microseconds
TRUST = (0.6, 0.15)  # how far clicks may move a weight (sd): of a model that learned from clicks hardly
ERASED_REST_S = 20.0  # between two counts anew because somebody was erased
REST = 15.0  # rest after a hand-out, in multiples of what it took
LEAST_REST_S, FIT_S = 0.4, 2.0
WEIGHT = {TYPE_CODE["view"]: 1.0, TYPE_CODE["click"]: 1.0, TYPE_CODE["add_to_cart"]: 1.5, TYPE_CODE["purchase"]: 2.0}
EVENT = """seq, item_id, event_type, event_time, user_id, session_id, received_us,
  CASE WHEN verified THEN json_extract(row, '$.request_id') END"""
EVENTS_SQL = "SELECT * FROM events WHERE seq > ? AND item_id IS NOT NULL ORDER BY seq LIMIT ?"


@dataclass(frozen=True)
class Basis:
    """What the counts stand on; another one means counting again."""

    prior_F: tuple[float, ...]
    trained_until_us: int
    exported_seq: int
    unlearned: tuple[tuple[int, int], ...]
    erasures: int
    knows_clicks: bool = False  # the model learned from the clicks on pages up to its last day

    def trained(self, seq: int, time_us: int) -> bool:
        """Whether the model counted this event of the log."""
        return seq <= self.exported_seq and time_us <= self.trained_until_us


class Learning:
    """Grows in the watcher's thread; what is handed out is read by requests."""

    def __init__(self, params: LearningParams) -> None:
        self.params = params
        self.basis: Basis | None = None
        self.counts, self.choices = LiveCounts(params), Choices([0.0] * len(NAMES))
        self.told = self.counts, self.choices  # what pages may stand on: counted to the end of the log
        self.seq, self.caught_up = 0, False
        self._pages: OrderedDict[str, tuple[ClickedPage, dict[str, int], dict[str, Any]]] = OrderedDict()
        self._changed, self._rest_until, self._fit_due, self._fitted = True, 0.0, 0.0, 0
        self._handed_out, self._forget_due = False, 0.0

    def stand_on(self, basis: Basis, log: EventLog) -> None:
        """Start anew where the basis is another one. An export alone makes none: the model was trained before it.

        Erasures that come one after the other are forgotten together, or no count would ever come to its end.
        """
        if self.basis is not None:
            if basis == replace(self.basis, exported_seq=basis.exported_seq):
                return
            only_erased = basis == replace(self.basis, exported_seq=basis.exported_seq, erasures=basis.erasures)
            if only_erased and (not self.caught_up or time.monotonic() < self._forget_due):
                return
            self._forget_due = time.monotonic() + ERASED_REST_S
        self.counts, self.choices = LiveCounts(self.params), Choices(basis.prior_F, TRUST[basis.knows_clicks])
        if self.basis is None or not self.params.enabled:
            self.told = self.counts, self.choices
        self.basis, self._handed_out = basis, False
        newest = log.store.read("SELECT COALESCE(MAX(seq), 0) FROM events")[0][0]
        self.seq, self.caught_up = max(0, newest - KEPT_EVENTS), False
        self._pages.clear()
        self._changed, self._fitted = True, 0

    def take_up(self, log: EventLog, may_learn: Callable[[str | None], bool]) -> None:
        """Count the next events of the log."""
        if self.basis is None or not self.params.enabled:
            return
        rows = sorted(log.store.read_at_once(EVENT, EVENTS_SQL, (self.seq, TURN)))
        self.caught_up = len(rows) < TURN
        if self.caught_up:
            self.told = self.counts, self.choices
        if not rows:
            return
        self._changed = True  # first: whoever sees the new place in the log must not take it for handed out
        self.seq = rows[-1][0]
        basis, taken = self.basis, []
        for row in rows:
            received = row[6]
            if may_learn(row[4]) and not any(start <= received <= end for start, end in basis.unlearned):
                taken.append(row)
        self.counts.see(
            [
                Seen(item, TYPE_CODE[kind], at, user, session, basis.trained(seq, at))
                for seq, item, kind, at, user, session, _, _ in taken
            ]
        )
        for seq, item, kind, at, user, session, _, request_id in taken:
            if request_id is not None and TYPE_CODE[kind] in WEIGHT:
                learned = basis.knows_clicks and basis.trained(seq, at)
                self._click(log, request_id, item, WEIGHT[TYPE_CODE[kind]], user or f"\0{session}", learned)

    def _click(self, log: EventLog, request_id: str, item: str, weight: float, person: str, learned: bool) -> None:
        known = self._pages.get(request_id) or self._find(log, request_id)
        if known is None or item not in known[1]:
            return
        page, places, slate = known
        slot = places[item]
        if page.clicked_S[slot] == 0:
            ids, modules = [s[2] for s in slate["slots"]], [s[0] for s in slate["slots"]]
            if not self.counts.click(ids, modules, slot, person, learned):
                return
        page.clicked_S[slot] = max(float(page.clicked_S[slot]), weight)

    def _find(self, log: EventLog, request_id: str) -> tuple[ClickedPage, dict[str, int], dict[str, Any]] | None:
        """The homepage of a request as it was logged, taken up among the clicked pages."""
        found = log.find_slate(request_id, wait_s=0.0)
        if found is None or found[3]["surface"] != "home" or "live" not in found[3]:
            return None
        slate = found[3]
        x_SF = np.asarray(slate["live"]["x"], dtype=np.float32)
        if x_SF.ndim != 2 or x_SF.shape != (len(slate["slots"]), len(NAMES)):
            return None  # an older release logged other signals
        known = (self.choices.add(x_SF, self.counts.days), {s[2]: n for n, s in enumerate(slate["slots"])}, slate)
        self._pages[request_id] = known
        if len(self._pages) > KEPT_PAGES:
            self._pages.popitem(last=False)
        return known

    @property
    def settled(self) -> bool:
        """Whether all that the log held at the last look is handed out."""
        return self.caught_up and not self._changed

    def due(self) -> bool:
        """Whether there is something new to hand out, and time for it."""
        ready = self.caught_up or not self._handed_out
        return self._changed and ready and time.monotonic() >= self._rest_until

    def handed_out(self, took_s: float) -> None:
        """Note a hand-out and what it cost."""
        self._changed, self._handed_out = False, True
        self._rest_until = time.monotonic() + max(LEAST_REST_S, REST * took_s)

    def fit(self) -> None:
        """Weigh the signals again where new pages were clicked."""
        if self.caught_up and self.choices.added > self._fitted and time.monotonic() >= self._fit_due:
            started = time.monotonic()
            self.choices.fit(self.counts.days)
            self._fitted = self.choices.added
            self._fit_due = time.monotonic() + max(FIT_S, 2 * REST * (time.monotonic() - started))


def unlearned(log: EventLog) -> tuple[tuple[int, int], ...]:
    """Stretches of arrival time whose events are not learned from."""
    return tuple((int(start), int(end)) for start, end in json.loads(log.fact(UNLEARNED) or "[]"))


def unlearn(log: EventLog, start_us: int, end_us: int) -> None:
    """Roll back: every worker counts again without the events that arrived from start to end."""
    log.remember(UNLEARNED, json.dumps([*unlearned(log), (start_us, end_us)]))
