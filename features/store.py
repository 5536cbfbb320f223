"""EDGE: the feature store in use: point-in-time rows for training, one function that writes online, one that reads.

Choices. Feast's SQLite store lets an older value replace a newer one, cuts times to seconds and serves values of any
age; so the guard is here, in the one writer and the one reader, and it is the same for SQLite and Redis. A row's
version is (last_time, last_event_id, n_events, taste_time): the later event wins, a tie goes to the greater event id,
of two states after the same event the one that knows more events (a late one came in), and then the one whose taste was
learned from the newer page. Writers take turns (a file lock; with Redis a lock there too), because to compare and then
to write is two steps. The watermark of `materialize` is the time of the newest row that was written and read back,
never a time that the data has not reached.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq

from features.errors import StoreError
from features.history import History, HistoryRow, completed, history_row
from features.views import PROJECT, VIEW

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

READ_KEYS = 1_000  # users asked for at once
WRITE_ROWS = 2_000
LOCK_S = 120
Version = tuple[int, str, int, int]


@dataclass
class ReadCounts:
    """How reads ended, since the process started: for the service's metrics."""

    present: int = 0
    missing: int = 0
    expired: int = 0


READS = ReadCounts()


@dataclass(frozen=True)
class MaterializeReport:
    """`rows` read from the history, `written` of them (the others were not newer), `watermark` after the last chunk."""

    rows: int
    written: int
    chunks: int
    watermark: datetime | None


def training_rows(store: FeatureStore, entity_df: pd.DataFrame) -> pd.DataFrame:
    """`entity_df` (user_id, event_timestamp, ...) with the user's state as of each row's own time, in its order.

    A state counts if its `event_timestamp` is not after the row's: give a label's time less 1 us where the labelled
    event may end a day. No state gives nulls. Feast joins the state's keys; the arrays are then looked up by them, as
    the join holds all earlier states of a user at once.
    """
    if entity_df.empty:
        return entity_df.assign(**dict.fromkeys(History.FEATURES))
    keys = [History.USER_ID, History.LAST_TIME]
    asked = pd.DataFrame(
        {
            History.USER_ID: entity_df[History.USER_ID].to_numpy(),
            History.EVENT_TIMESTAMP: pd.to_datetime(entity_df[History.EVENT_TIMESTAMP], utc=True).dt.as_unit("us"),
            "_row": range(len(entity_df)),
        }
    )
    found = store.get_historical_features(asked, features=[f"{VIEW}:{History.LAST_TIME}"]).to_df()
    found = found.sort_values("_row", ignore_index=True)[[History.USER_ID, History.LAST_TIME]]
    found[History.LAST_TIME] = found[History.LAST_TIME].astype("Int64")
    source: Any = store.get_feature_view(VIEW).batch_source
    states = pd.read_parquet(source.path, columns=[History.USER_ID, *History.FEATURES])
    states[History.LAST_TIME] = states[History.LAST_TIME].astype("Int64")
    joined = found.merge(states, on=keys, how="left", validate="many_to_one").set_index(entity_df.index)
    return pd.concat([entity_df, joined[list(History.FEATURES)]], axis=1)


def version_of(row: HistoryRow) -> Version:
    """What decides which of two states of a user is the newer."""
    return row.last_time, row.last_event_id, row.n_events, row.taste_time


@lru_cache(maxsize=8)
def _view(store: FeatureStore) -> FeatureView:
    """The view, decoded once: Feast decodes its registry anew whenever it is asked."""
    return store.get_feature_view(VIEW)


def _answer(store: FeatureStore, user_ids: Sequence[str], names: Sequence[str] | None) -> list[dict[str, Any]]:
    """One record a user, values None where the store has none.

    `get_online_features` decodes and checks the registry for each request, thirty times what the read itself takes;
    so the store is read through the provider, as it does in the end.
    """
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.type_map import feast_value_type_to_python_type as plain

    records: list[dict[str, Any]] = []
    wanted = list(names or History.FEATURES)
    for start in range(0, len(user_ids), READ_KEYS):
        some = list(user_ids[start : start + READ_KEYS])
        keys = [EntityKey(join_keys=[History.USER_ID], entity_values=[Value(string_val=user)]) for user in some]
        try:
            found = store._get_provider().online_read(store.config, _view(store), keys, wanted)
            for user, (_, values) in zip(some, found, strict=True):
                known = {name: plain(value) for name, value in (values or {}).items()}
                records.append({History.USER_ID: user} | {name: known.get(name) for name in wanted})
        except Exception as error:
            raise StoreError(f"the online store cannot be read: {type(error).__name__}: {error}") from error
    return records


@contextlib.contextmanager
def _turn(store: FeatureStore) -> Iterator[None]:
    """Hold the right to write: a lock on a file under the store's root and, with Redis, a lock in Redis."""
    with (Path(str(store.config.repo_path)) / "online.lock").open("w") as file, contextlib.ExitStack() as stack:
        fcntl.flock(file, fcntl.LOCK_EX)
        client = _redis(store)
        if client is not None:
            lock = client.lock(f"{PROJECT}:write", timeout=LOCK_S, blocking_timeout=LOCK_S)
            stack.enter_context(lock)
        yield


def _redis(store: FeatureStore) -> Any:
    """Feast's Redis client, None with SQLite. Feast has no public way to it."""
    online = store.config.online_store
    backend: Any = store._get_provider().online_store
    return backend._get_client(online) if online.type == "redis" else None


def write_online(store: FeatureStore, rows: pd.DataFrame) -> int:
    """Write rows of the history table online; returns how many were newer than what was there.

    Any order and any repetition of rows and batches ends in the same store. Raises StoreError where it cannot write.
    """
    if rows.empty:
        return 0
    version = [History.LAST_TIME, History.LAST_EVENT_ID, History.N_EVENTS, History.TASTE_TIME]
    rows = completed(rows)
    newest = rows.sort_values(version, kind="stable").drop_duplicates(History.USER_ID, keep="last")
    with _turn(store):
        there = _answer(store, newest[History.USER_ID].tolist(), version)
        given = newest[version].itertuples(index=False, name=None)
        newer = [
            old[version[0]] is None or new > tuple(old[n] or 0 for n in version)  # no taste: of an older release
            for new, old in zip(given, there, strict=True)
        ]
        chosen = newest.loc[newer, History.SCHEMA.names]
        for start in range(0, len(chosen), WRITE_ROWS):
            try:
                store.write_to_online_store(VIEW, chosen.iloc[start : start + WRITE_ROWS])
            except Exception as error:
                raise StoreError(f"the online store cannot be written: {type(error).__name__}: {error}") from error
    return len(chosen)


def read_online(
    store: FeatureStore,
    user_ids: Sequence[str],
    *,
    now: datetime | None = None,
    max_age: timedelta | None = None,
    counts: ReadCounts = READS,
) -> list[HistoryRow | None]:
    """The state of each user, None where there is none or where it is older than `max_age` at `now` (counted)."""
    oldest = None
    if max_age is not None:
        oldest = int(((now or datetime.now(UTC)) - max_age).timestamp() * 1_000_000)
    out: list[HistoryRow | None] = []
    for record in _answer(store, user_ids, None):
        row = None if record[History.LAST_TIME] is None else history_row(record)
        expired = row is not None and oldest is not None and row.last_time < oldest
        counts.expired += expired
        counts.missing += row is None
        counts.present += row is not None and not expired
        out.append(None if expired else row)
    return out


def delete_online(store: FeatureStore, user_id: str) -> None:
    """Remove a user's state from the online store; nothing happens where there is none.

    Feast deletes only whole tables, so the row is removed by the key under which Feast keeps it.
    """
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.infra.online_stores.helpers import _redis_key
    from feast.infra.online_stores.sqlite import _table_id
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key = EntityKey(join_keys=[History.USER_ID], entity_values=[Value(string_val=user_id)])
    version = store.config.entity_key_serialization_version
    with _turn(store):
        client = _redis(store)
        if client is not None:
            client.delete(_redis_key(PROJECT, key, version))
            return
        table = _table_id(PROJECT, _view(store), False)
        backend: Any = store._get_provider().online_store
        connection = backend._get_conn(store.config)
        with connection:
            connection.execute(f'DELETE FROM "{table}" WHERE entity_key = ?', (serialize_entity_key(key, version),))  # noqa: S608


def read_watermark(path: Path) -> datetime | None:
    """The time up to which the online store holds the history; None before the first chunk."""
    try:
        return datetime.fromisoformat(json.loads(path.read_text())["watermark"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is no watermark ({error}); delete it, the next run then writes everything") from error


def _write_watermark(path: Path, watermark: datetime) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as file:
        json.dump({"watermark": watermark.isoformat()}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_back(store: FeatureStore, rows: pd.DataFrame) -> None:
    newest = rows.sort_values([History.LAST_TIME, History.LAST_EVENT_ID]).drop_duplicates(History.USER_ID, keep="last")
    names = [History.LAST_TIME, History.LAST_EVENT_ID]
    there = _answer(store, newest[History.USER_ID].tolist(), names)
    for given, found in zip(newest[names].itertuples(index=False, name=None), there, strict=True):
        if found[names[0]] is None or (found[names[0]], found[names[1]]) < given:
            raise StoreError(
                "a row that was just written online is not there; is another program deleting from the store?"
            )


def materialize(
    store: FeatureStore,
    history_path: Path,
    *,
    watermark_path: Path,
    until: datetime,
    chunk: timedelta = timedelta(days=1),
) -> MaterializeReport:
    """Bring history up to `until` (exclusive) online, chunk by chunk in the order of time, from the watermark on.

    Killed at any point it goes on where the watermark stands; rows at the watermark are offered again, which changes
    nothing. Where the history itself was rebuilt for the past (late events), delete the watermark first.
    """
    watermark = read_watermark(watermark_path)
    filters = [(History.EVENT_TIMESTAMP, "<", until)]
    if watermark is not None:
        filters.append((History.EVENT_TIMESTAMP, ">=", watermark))
    history = pq.read_table(history_path, filters=filters).to_pandas().sort_values(History.LAST_TIME, kind="stable")
    size = int(chunk.total_seconds() * 1_000_000)
    written = chunks = 0
    for _, rows in history.groupby(history[History.LAST_TIME] // size, sort=True):
        written += write_online(store, rows)
        _read_back(store, rows)
        watermark = rows[History.EVENT_TIMESTAMP].max().to_pydatetime()
        _write_watermark(watermark_path, watermark)
        chunks += 1
    return MaterializeReport(len(history), written, chunks, watermark)
