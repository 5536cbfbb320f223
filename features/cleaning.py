"""From imported tables to what training reads: retries merged, sessions, returns, and rows set aside with a reason.

Choices. Cleaning always starts from all imported rows, so that an event of an item that the catalogue did not know is
used as soon as it does. Nothing is repaired by guessing and ids are never touched. The load time is a parameter, never
the clock: the same tables give the same bytes a year later. The bot rule is explicit, counts only views, clicks and
searches, and can be switched off. Rows of users without consent are set aside before any training. Extra columns of
slates end here: nobody reads them further on, and our own (what a ranker saw) are nine tenths of a log's bytes; the
tables keep them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from features import transforms as tf
from features.conform import columns_of
from features.engine import EngineConfig, Scratch, connect, load
from features.errors import UsageError
from features.importers.base import json_text
from features.parquet_file import write_file
from features.schema import (
    FUTURE_TOLERANCE_S,
    PARTITIONED_BY,
    SESSION_GAP_S,
    Events,
    Items,
    ItemVectors,
    Quarantine,
    Slates,
    Users,
    arrow_schema,
)
from features.tables import KEYS, require_files

SORTED_ROWS = 200_000  # at once; of slates a row may hold a kilobyte
ITEM_DAYS = "item_days"  # daily aggregates for each item


@dataclass(frozen=True)
class CleaningParams:
    """`max_browsing_*`: a user with more views, clicks and searches than that is a bot for that UTC day."""

    session_gap_s: int = SESSION_GAP_S
    future_tolerance_s: int = FUTURE_TOLERANCE_S
    bots: bool = True
    max_browsing_per_hour: int = 600  # one page every six seconds for a whole hour
    max_browsing_per_day: int = 3_000


@dataclass(frozen=True)
class CleanCount:
    """What became of one table's rows: `rows_in = rows_out + merged + after_until + quarantined`."""

    rows_in: int
    rows_out: int
    merged: int = 0
    after_until: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CleaningReport:
    """Counts for each table and the window of the clean events; `as_dict()` goes to JSON."""

    tables: dict[str, CleanCount]
    sessions_derived: int  # events whose session was derived
    guests: int  # clean events without a user
    first: str | None
    last: str | None
    load_time: str

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return asdict(self)


def clean(
    tables_dir: Path,
    out_dir: Path,
    params: CleaningParams | None = None,
    load_time: datetime | None = None,
    until: date | None = None,
    engine: EngineConfig | None = None,
) -> CleaningReport:
    """Write the clean tables, each one sorted file, and `quarantine.parquet` and `item_days.parquet`, to `out_dir`.

    Clean events have two more columns, `user_key` and `net_quantity` (see transforms.py); clean slates `user_key`.
    `load_time` (aware) defaults to the latest event; `until` is a UTC date, inclusive. Raises SourceError for a missing
    table, SchemaError for a wrong one.
    """
    if load_time is not None and load_time.tzinfo is None:
        raise UsageError(f"load time {load_time.isoformat()} has no zone; give a UTC time")
    for table in (Events.TABLE, Items.TABLE):
        require_files(tables_dir, table)
    out_dir.mkdir(parents=True, exist_ok=True)
    spill = Path(tempfile.mkdtemp(prefix=".cleaning-", dir=out_dir))
    config = engine or EngineConfig()
    backend = connect(EngineConfig(config.engine, config.threads, config.memory_limit, config.spill or spill))
    try:
        scratch = Scratch(backend, spill)
        return _Cleaner(scratch, tables_dir, out_dir, params or CleaningParams(), load_time, until).run()
    finally:
        backend.disconnect()
        shutil.rmtree(spill, ignore_errors=True)


class _Cleaner:
    """One run of `clean`; holds what its steps share."""

    def __init__(
        self,
        scratch: Scratch,
        tables_dir: Path,
        out_dir: Path,
        params: CleaningParams,
        load_time: datetime | None,
        until: date | None,
    ) -> None:
        self._scratch, self._out, self._params, self._dir = scratch, out_dir, params, tables_dir
        backend = scratch.backend
        self._end = datetime.combine(until + timedelta(days=1), time(), UTC) if until else None
        self._items, self._users = (load(backend, tables_dir, t) for t in (Items.TABLE, Users.TABLE))
        self._raw = load(backend, tables_dir, Events.TABLE)
        self._load_time = (
            load_time or self._scratch.value(self._raw[Events.EVENT_TIME].max()) or datetime(1970, 1, 1, tzinfo=UTC)
        )
        self._counts: dict[str, CleanCount] = {}
        self._aside: list[pa.Table] = []

    def run(self) -> CleaningReport:
        params = self._params
        open_sessions = self._scratch.value(
            self._before_end(self._raw, Events.EVENT_TIME)[Events.SESSION_ID].isnull().sum()
        )
        keyed = tf.with_user_key(tf.with_sessions(self._deduped(self._raw, Events.TABLE), params.session_gap_s))
        keyed = self._scratch.keep(keyed)
        in_time = tf.until_day(keyed, Events.EVENT_TIME, self._latest + timedelta(microseconds=1))
        bots = tf.bot_days(in_time, params.max_browsing_per_hour, params.max_browsing_per_day) if params.bots else None
        events = self._table(Events.TABLE, self._raw, keyed, bots)
        events = self._scratch.keep(tf.with_net_quantity(events))
        self._write(Events.TABLE, events, [Events.EVENT_TIME, Events.EVENT_ID], (tf.USER_KEY, tf.NET_QUANTITY))
        self._slates(bots)
        for table in (Items.TABLE, Users.TABLE, ItemVectors.TABLE):
            self._pass_on(table)
        self._write_quarantine()
        self._write_plain(ITEM_DAYS, tf.daily_item_aggregates(events))
        return self._report(events, int(open_sessions or 0))

    @property
    def _latest(self) -> datetime:
        return self._load_time + timedelta(seconds=self._params.future_tolerance_s)

    def _before_end(self, rows: ir.Table, time_column: str) -> ir.Table:
        return tf.until_day(rows, time_column, self._end) if self._end else rows

    def _deduped(self, rows: ir.Table, table: str) -> ir.Table:
        kept, keys = self._before_end(rows, PARTITIONED_BY[table]), list(KEYS[table])
        if not self._scratch.value(tf.repeats(kept, keys)):
            return kept
        return tf.dedupe(kept, keys, [PARTITIONED_BY[table], *(c.name for c in columns_of(table))])

    def _table(self, table: str, raw: ir.Table, keyed: ir.Table, bots: ir.Table | None) -> ir.Table:
        """The rows of `keyed` that stay; the others go to quarantine, and all are counted."""
        time_column = PARTITIONED_BY[table]
        judged = self._scratch.keep(tf.judge(keyed, time_column, self._items, self._users, bots, self._latest))
        rows_in = self._scratch.value(raw.count())
        before_end = self._scratch.value(self._before_end(raw, time_column).count())
        stay = judged.filter(judged[tf.REASON].isnull()).drop(tf.REASON)
        rows_out, distinct = self._scratch.value(stay.count()), self._scratch.value(judged.count())
        reasons = self._set_aside(table, judged.filter(judged[tf.REASON].notnull()))
        self._counts[table] = CleanCount(rows_in, rows_out, before_end - distinct, rows_in - before_end, reasons)
        return stay

    def _slates(self, bots: ir.Table | None) -> None:
        raw = load(self._scratch.backend, self._dir, Slates.TABLE).select(*(c.name for c in Slates.COLUMNS))
        keyed = tf.with_user_key(self._deduped(raw, Slates.TABLE))
        stay = self._table(Slates.TABLE, raw, keyed, bots)
        self._write(Slates.TABLE, stay, [Slates.SERVED_AT, *tf.SLATE_KEYS], (tf.USER_KEY,))

    def _pass_on(self, table: str) -> None:
        """Catalogue tables: one row for each key."""
        raw = load(self._scratch.backend, self._dir, table)
        keys = list(KEYS[table])
        names = [column.name for column in columns_of(table) if not pa.types.is_list(column.type)]
        kept = tf.dedupe(raw, keys, names)
        rows_in = self._scratch.value(raw.count())
        rows_out = self._write(table, kept, keys, ())
        self._counts[table] = CleanCount(rows_in, rows_out, rows_in - rows_out)

    def _set_aside(self, table: str, rows: ir.Table) -> dict[str, int]:
        counts: Counter[str] = Counter()
        order = [PARTITIONED_BY[table], *KEYS[table]]
        for batch in self._scratch.batches(rows.order_by(order).drop(tf.USER_KEY)):
            why = batch[tf.REASON].to_pylist()
            counts.update(why)
            texts = [json_text(row) for row in batch.drop_columns([tf.REASON]).to_pylist()]
            columns = [[table] * len(why), [None] * len(why), why, texts]
            arrays = [pa.array(c, s.type) for c, s in zip(columns, Quarantine.COLUMNS, strict=True)]
            self._aside.append(pa.Table.from_arrays(arrays, schema=arrow_schema(Quarantine.COLUMNS)))
        return dict(sorted(counts.items()))

    def _write(self, table: str, rows: ir.Table, order: list[str], more: tuple[str, ...]) -> int:
        known = [column.name for column in columns_of(table)]
        extras = sorted(name for name in rows.columns if name not in known and name not in more)
        chosen = rows.select(*known, *more, *extras)
        fixed = list(arrow_schema(columns_of(table)))
        found = chosen.schema().to_pyarrow()
        schema = pa.schema([*fixed, *(found.field(name) for name in (*more, *extras))])
        by_time = table in PARTITIONED_BY
        parts = self._stretches(chosen, order[0]) if by_time else iter([chosen])
        batches = (batch for part in parts for batch in self._scratch.batches(part.order_by(order)))
        return write_file(self._out / f"{table}.parquet", schema, _shaped(batches, schema))

    def _stretches(self, rows: ir.Table, time_column: str) -> Iterator[ir.Table]:
        """Stretches of days of about so many rows, in their order: sorting wide rows at once takes memory for all."""
        days = rows.group_by(day=rows[time_column].date()).aggregate(n=rows.count()).order_by("day")
        start: datetime | None = None
        held = 0
        for row in self._scratch.backend.to_pyarrow(days.filter(days["day"].notnull())).to_pylist():
            begins, n = datetime.combine(row["day"], time(), UTC), row["n"]
            if held and held + n > SORTED_ROWS:
                yield tf.from_day(tf.until_day(rows, time_column, begins), time_column, start)
                start, held = begins, 0
            held += n
        yield tf.from_day(rows, time_column, start)

    def _write_plain(self, name: str, rows: ir.Table) -> None:
        schema = rows.schema().to_pyarrow()
        write_file(self._out / f"{name}.parquet", schema, _shaped(self._scratch.batches(rows), schema))

    def _write_quarantine(self) -> None:
        write_file(self._out / f"{Quarantine.TABLE}.parquet", arrow_schema(Quarantine.COLUMNS), self._aside)

    def _report(self, events: ir.Table, sessions_derived: int) -> CleaningReport:
        times, user = events[Events.EVENT_TIME], events[Events.USER_ID]
        row = self._scratch.backend.to_pyarrow(
            events.aggregate(first=times.min(), last=times.max(), guests=user.isnull().sum())
        ).to_pylist()[0]
        first, last = (row[name].isoformat() if row[name] else None for name in ("first", "last"))
        load_time = self._load_time.isoformat()
        return CleaningReport(self._counts, sessions_derived, int(row["guests"] or 0), first, last, load_time)


def _shaped(source: Iterator[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """Batches with exactly the schema; a zone of the engine's own name is UTC by construction."""
    for batch in source:
        arrays = [pc.cast(batch[field.name], field.type) for field in schema]
        yield pa.Table.from_arrays(arrays, schema=schema)
