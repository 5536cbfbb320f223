"""What a person did a moment ago: read from the log that every worker of this machine shares, and from Redis.

Choices. The event log is the truth of one machine: an indexed read of the newest rows takes well under a
millisecond, needs no cache and so nothing to invalidate. Redis (HOMERANKER_REDIS_URL) adds what other machines
accepted; both are merged by event_id, so an empty or restarted Redis loses nothing. Redis that fails or is slow is
left alone for two seconds and the page says `stale`.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from features.errors import StoreError
from serving.contract import EventRow
from serving.event_log import EventLog, LiveEvent

KEEP_S = 7 * 86_400
TIMEOUT_S = 0.05
SEEN_PAGES = 3  # newest pages of a visit whose items count as seen
REST_S = 2.0  # how long a failing Redis is left alone

logger = logging.getLogger("homeranker.session")


class RedisSessions:
    """The newest events of users and sessions in Redis lists, newest first."""

    def __init__(self, url: str, keep: int = 500) -> None:
        self._redis: redis.Redis = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
        self._keep, self._resting_until = keep, 0.0

    def _guarded(self, pipeline: Any) -> list[Any]:
        """Run a pipeline; StoreError where Redis fails, at once while it rests."""
        if time.monotonic() < self._resting_until:
            raise StoreError("Redis failed a moment ago and is left alone")
        try:
            results: list[Any] = pipeline.execute()
            return results
        except (redis.RedisError, OSError) as error:
            self._resting_until = time.monotonic() + REST_S
            raise StoreError(f"Redis: {type(error).__name__}; is HOMERANKER_REDIS_URL right and Redis up?") from error

    def add(self, rows: Sequence[EventRow], received_us: int) -> None:
        """Put accepted events in front of their lists; an event may come twice, readers merge by event_id."""
        pipeline = self._redis.pipeline(transaction=False)
        for row in rows:
            if row.item_id is None:
                continue
            told = [row.event_id, row.item_id, row.event_type, row.event_time, row.session_id, row.quantity, row.price]
            text = json.dumps([*told, received_us, row.user_id])
            for key in _keys(row.user_id, row.session_id):
                pipeline.lpush(key, text)
                pipeline.ltrim(key, 0, self._keep - 1)
                pipeline.expire(key, KEEP_S)
        self._guarded(pipeline)

    def read(self, user_id: str | None, session_id: str | None) -> list[LiveEvent]:
        """Events of this person, oldest first; those of the session only where they are nobody else's."""
        pipeline = self._redis.pipeline(transaction=False)
        for key in _keys(user_id, session_id):
            pipeline.lrange(key, 0, self._keep - 1)
        found: dict[str, LiveEvent] = {}
        for texts in self._guarded(pipeline):
            for text in reversed(texts):
                event_id, item, kind, when, session, quantity, price, received, whose = json.loads(text)
                if whose is None or user_id is None or whose == user_id:
                    price = math.nan if price is None else float(price)
                    event = LiveEvent(0, event_id, item, kind, when, session, float(quantity or 1), price, received)
                    found.setdefault(event_id, event)
        return list(found.values())

    def forget(self, user_id: str, sessions: Sequence[str], until_us: int) -> None:
        """Delete what came of a user, and of nobody in their sessions, up to a time."""
        keys = [f"hr:u:{user_id}", *(f"hr:s:{session}" for session in sessions)]
        reading, deleting = (self._redis.pipeline(transaction=False) for _ in range(2))
        for key in keys:
            reading.lrange(key, 0, -1)
        for key, texts in zip(keys, self._guarded(reading), strict=True):
            for text in texts:
                *_, received_us, whose = json.loads(text)
                if received_us <= until_us and whose in (None, user_id):
                    deleting.lrem(key, 0, text)
        self._guarded(deleting)


def _keys(user_id: str | None, session_id: str | None) -> list[str]:
    given = (("u", user_id), ("s", session_id))
    return [f"hr:{kind}:{value}" for kind, value in given if value is not None]


class LiveState:
    """The newest events of a person from all sources, and whether a source was missing."""

    def __init__(self, shared: RedisSessions | None, limit: int) -> None:
        self.shared, self._limit = shared, limit

    def events(
        self, log: EventLog | None, user_id: str | None, session_id: str, after: tuple[int, int]
    ) -> tuple[list[LiveEvent], bool]:
        """(events that came or happened `after` a (seq, time), in order of arrival; True where a source failed)."""
        stale = log is None
        found: list[LiveEvent] = []
        if log is not None:
            try:
                found = log.live(user_id, session_id, self._limit, after)
            except StoreError as error:
                logger.warning("live events cannot be read: %s", error)
                stale = True
        if self.shared is not None:
            try:
                known = {event.event_id for event in found}
                others = [
                    event
                    for event in self.shared.read(user_id, session_id)
                    if event.event_id not in known and (event.seq > after[0] or event.time_us > after[1])
                ]
                if others:
                    found = sorted(found + others, key=lambda event: event.received_us)[-self._limit :]
            except StoreError as error:
                logger.warning("%s", error)
                stale = True
        return found, stale

    def passed(
        self, log: EventLog | None, user_id: str | None, session_id: str, index: Mapping[str, int]
    ) -> npt.NDArray[np.int64]:
        """(N,) items that the last pages of this visit showed already; none where that cannot be read."""
        ids: list[str] = []
        if log is not None:
            try:
                ids = log.shown(user_id, session_id, SEEN_PAGES)
            except StoreError as error:
                logger.warning("shown pages cannot be read: %s", error)
        return np.array(sorted({index[item] for item in ids if item in index}), dtype=np.int64)

    def add(self, rows: Sequence[EventRow], received_us: int) -> None:
        """Tell other machines; the log already holds the events, so a failure costs freshness only."""
        if self.shared is not None:
            try:
                self.shared.add(rows, received_us)
            except StoreError as error:
                logger.warning("%s", error)
