"""Histories into the online store that the service reads."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.history import History
from features.store import MaterializeReport, materialize, read_watermark
from features.views import redis_url_from_environment, store_for
from flows.paths import Home

WATERMARK = "watermark.json"
SOURCE = "source"


def bring_online(home: Home, history: Path) -> MaterializeReport:
    """Materialize a history file into HOMERANKER_HOME's online store (SQLite, or Redis by HOMERANKER_REDIS_URL).

    Day by day from the watermark on; the first fill goes by months, since nothing can be overtaken in an empty store.
    A history that was rebuilt for the past starts anew: rows that the store has already are not written twice.
    """
    store = store_for(home.online, offline_path=history, redis_url=redis_url_from_environment())
    mark = home.online / WATERMARK
    newest = pc.max(pq.read_table(history, columns=[History.EVENT_TIMESTAMP])[History.EVENT_TIMESTAMP]).as_py()
    until = (newest or datetime.now(UTC)) + timedelta(microseconds=1)
    first = read_watermark(mark) is None
    source = home.online / SOURCE
    if not first and source.exists() and source.read_text() != str(history):
        mark.unlink()
    report = materialize(store, history, watermark_path=mark, until=until, chunk=timedelta(days=30 if first else 1))
    fresh = source.with_name(f".{SOURCE}.{os.getpid()}")
    fresh.write_text(str(history))
    fresh.replace(source)
    return report
