"""One simulated day of one arm: the shoppers come, see pages, act; over HTTP to a served Bento, or straight in memory.

Choices. The service is asked exactly as any shop would ask it: homepage, events, and the catalogue's changes each
morning, at the simulated time (`Homeranker-Now`). A page's value is its exact expectation, read from the truth, so that
two arms differ by what they show and not by luck. A few visitors are under way at once, each in a thread. SIMULATED.
Shapes: B sessions.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from features.errors import HomerankerError
from features.schema import Items
from models.simulator import Session, Shop
from models.simulator.logs import play_day
from models.simulator.pages import PagePolicy

VISITORS = 6  # under way at once: while some wait for the disk, others keep the processor busy
BATCH = 500


@dataclass
class Visit:
    """What one session was worth: GBP by page, and the part that came from items launched since the loop began."""

    session_id: str
    user_id: str | None
    pages: list[float] = field(default_factory=list)
    intended: list[float] = field(default_factory=list)  # by page, the share of what the visit came for
    said: bool = False  # whether a click on the first page was on what the visit came for
    cold: float = 0.0
    newcomer: bool = False
    fallbacks: int = 0

    @property
    def value(self) -> float:
        """GBP of the session."""
        return sum(self.pages)


class Client:
    """Keeps one connection a thread to a served Bento."""

    def __init__(self, base: str) -> None:
        self._host = base.removeprefix("http://")
        self._local = threading.local()

    def call(self, method: str, path: str, body: Any, now: datetime) -> dict[str, Any]:
        """One JSON call at a simulated time; HomerankerError where the answer is not 2xx."""
        headers = {"content-type": "application/json", "homeranker-now": now.isoformat()}
        text = json.dumps(body, default=_plain)
        for attempt in (1, 2):
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = http.client.HTTPConnection(self._host, timeout=30)
            try:
                connection.request(method, path, text, headers)
                answer = connection.getresponse()
                content = answer.read()
                break
            except (http.client.HTTPException, OSError):
                self._local.connection = None
                if attempt == 2:
                    raise
        if not 200 <= answer.status < 300:
            raise HomerankerError(f"simulate: {method} {path} was answered {answer.status}: {content[:300]!r}")
        told: dict[str, Any] = json.loads(content)
        return told

    def post_events(self, events: Iterable[dict[str, Any]], now: datetime) -> int:
        """Rows of `events`; how many were rejected."""
        rows = [{name: value for name, value in one.items() if value is not None} for one in events]
        parts = (rows[at : at + BATCH] for at in range(0, len(rows), BATCH))
        return sum(len(self.call("POST", "/v1/events", {"events": part}, now)["rejected"]) for part in parts)

    def put_items(self, rows: Sequence[dict[str, Any]], now: datetime) -> None:
        """Changed rows of the catalogue."""
        for at in range(0, len(rows), BATCH):
            part = [{name: value for name, value in one.items() if value is not None} for one in rows[at : at + BATCH]]
            self.call("PUT", "/v1/items", {"items": part}, now)


def _plain(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)


def serve_day(
    shop: Shop, day: int, client: Client, since: int, progress: Callable[[int, int], None] | None = None
) -> list[Visit]:
    """All visits of a day against a served Bento; `since` is the first day of the loop (what is new since then)."""
    sessions = list(shop.sessions(day))
    client.post_events(shop.returns(day).to_pylist(), sessions[0].now)
    done = [0]

    def one(session: Session) -> Visit:
        visit = _visit(shop, session, client, since)
        done[0] += 1
        if progress is not None and done[0] % 50 == 0:
            progress(done[0], len(sessions))
        return visit

    with ThreadPoolExecutor(VISITORS) as pool:
        visits = list(pool.map(one, sessions))
    return [visit for visit, session in zip(visits, sessions, strict=True) if not session.batch.bot_B[session.row]]


def _visit(shop: Shop, session: Session, client: Client, since: int) -> Visit:
    visit = Visit(session.session_id, session.user_id, newcomer=_arrived_since(shop, session, since))
    asked = {"session_id": session.session_id, "platform": session.platform, "page_size": shop.params.page_size}
    if session.user_id is not None:
        asked["user_id"] = session.user_id
    goes_on = True
    while goes_on:
        now = session.now
        page = client.call("POST", "/v1/homepage", asked, now)
        slots = [(slot["position"], slot["item_id"]) for module in page["modules"] for slot in module["slots"]]
        _note(visit, shop, session, slots, since)
        visit.fallbacks += page["fallback"] is not None
        events, goes_on = shop.respond(session, slots, page["request_id"])
        if len(visit.pages) == 1:
            visit.said = _said(shop, session, slots, events)
        if events:
            client.post_events(events, now)
    return visit


def _note(visit: Visit, shop: Shop, session: Session, slots: list[tuple[int, str]], since: int) -> None:
    value_K = shop.slot_values(session, slots)
    visit.pages.append(float(value_K.sum()))
    share = shop.intended(session, slots) if slots else None
    if share is not None:
        visit.intended.append(share)
    launched = shop.launched(slots)
    visit.cold += float(value_K[launched >= since].sum())


def _said(shop: Shop, session: Session, slots: list[tuple[int, str]], events: list[dict[str, Any]]) -> bool:
    """Whether something of what the visit came for was clicked on this page."""
    clicked = {event["item_id"] for event in events if event["event_type"] == "click"}
    told = [slot for slot in slots if slot[1] in clicked]
    return bool(told and shop.intended(session, told))


def _arrived_since(shop: Shop, session: Session, since: int) -> bool:
    return bool(shop.truth.people.arrival_U[session.batch.user_B[session.row]] >= since)


def play_arm(shop: Shop, policy: PagePolicy, day: int, seed: int, since: int) -> list[Visit]:
    """The same day of a yardstick that needs no service."""
    played = play_day(shop, policy, day, seed)
    batch, truth = played.batch, shop.truth
    arrived_B = truth.people.arrival_U[batch.user_B] >= since
    visits = [
        Visit(name, user, newcomer=bool(new))
        for name, user, new in zip(batch.session_ids, batch.user_ids, arrived_B, strict=True)
    ]
    for wave in played.waves:
        for row, value in zip(wave.rows_R.tolist(), wave.answers.expected_R.tolist(), strict=True):
            visits[row].pages.append(value)
    return [visit for visit, bot in zip(visits, batch.bot_B.tolist(), strict=True) if not bot]


def catalogue_changes(shop: Shop, day: int) -> list[dict[str, Any]]:
    """Rows of items that were launched, sold out or came back since the day before."""
    before = {row[Items.ITEM_ID]: row for row in shop.items(day - 1).to_pylist()}
    return [row for row in shop.items(day).to_pylist() if before.get(row[Items.ITEM_ID]) != row]


def values(visits: Sequence[Visit]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(B,) GBP of each session."""
    return np.array([visit.value for visit in visits])
