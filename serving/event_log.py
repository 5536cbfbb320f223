"""The log of events and of slates: durable before the answer, each event_id once, readable by every worker.

Choices. An event is accepted by the primary key of one table, so that ten identical batches at once, in ten
processes, count once; ids are kept for good, which is more than the seven days asked, those of erased events as keyed
hashes, so that a late retry brings nothing back. The order of arrival is the row's sequence number. A row is stored as
it was sent (JSON), beside the few columns that a request looks at.
Slates are one row a request with its slots as JSON, exported as one row a slot; they are committed in the background
within milliseconds, and `find` waits for one that is known to exist because its id is signed.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from features.schema import Events
from serving.contract import EventRow
from serving.store import Store

EVENTS_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, received_us INTEGER NOT NULL,
  event_time INTEGER NOT NULL, user_id TEXT, session_id TEXT, item_id TEXT, event_type TEXT NOT NULL,
  quantity INTEGER, price REAL, verified INTEGER NOT NULL, row TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_user ON events (user_id, seq) WHERE user_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_session ON events (session_id, seq) WHERE session_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS items (item_id TEXT PRIMARY KEY, seq INTEGER NOT NULL, row TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS items_seq ON items (seq);
CREATE TABLE IF NOT EXISTS erasures (erasure_id TEXT PRIMARY KEY, requested_us INTEGER NOT NULL, user_id TEXT,
  steps TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS erasures_left ON erasures (erasure_id) WHERE user_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS erased_events (alias BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tombstones (kind TEXT NOT NULL, alias TEXT NOT NULL, erased_us INTEGER NOT NULL,
  PRIMARY KEY (kind, alias));
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
# What an erasure is about: events and slates up to a number, and the sessions that were found to be the user's.
EVENTS_ADDED = tuple(
    f"ALTER TABLE erasures ADD COLUMN {column}"
    for column in ("last_event INTEGER", "last_slate INTEGER", "sessions TEXT")
)
SLATES_SCHEMA = """
CREATE TABLE IF NOT EXISTS slates (
  request_id TEXT PRIMARY KEY, served_us INTEGER NOT NULL, user_id TEXT, session_id TEXT, slate TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS slates_user ON slates (user_id) WHERE user_id IS NOT NULL;
DROP INDEX IF EXISTS slates_session;
DROP INDEX IF EXISTS slates_visit;
CREATE INDEX IF NOT EXISTS slates_time ON slates (served_us);
"""
# What a page asks of the visit's pages, so that none of them need be parsed: the items of a homepage, as JSON.
SLATES_ADDED = (
    "ALTER TABLE slates ADD COLUMN shown TEXT",
    "CREATE INDEX IF NOT EXISTS slates_shown ON slates (session_id, user_id, served_us, shown)",
)
IS_ERASED = "SELECT 1 FROM erased_events WHERE alias = ?"
INSERT = f"""INSERT INTO events ({Events.EVENT_ID}, received_us, {Events.EVENT_TIME}, {Events.USER_ID},
  {Events.SESSION_ID}, {Events.ITEM_ID}, {Events.EVENT_TYPE}, {Events.QUANTITY}, {Events.PRICE}, verified, row)
  SELECT ?,?,?,?,?,?,?,?,?,?,? WHERE NOT EXISTS ({IS_ERASED})
  ON CONFLICT ({Events.EVENT_ID}) DO NOTHING"""
EXPORTED = "exported_seq"  # the fact that names the last exported event
NOTHING = (-1, -1)  # a sequence number and a time that every event comes after
LIVE = "seq, event_id, item_id, event_type, event_time, session_id, quantity, price, received_us"


@dataclass(frozen=True)
class LiveEvent:
    """What a request needs of an accepted event."""

    seq: int
    event_id: str
    item_id: str
    event_type: str
    time_us: int
    session_id: str | None
    quantity: float
    price: float
    received_us: int


def live_event(values: Sequence[Any]) -> LiveEvent:
    """From the columns of LIVE; a missing quantity is one, a missing price is nan."""
    seq, event_id, item, kind, when, session, quantity, price, received = values
    price = float("nan") if price is None else float(price)
    return LiveEvent(seq, event_id, item, kind, when, session, float(quantity or 1), price, received)


def encode(document: Any) -> str:
    """JSON text; whatever a client sent as an extra field can be kept."""
    try:
        return orjson.dumps(document).decode()
    except TypeError:
        return json.dumps(document, ensure_ascii=True)  # lone surrogates, numbers beyond 64 bits


def decode(text: str) -> Any:
    """The document of `encode`."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)  # what only the standard library could write


@dataclass(frozen=True)
class Appended:
    """What became of a batch; `erased`: places of rows that were accepted once and erased since."""

    accepted: int
    duplicates: int
    erased: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Arrival:
    """One row for the log: whether its request_id was signed here, and the keyed hash of its event_id."""

    row: EventRow
    verified: bool
    alias: bytes


class EventLog:
    """Events, catalogue changes and erasures (durable), and slates (soon durable), under HOMERANKER_HOME/log."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = Store(home / "log" / "events.db", EVENTS_SCHEMA, EVENTS_ADDED)
        self.slates = Store(home / "log" / "slates.db", SLATES_SCHEMA, SLATES_ADDED, durable=False)

    def close(self) -> None:
        """Commit what waits."""
        self.slates.close()
        self.store.close()

    def append(self, rows: Sequence[Arrival], received_us: int) -> Future[Appended]:
        """Write rows; the future ends after the fsync. One with the id of an erased event is a retry like any other."""
        values = [_values(one, received_us) for one in rows]

        def job(connection: sqlite3.Connection) -> Appended:
            old = [at for at, one in enumerate(values) if connection.execute(INSERT, one).rowcount < 1]
            erased = frozenset(at for at in old if connection.execute(IS_ERASED, values[at][-1:]).fetchone())
            return Appended(len(values) - len(old), len(old), erased)

        return self.store.submit(job)

    def live(self, user_id: str | None, session_id: str | None, limit: int, after: tuple[int, int]) -> list[LiveEvent]:
        """The newest events of this person, in order of arrival: the user's, and those of the session alone.

        Of these only what came or happened `after` a (seq, time).
        """
        found: dict[int, LiveEvent] = {}
        who = [("user_id = ?", user_id), ("session_id = ? AND user_id IS NULL", session_id)]
        if user_id is None:
            who = [("session_id = ?", session_id)]
        for whose, value in who:
            if value is not None:
                newest = f"{whose} AND item_id IS NOT NULL ORDER BY seq DESC LIMIT {limit:d}"
                some = f"SELECT {LIVE} FROM events WHERE {newest}"  # noqa: S608 - constants
                sql = f"SELECT * FROM ({some}) WHERE seq > ? OR event_time > ?"  # noqa: S608 - constants
                found |= {row[0]: live_event(row) for row in self.store.read_at_once(LIVE, sql, (value, *after))}
        return [found[seq] for seq in sorted(found)][-limit:]

    def shown(self, user_id: str | None, session_id: str, pages: int) -> list[str]:
        """Items of the newest homepages of this visit that are logged."""
        sql = """SELECT shown FROM slates WHERE session_id = ? AND user_id IS ? AND shown IS NOT NULL
          ORDER BY served_us DESC LIMIT ?"""
        return [item for row in self.slates.read(sql, (session_id, user_id, pages)) for item in orjson.loads(row[0])]

    def add_slate(
        self, request_id: str, served_us: int, user_id: str | None, session_id: str, slate: Any
    ) -> Future[Any]:
        """Log what was shown; ends within milliseconds, also when nobody waits."""
        shown = encode([slot[2] for slot in slate["slots"]]) if slate["surface"] == "home" else None
        values = (request_id, served_us, user_id, session_id, encode(slate), shown)
        columns = "request_id, served_us, user_id, session_id, slate, shown"
        sql = f"INSERT OR IGNORE INTO slates ({columns}) VALUES (?,?,?,?,?,?)"  # noqa: S608 - constants
        return self.slates.submit(lambda connection: connection.execute(sql, values) and None)

    def find_slate(self, request_id: str, wait_s: float = 1.0) -> tuple[int, str | None, str, Any] | None:
        """(served_us, user_id, session_id, slate) of a signed id; waits a moment for one that is being written."""
        end = time.monotonic() + wait_s
        sql = "SELECT served_us, user_id, session_id, slate FROM slates WHERE request_id = ?"
        while True:
            rows = self.slates.read(sql, (request_id,))
            if rows:
                served, user, session, slate = rows[0]
                return served, user, session, decode(slate)
            if time.monotonic() >= end:
                return None
            time.sleep(0.01)

    def fact(self, name: str) -> str | None:
        """A remembered fact, such as which model served last."""
        rows = self.store.read("SELECT value FROM facts WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def remember(self, name: str, value: str) -> None:
        """Keep a fact."""
        sql = "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        self.store.write(lambda connection: connection.execute(sql, (name, value)) and None)


def _values(arrival: Arrival, received_us: int) -> tuple[Any, ...]:
    row = arrival.row
    return (
        row.event_id,
        received_us,
        row.event_time,
        row.user_id,
        row.session_id,
        row.item_id,
        row.event_type,
        row.quantity,
        row.price,
        int(arrival.verified),
        encode(row.model_dump()),
        arrival.alias,
    )
