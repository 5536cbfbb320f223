"""The user's history row from the online store: one read a request, kept for a moment, never in the way.

Choices. The row is what was materialised up to a watermark; the live log adds what is newer: what happened after the
row's last event, and whatever was never exported, for that cannot be in a row. Rows are kept for some seconds,
because a store answers in milliseconds and a shopper asks again at once; an erasure forgets within that time on all
workers. A read that fails or is slow costs the page its long memory and nothing else: it says `stale`, and the store is
left alone for two seconds. Feast is imported only where there is a store.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import HomerankerError
from features.history import HistoryRow
from serving import metrics
from serving.event_log import NOTHING

if TYPE_CHECKING:
    from feast import FeatureStore

FOLDER = "online"
KEEP_S = 30.0  # an erasure may take 60 s to hold everywhere; rows change only with a retrain
KEPT_ROWS = 20_000
REST_S = 2.0
TIMEOUT_S = 0.1  # of Redis
MAX_AGE = timedelta(days=730)

logger = logging.getLogger("homeranker.online")


class OnlineHistory:
    """Reads and forgets history rows; without a store nobody has one."""

    def __init__(self, home: Path, redis_url: str | None) -> None:
        self._root, self._redis_url = home / FOLDER, redis_url
        self._store: FeatureStore | None = None
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, HistoryRow | None]] = {}
        self._resting_until = 0.0
        self.exported_seq = 0  # events up to here may be in a row; kept up to date by the watcher

    def open(self) -> None:
        """Open the store where there is one by now; StoreError is left to the next look."""
        if self._store is not None or not (self._root / "registry.db").exists():
            return
        from features.views import store_for

        offline = self._root / "history.parquet"
        self._store = store_for(self._root, offline_path=offline, redis_url=self._redis_url, timeout_s=TIMEOUT_S)

    def row(self, user_id: str | None, now_us: int) -> tuple[HistoryRow | None, bool]:
        """(history row or None, True where the store failed)."""
        if user_id is None or self._store is None:
            return None, False
        at = time.monotonic()
        kept = self._kept.get(user_id)
        if kept is not None and at - kept[0] < KEEP_S:
            return kept[1], False
        if at < self._resting_until:
            return None, True
        try:
            row = self._read(self._store, user_id, now_us)
        except (HomerankerError, OSError, TimeoutError) as error:
            self._resting_until = time.monotonic() + REST_S
            logger.warning("the online store failed: %s", type(error).__name__)
            return None, True
        if len(self._kept) >= KEPT_ROWS:
            self._kept.clear()
        self._kept[user_id] = (at, row)
        if row is not None:
            metrics.STORE_AGE.set(max(0.0, (now_us - row.last_time) / 1e6))
        return row, False

    def _read(self, store: FeatureStore, user_id: str, now_us: int) -> HistoryRow | None:
        from features.store import read_online

        now = datetime.fromtimestamp(now_us / 1e6, UTC)
        if not self._lock.acquire(timeout=TIMEOUT_S):  # Feast's SQLite connection is one for the process
            raise TimeoutError
        try:
            return read_online(store, [user_id], now=now, max_age=MAX_AGE)[0]
        finally:
            self._lock.release()

    def known(self, row: HistoryRow | None) -> tuple[int, int]:
        """(seq, time) of the events that a row holds at most: those after either are not in it."""
        return (self.exported_seq, row.last_time) if row is not None else NOTHING

    def forget(self, user_id: str) -> None:
        """Delete a user's row; StoreError where it cannot be done now."""
        self._kept.pop(user_id, None)
        if self._store is not None:
            from features.store import delete_online

            with self._lock:
                delete_online(self._store, user_id)
            self._kept.pop(user_id, None)
