"""The service's log and catalogue -> canonical tables, merged into what a directory already holds.

Choices. The features package's table writer merges by key and replaces a table by rename, so that the export can run
again, adds what is new, and a killed run leaves the old table whole. Of posted events only those whose request_id was
signed here keep it; another value moves to `posted_request_id`, so that the event still counts as organic behaviour.
Rows of erased users are left out, also those that an earlier export wrote. Erased users' items are nobody's data and
stay. Extra fields of events are kept as columns of JSON text, in `extra`. Who refused consent and visited all the same
stands in `users`, so that a DEST without the shop's own table does not make them agree.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.errors import StoreError
from features.schema import Events, Items, Slates, Users, arrow_schema
from features.tables import TableWriter, read_table, scan, table_files, write_rows
from models.homepage import HomepageModel
from models.items import ItemRow, ItemTable
from models.live_signals import NAMES
from serving import consent
from serving.catalogue import Patch, patched
from serving.champion import CHAMPION
from serving.erasure import Erased
from serving.event_log import EXPORTED, EventLog, decode, encode

BATCH, SLATES = 20_000, 1_000  # rows read at a time; a slate becomes a row a slot
EXTRA, POSTED_REQUEST_ID, STATE, SIGNALS = "extra", "posted_request_id", "state", "signals"
EVENT_NAMES = frozenset(column.name for column in Events.COLUMNS)
TEXT = pa.string()
SLOT = (  # what a logged slot holds, in this order
    Slates.MODULE, Slates.POSITION, Slates.ITEM_ID, Slates.SCORE, Slates.PROPENSITY, Slates.EXPLORED, Slates.SPONSORED,
)  # fmt: skip


@dataclass(frozen=True)
class ExportReport:
    """Rows that the log holds and rows of each table at DEST afterwards."""

    events_in_log: int
    slates_in_log: int
    events: int
    slates: int
    items: int
    erased: int


def export_log(home: Path, dest: Path, until: date | None = None) -> ExportReport:
    """Merge the log under `home` into the canonical tables at `dest`; `until` is a UTC date, inclusive.

    Raises StoreError where there is no readable log.
    """
    path = home / "log" / "events.db"
    if not path.exists():
        raise StoreError(f"{path}: there is no log to export; has a service run with this HOMERANKER_HOME?")
    erased, log = Erased.read(home), EventLog(home)
    try:
        before_us = _end_of(until)
        last = log.store.read("SELECT COALESCE(MAX(seq), 0) FROM events")[0][0]
        counts = [0, 0]
        dropped = [0]
        events = _merge(dest, Events.TABLE, _counted(_events(path, before_us), counts, 0), erased, dropped)
        slates_path = home / "log" / "slates.db"
        slates = _merge(dest, Slates.TABLE, _counted(_slates(slates_path, before_us), counts, 1), erased, dropped)
        items = _items(home, dest, log)
        _users(home, dest, log)
        log.remember(EXPORTED, str(last))
    finally:
        log.close()
    return ExportReport(counts[0], counts[1], events, slates, items, dropped[0])


def logged(home: Path, table: str, since: datetime, before: datetime) -> pa.Table:
    """Rows of the live `events` or `slates` of a stretch of time, as they would be exported; empty without a log."""
    since_us, before_us = (int(at.timestamp() * 1e6) for at in (since, before))
    name, read, time, columns = {
        Events.TABLE: ("events.db", _events, Events.EVENT_TIME, Events.COLUMNS),
        Slates.TABLE: ("slates.db", _slates, Slates.SERVED_AT, Slates.COLUMNS),
    }[table]
    path, schema = home / "log" / name, arrow_schema(columns)
    batches = read(path, before_us) if path.exists() else iter(())
    kept = [batch.filter(pc.greater_equal(batch[time].cast(pa.int64()), since_us)) for batch in batches]
    return pa.concat_tables([batch.select(schema.names).cast(schema) for batch in kept] or [schema.empty_table()])


def _end_of(until: date | None) -> int:
    if until is None:
        return 2**62
    midnight = datetime(until.year, until.month, until.day, tzinfo=UTC) + timedelta(days=1)
    return int(midnight.timestamp()) * 1_000_000


def _counted(batches: Iterator[pa.Table], counts: list[int], place: int) -> Iterator[pa.Table]:
    for batch in batches:
        counts[place] += batch.num_rows
        yield batch


def _merge(dest: Path, table: str, batches: Iterator[pa.Table], erased: Erased, dropped: list[int]) -> int:
    """Old rows and new ones without doubles and without erased users; returns the rows there are now."""
    with TableWriter(dest, table) as writer:
        if table_files(dest, table):
            for batch in scan(dest, table):
                writer.write(without_erased(batch, table, erased, dropped))
        for batch in batches:
            writer.write(without_erased(batch, table, erased, dropped))
        return writer.close().rows_out


def without_erased(rows: pa.Table, table: str, erased: Erased, dropped: list[int]) -> pa.Table:
    """The rows of `events` or `slates` that no erasure covers; who came back later starts anew, by the rows' times."""
    if not erased:
        return rows
    time = Events.EVENT_TIME if table == Events.TABLE else Slates.SERVED_AT
    columns = (rows[name].to_pylist() for name in (Events.USER_ID, Events.SESSION_ID))
    times = rows[time].cast(pa.int64()).to_pylist()
    keep = [at > erased.until_us(user, session) for user, session, at in zip(*columns, times, strict=True)]
    dropped[0] += len(keep) - sum(keep)
    return rows.filter(pa.array(keep))


def _read(path: Path, sql: str, values: tuple[Any, ...], size: int = BATCH) -> Iterator[list[Any]]:
    """Rows in batches, on a connection of its own, so that the service's writers never wait."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        cursor = connection.execute(sql, values)
        while rows := cursor.fetchmany(size):
            yield rows
        connection.close()
    except sqlite3.Error as error:
        raise StoreError(f"{path}: the log cannot be read: {error}") from error


def _events(path: Path, before_us: int) -> Iterator[pa.Table]:
    schema = arrow_schema(Events.COLUMNS).append(pa.field(EXTRA, TEXT)).append(pa.field(POSTED_REQUEST_ID, TEXT))
    sql = "SELECT row, verified FROM events WHERE event_time < ? ORDER BY seq"
    for rows in _read(path, sql, (before_us,)):
        found = [_event(decode(row), bool(verified)) for row, verified in rows]
        yield pa.Table.from_pylist(found, schema=schema)


def _event(row: dict[str, Any], verified: bool) -> dict[str, Any]:
    extra = {name: value for name, value in row.items() if name not in EVENT_NAMES}
    request_id = row.get(Events.REQUEST_ID)
    known = {name: row.get(name) for name in EVENT_NAMES}
    return {
        **known,
        Events.REQUEST_ID: request_id if verified else None,
        EXTRA: json.dumps(extra, sort_keys=True) if extra else None,
        POSTED_REQUEST_ID: None if verified else request_id,
    }


def _slates(path: Path, before_us: int) -> Iterator[pa.Table]:
    schema = arrow_schema(Slates.COLUMNS).append(pa.field(STATE, TEXT)).append(pa.field(SIGNALS, TEXT))
    sql = "SELECT request_id, served_us, user_id, session_id, slate FROM slates WHERE served_us < ? ORDER BY served_us"
    for rows in _read(path, sql, (before_us,), SLATES):
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        for row in rows:
            for name, values in _slots(*row).items():
                columns[name] += values
        yield pa.Table.from_pydict(columns, schema=schema)


def _slots(
    request_id: str, served_us: int, user_id: str | None, session_id: str, text: str
) -> dict[str, Sequence[Any]]:
    """Columns of one row a slot, with its live signals as they were used; the state goes with the first slot."""
    slate = decode(text)
    slots, used = slate["slots"], slate.get("live", {}).get("x", [])
    n = len(slots)
    if slate.get("shadow") or not n:
        return {}  # a page that nobody saw is no impression
    told = {
        Slates.REQUEST_ID: request_id,
        Slates.SERVED_AT: served_us,
        Slates.USER_ID: user_id,
        Slates.SESSION_ID: session_id,
        Slates.SURFACE: slate["surface"],
        Slates.PLATFORM: slate.get("platform"),
        Slates.POLICY: slate.get("policy"),
        Slates.MODEL_VERSION: slate["model_version"],
        Slates.CANDIDATE_COUNT: slate.get("candidate_count"),
        Slates.FALLBACK: slate.get("fallback"),
    }
    signals = [encode(dict(zip(NAMES, one, strict=False))) for one in used[:n]]
    state = encode(slate["state"]) if slate["state"] else None
    return {
        **{name: [value] * n for name, value in told.items()},
        **dict(zip(SLOT, zip(*slots, strict=True), strict=True)),
        STATE: [state] + [None] * (n - 1),
        SIGNALS: [*signals, *[None] * (n - len(signals))],
    }


def _items(home: Path, dest: Path, log: EventLog) -> int:
    """The catalogue: what DEST has, else what the model that served knows, with every change on top."""
    if table_files(dest, Items.TABLE):
        old = read_table(dest, Items.TABLE)
    else:
        old = _rows_table(_served_items(home, log))
    known = ItemTable.from_arrow(old)
    rows = log.store.read("SELECT item_id, row, seq FROM items ORDER BY seq")
    changed = [patched(known, Patch(item_id, json.loads(row), seq)) for item_id, row, seq in rows]
    with TableWriter(dest, Items.TABLE) as writer:
        writer.write(old)
        if changed:
            # Extra columns of changed items stay: the writer keeps the last row of a key, so they are carried over.
            writer.write(_carry(old, _rows_table(changed)))
        return writer.close().rows_out


def _carry(old: pa.Table, changed: pa.Table) -> pa.Table:
    extra = [name for name in old.column_names if name not in changed.column_names]
    if not extra:
        return changed
    place = pc.index_in(changed[Items.ITEM_ID], value_set=old[Items.ITEM_ID].combine_chunks())
    for name in extra:
        changed = changed.append_column(name, old[name].combine_chunks().take(place))
    return changed


def _users(home: Path, dest: Path, log: EventLog) -> None:
    """Add who refused consent, by the model that served, to what DEST says of its users; what it says stays."""
    directory = _model_dir(home, log)
    path = directory / "manifest.json" if directory else None
    told = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
    refused = consent.refused(told)
    if not refused:
        return
    sql = "SELECT DISTINCT user_id FROM {} WHERE user_id IS NOT NULL"
    seen = [*log.store.read(sql.format("events")), *log.slates.read(sql.format("slates"))]
    mine = {user for (user,) in seen if consent.mark(user) in refused}
    old = read_table(dest, Users.TABLE) if table_files(dest, Users.TABLE) else None
    new = sorted(mine - set(old[Users.USER_ID].to_pylist() if old is not None else ()))
    if new:
        rows = [{Users.USER_ID: user, Users.PERSONALIZATION_CONSENT: False} for user in new]
        added = pa.Table.from_pylist(rows, schema=arrow_schema(Users.COLUMNS))
        write_rows(dest, Users.TABLE, [added] if old is None else [old, added])


def _model_dir(home: Path, log: EventLog) -> Path | None:
    """Where the model that serves, or served last, lies."""
    try:
        directory = Path(json.loads((home / CHAMPION).read_text())["model_dir"])
    except (OSError, ValueError, KeyError):
        told = log.fact("model_dir")
        if told is None:
            return None
        directory = Path(told)
    return directory if directory.is_absolute() else home / directory


def _served_items(home: Path, log: EventLog) -> list[ItemRow]:
    directory = _model_dir(home, log)
    items = HomepageModel.load(directory).items if directory else ItemTable.from_rows([])
    return [items.row(at) for at in range(len(items))]


def _rows_table(rows: list[ItemRow]) -> pa.Table:
    found = [
        {
            Items.ITEM_ID: row.item_id,
            Items.TITLE: row.title,
            Items.BRAND: row.brand,
            Items.CATEGORY: row.category,
            Items.PRICE: row.price,
            Items.CURRENCY: row.currency,
            Items.IMAGE_URL: row.image_url,
            Items.AVAILABLE: row.available,
            Items.LISTED_AT: row.listed_at_us or None,
        }
        for row in rows
    ]
    return pa.Table.from_pylist(found, schema=arrow_schema(Items.COLUMNS))
