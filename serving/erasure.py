"""Erasure of a user: asked for durably, done at once, told step by step, without keeping who it was.

Choices. The request is written before the answer (a crash cannot lose it; any worker's watcher takes up what is left)
and forgets the user id with its last step. What stays is a tombstone: a keyed hash of the user id and of each of
their sessions, with the time, so that the next export and the next retrain drop older rows and somebody who comes
back starts anew. Sessions are the user's if an event or a page named both; their anonymous rows go too.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from features.errors import StoreError
from serving.contract import format_time, now_us
from serving.event_log import EventLog
from serving.store import Store
from serving.tokens import Signer, read_secret

STEPS = ("tombstone", "live_state", "event_log", "slates_and_explanations", "online_store")
Step = Callable[[str, list[str]], None]


def request(log: EventLog, user_id: str, requested_us: int) -> str:
    """Write the wish to be erased; returns the receipt's id after the fsync."""
    erasure_id = secrets.token_urlsafe(18)
    steps = json.dumps(dict.fromkeys(STEPS))
    values = (erasure_id, requested_us, user_id, steps)
    log.store.write(lambda connection: connection.execute("INSERT INTO erasures VALUES (?,?,?,?)", values) and None)
    return erasure_id


def receipt(log: EventLog, erasure_id: str) -> dict[str, Any] | None:
    """The receipt as the contract shows it; None for an unknown id."""
    rows = log.store.read("SELECT requested_us, steps FROM erasures WHERE erasure_id = ?", (erasure_id,))
    if not rows:
        return None
    done: Mapping[str, int | None] = json.loads(rows[0][1])
    steps = [
        {"step": step, "status": "pending" if at is None else "done", "at": None if at is None else format_time(at)}
        for step, at in done.items()
    ]
    status = "done" if all(at is not None for at in done.values()) else "pending"
    return {"erasure_id": erasure_id, "requested_at": format_time(rows[0][0]), "steps": steps, "status": status}


def sessions_of(log: EventLog, user_id: str) -> list[str]:
    """Sessions that an event or a slate ties to the user."""
    sql = "SELECT DISTINCT session_id FROM {} WHERE user_id = ? AND session_id IS NOT NULL"
    found = {row[0] for row in log.store.read(sql.format("events"), (user_id,))}
    return sorted(found | {row[0] for row in log.slates.read(sql.format("slates"), (user_id,))})


def _delete(store: Store, table: str, user_id: str, sessions: list[str]) -> None:
    """Delete the user's rows and the anonymous rows of their sessions, and shrink the write-ahead log."""

    def job(connection: sqlite3.Connection) -> None:
        connection.execute(f"DELETE FROM {table} WHERE user_id = ?", (user_id,))  # noqa: S608 - a name of ours
        for session in sessions:
            sql = f"DELETE FROM {table} WHERE session_id = ? AND user_id IS NULL"  # noqa: S608 - a name of ours
            connection.execute(sql, (session,))

    store.write(job)
    store.read("PRAGMA wal_checkpoint(TRUNCATE)")


def pending(log: EventLog) -> list[str]:
    """Erasures that are not done."""
    return [row[0] for row in log.store.read("SELECT erasure_id FROM erasures WHERE user_id IS NOT NULL")]


def perform(log: EventLog, signer: Signer, erasure_id: str, live: Step, online: Step) -> None:
    """Run the steps that are left, each recorded; StoreError leaves the rest for the next try."""
    rows = log.store.read("SELECT user_id, steps, requested_us FROM erasures WHERE erasure_id = ?", (erasure_id,))
    if not rows or rows[0][0] is None:
        return
    user_id, requested_us = rows[0][0], rows[0][2]
    done: dict[str, int | None] = json.loads(rows[0][1])
    sessions = sessions_of(log, user_id)
    work: dict[str, Step] = {
        "tombstone": lambda user, own: _bury(log, signer, user, own, requested_us),
        "live_state": live,
        "event_log": lambda user, own: _delete(log.store, "events", user, own),
        "slates_and_explanations": lambda user, own: _delete(log.slates, "slates", user, own),
        "online_store": online,
    }
    for step in STEPS:
        if done.get(step) is None:
            work[step](user_id, sessions)
            done[step] = now_us()
            last = step == STEPS[-1]
            _record(log, erasure_id, done, last)


def _record(log: EventLog, erasure_id: str, done: dict[str, int | None], last: bool) -> None:
    forget = ", user_id = NULL" if last else ""
    sql = f"UPDATE erasures SET steps = ?{forget} WHERE erasure_id = ?"  # noqa: S608 - constants
    log.store.write(lambda connection: connection.execute(sql, (json.dumps(done), erasure_id)) and None)


def _bury(log: EventLog, signer: Signer, user_id: str, sessions: list[str], at_us: int) -> None:
    aliases = [("user", signer.alias("user", user_id)), *(("session", signer.alias("session", s)) for s in sessions)]
    values = [(kind, alias, at_us) for kind, alias in aliases]
    sql = "INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?)"
    log.store.write(lambda connection: connection.executemany(sql, values) and None)


class Erased:
    """Who was erased and when; the next retrain drops their rows up to that time from every training set."""

    def __init__(self, signer: Signer, users: Mapping[str, int], sessions: Mapping[str, int]) -> None:
        self._signer, self._users, self._sessions = signer, users, sessions
        self._seen: dict[tuple[str, str], int] = {}

    @classmethod
    def read(cls, home: Path) -> Erased:
        """The tombstones under a home; nobody where there is no log."""
        path = home / "log" / "events.db"
        users: dict[str, int] = {}
        sessions: dict[str, int] = {}
        if path.exists():
            try:
                connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
                for kind, alias, at in connection.execute("SELECT kind, alias, erased_us FROM tombstones"):
                    (users if kind == "user" else sessions)[alias] = at
                connection.close()
            except sqlite3.Error as error:
                raise StoreError(f"{path}: the record of erasures cannot be read: {error}") from error
        return cls(Signer(read_secret(home)) if users or sessions else Signer(b""), users, sessions)

    def __bool__(self) -> bool:
        return bool(self._users or self._sessions)

    def fingerprint(self) -> str:
        """Changes with every erasure; names nobody."""
        told = json.dumps([self._users, self._sessions], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def until_us(self, user_id: str | None, session_id: str | None) -> int:
        """Rows of this user, or of this session without a user, up to this time are erased; 0 for none."""
        kind, value = ("user", user_id) if user_id is not None else ("session", session_id)
        if value is None or not self:
            return 0
        if (kind, value) not in self._seen:
            known = self._users if kind == "user" else self._sessions
            self._seen[kind, value] = known.get(self._signer.alias(kind, value), 0)
        return self._seen[kind, value]
