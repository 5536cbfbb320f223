"""Erasure of a user: asked for durably, done at once, told step by step, without keeping who it was.

Choices. The request is written before the answer (a crash cannot lose it; whichever process is free takes up what is
left) and forgets the user id with its last step. It is about what was accepted before it, by number and not by clock:
what somebody sends a moment later is theirs anew. All that is asked for is done together, by one process at a time, so
that a thousand erasures take little more than one. What stays is a tombstone: a keyed hash of the user id and of each
of their sessions, with the time, so that the next export and the next retrain drop older rows and somebody who comes
back starts anew; and a keyed hash of each event's id, so that a late retry of it is a retry. Sessions are the user's if
an event or a page named both; their anonymous rows go too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.errors import StoreError
from serving.contract import format_time, now_us
from serving.event_log import EventLog
from serving.online import OnlineHistory
from serving.session import RedisSessions
from serving.store import Store
from serving.tokens import Signer, read_secret

STEPS = ("tombstone", "live_state", "event_log", "slates_and_explanations", "online_store")
TOGETHER = 200  # erasures that share a commit
EVERYTHING = 2**62  # of an erasure that an older release wrote down
NEVER_US = -(2**63)  # before any row's time
# A page may be logged a moment after it was served, and in a replay it may be served at any time.
SHOWN_BEFORE = "(served_us <= ? OR rowid <= ?)"


@dataclass(frozen=True)
class Wish:
    """An erasure that is not done: whose, when it was asked for, how far back it reaches, and which steps are done."""

    erasure_id: str
    user_id: str
    requested_us: int
    last_event: int
    last_slate: int
    sessions: Sequence[str]
    done: dict[str, int | None] = field(compare=False)

    @property
    def whose(self) -> Iterator[tuple[str, str]]:
        """Conditions of SQL, each with its value: the user's rows, and the anonymous ones of their sessions."""
        yield "user_id = ?", self.user_id
        for session in self.sessions:
            yield "session_id = ? AND user_id IS NULL", session


Step = Callable[[Sequence[Wish]], None]


def request(log: EventLog, user_id: str, requested_us: int) -> str:
    """Write the wish to be erased; returns the receipt's id after the fsync."""
    erasure_id = secrets.token_urlsafe(18)
    last_slate = log.slates.read("SELECT COALESCE(MAX(rowid), 0) FROM slates")[0][0]
    values = (erasure_id, requested_us, user_id, json.dumps(dict.fromkeys(STEPS)), last_slate)
    sql = """INSERT INTO erasures (erasure_id, requested_us, user_id, steps, last_slate, last_event)
      SELECT ?, ?, ?, ?, ?, COALESCE(MAX(seq), 0) FROM events"""
    log.store.write(lambda connection: connection.execute(sql, values) and None)
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


def is_pending(log: EventLog) -> bool:
    """Whether an erasure is not done."""
    return bool(log.store.read("SELECT 1 FROM erasures WHERE user_id IS NOT NULL LIMIT 1"))


def perform(log: EventLog, signer: Signer, shared: RedisSessions | None, online: OnlineHistory) -> None:
    """Carry out what is asked for, each step recorded; what fails is raised at the end and left for the next try.

    Where another process is at it, it is left to that one.
    """

    def live_state(wishes: Sequence[Wish]) -> None:
        for wish in wishes:
            if shared is not None:
                shared.forget(wish.user_id, wish.sessions, wish.requested_us)

    def online_store(wishes: Sequence[Wish]) -> None:
        for wish in wishes:
            online.forget(wish.user_id)

    work: dict[str, Step] = {
        "tombstone": lambda wishes: _bury(log, signer, wishes),
        "live_state": live_state,
        "event_log": lambda wishes: _delete_events(log, signer, wishes),
        "slates_and_explanations": lambda wishes: _delete_slates(log.slates, wishes),
        "online_store": online_store,
    }
    with _alone(log) as mine:
        while mine and (wishes := _wishes(log)):
            failed: list[Exception] = []
            for step in STEPS:
                left = [wish for wish in wishes if wish.done.get(step) is None]
                try:
                    for at in range(0, len(left), TOGETHER):
                        work[step](left[at : at + TOGETHER])
                        _record(log, left[at : at + TOGETHER], step)
                except Exception as error:  # Redis being away is no reason to keep the log; raised below
                    failed.append(error)
            if failed:
                raise failed[0]


@contextlib.contextmanager
def _alone(log: EventLog) -> Iterator[bool]:
    """Whether no other process erases now."""
    with (log.home / "log" / "erasing.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True  # the lock goes with the file


def _wishes(log: EventLog) -> list[Wish]:
    sql = """SELECT erasure_id, user_id, requested_us, last_event, last_slate, sessions, steps FROM erasures
      WHERE user_id IS NOT NULL"""
    found = []
    for name, user, at, event, slate, sessions, steps in log.store.read(sql):
        bounds = (EVERYTHING if event is None else event, EVERYTHING if slate is None else slate)
        wish = Wish(name, user, at, *bounds, json.loads(sessions or "[]"), json.loads(steps))
        found.append(wish if sessions else Wish(name, user, at, *bounds, _sessions_of(log, wish), wish.done))
    return found


def _sessions_of(log: EventLog, wish: Wish) -> list[str]:
    """Sessions that an event or a slate ties to the user."""
    sql = "SELECT DISTINCT session_id FROM {} WHERE user_id = ? AND session_id IS NOT NULL AND {}"
    found = {row[0] for row in log.store.read(sql.format("events", "seq <= ?"), (wish.user_id, wish.last_event))}
    mine = (wish.user_id, wish.requested_us, wish.last_slate)
    return sorted(found | {row[0] for row in log.slates.read(sql.format("slates", SHOWN_BEFORE), mine)})


def _bury(log: EventLog, signer: Signer, wishes: Sequence[Wish]) -> None:
    """Remember that they were erased: up to when it was asked, or up to their newest event where that is later."""

    def job(connection: sqlite3.Connection) -> None:
        for wish in wishes:
            until_us = wish.requested_us
            for whose, value in wish.whose:
                sql = f"SELECT MAX(event_time) FROM events WHERE {whose} AND seq <= ?"  # noqa: S608 - constants
                newest_us = connection.execute(sql, (value, wish.last_event)).fetchone()[0]
                until_us = until_us if newest_us is None else max(until_us, newest_us)
            aliases = [("user", signer.alias("user", wish.user_id))]
            aliases += [("session", signer.alias("session", session)) for session in wish.sessions]
            sql = """INSERT INTO tombstones VALUES (?, ?, ?) ON CONFLICT (kind, alias)
              DO UPDATE SET erased_us = MAX(erased_us, excluded.erased_us)"""
            connection.executemany(sql, [(kind, alias, until_us) for kind, alias in aliases])
            sessions = (json.dumps(wish.sessions), wish.erasure_id)
            connection.execute("UPDATE erasures SET sessions = ? WHERE erasure_id = ?", sessions)

    log.store.write(job)


def _delete_events(log: EventLog, signer: Signer, wishes: Sequence[Wish]) -> None:
    def job(connection: sqlite3.Connection) -> None:
        for wish in wishes:
            for whose, value in wish.whose:
                sql = f"DELETE FROM events WHERE {whose} AND seq <= ? RETURNING event_id"  # noqa: S608 - constants
                gone = connection.execute(sql, (value, wish.last_event)).fetchall()
                aliases = [(signer.digest("event", event_id),) for (event_id,) in gone]
                connection.executemany("INSERT OR IGNORE INTO erased_events VALUES (?)", aliases)

    log.store.write(job)
    log.store.shrink()


def _delete_slates(slates: Store, wishes: Sequence[Wish]) -> None:
    def job(connection: sqlite3.Connection) -> None:
        for wish in wishes:
            for whose, value in wish.whose:
                sql = f"DELETE FROM slates WHERE {whose} AND {SHOWN_BEFORE}"  # noqa: S608 - constants
                connection.execute(sql, (value, wish.requested_us, wish.last_slate))

    slates.write(job)
    slates.shrink()


def _record(log: EventLog, wishes: Sequence[Wish], step: str) -> None:
    """Note a step as done; with the last one it is forgotten whose it was."""
    for wish in wishes:
        wish.done[step] = now_us()
    values = [(json.dumps(wish.done), wish.erasure_id) for wish in wishes]
    ended = [(wish.erasure_id,) for wish in wishes if None not in wish.done.values()]

    def job(connection: sqlite3.Connection) -> None:
        connection.executemany("UPDATE erasures SET steps = ? WHERE erasure_id = ?", values)
        connection.executemany("UPDATE erasures SET user_id = NULL, sessions = NULL WHERE erasure_id = ?", ended)

    log.store.write(job)
    if ended:
        log.store.shrink()


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
        """Rows of this user, or of this session without a user, up to this time are erased; NEVER_US for none."""
        kind, value = ("user", user_id) if user_id is not None else ("session", session_id)
        if value is None or not self:
            return NEVER_US
        if (kind, value) not in self._seen:
            known = self._users if kind == "user" else self._sessions
            self._seen[kind, value] = known.get(self._signer.alias(kind, value), NEVER_US)
        return self._seen[kind, value]
