"""What every importer shares: a source becomes batches, a batch becomes table rows and quarantined rows.

Choices. An importer is a generator of `Mapped` batches and nothing else; the rules, the quarantine, the counting and
the writing are done here, once, so that nothing can vanish in an importer of its own: for each table
`rows_in = rows_out + quarantined + merged`. The unit is the row of the target table: a GA4 or Segment record with
three items is three rows, and a record that cannot be opened at all is one. A catalogue that the source lacks is made
from what was bought and shown (`derived`), because an item that `items` does not know would be set aside later.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from features.conform import columns_of
from features.importers.rules import broken_rules, first_of, no_reasons, parse_epoch, parse_text, text_array
from features.schema import Events, Quarantine, Slates, Users, arrow_schema
from features.tables import TableWriter, Written

BATCH = 20_000  # source rows held in memory at a time
Raw: TypeAlias = "pa.Table | list[dict[str, Any]]"
USER_COLUMNS = {Events.TABLE: Events.USER_ID, Slates.TABLE: Slates.USER_ID, Users.TABLE: Users.USER_ID}


@dataclass(frozen=True)
class Mapped:
    """One batch of a source, mapped to one table, in the order of the source.

    `rows` has the canonical columns in their types (and perhaps more), `reasons` (string, null = no objection so far),
    `raw` the source rows as read, `numbers` the number of each in its source; all four are equally long.
    """

    table: str
    source: str
    rows: pa.Table
    reasons: pa.Array
    raw: Raw
    numbers: pa.Array
    derived: bool = False


@dataclass(frozen=True)
class Importer:
    """A format: how it is read, where it names its user, and what it is in one line."""

    read: Callable[[Path], Iterator[Mapped]]
    help: str
    user_fields: tuple[str, ...] = ()
    derive: Callable[[Path], Iterator[Mapped]] | None = None


@dataclass
class TableCount:
    """What became of the rows of one table; `derived` rows were made here and not read."""

    rows_in: int = 0
    rows_out: int = 0
    merged: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    derived: bool = False


@dataclass(frozen=True)
class ImportReport:
    """Counts for each table; `as_dict()` goes to JSON."""

    format: str
    source: str
    tables: dict[str, TableCount]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return asdict(self)

    @property
    def lost(self) -> list[str]:
        """A sentence for each table of which rows came in and none came out, with the most frequent reason."""
        told = []
        for table, count in self.tables.items():
            if count.quarantined and not count.rows_out:
                reason, rows = max(count.quarantined.items(), key=lambda one: one[1])
                told.append(f"{table}: none of {count.rows_in:,} rows could be taken; {rows:,} of them for {reason!r}")
        return told

    @property
    def quarantined(self) -> int:
        """Rows left out, over all tables."""
        return sum(sum(count.quarantined.values()) for count in self.tables.values())


def typed_rows(table: str, columns: dict[str, list[Any] | pa.Array], length: int) -> tuple[pa.Table, pa.Array]:
    """`columns` (Python values or Arrow text) as rows of `table`, absent columns null; and the reasons.

    Columns that the table does not know are kept as text.
    """
    known = {column.name: column for column in columns_of(table)}
    reasons = no_reasons(length)
    arrays: dict[str, pa.Array] = {}
    for name, column in known.items():
        given = columns.get(name)
        if given is None:
            arrays[name] = pa.nulls(length, column.type)
        elif isinstance(given, pa.Array) and given.type == column.type:
            arrays[name] = given
        else:
            text = text_array(given.to_pylist() if isinstance(given, pa.Array) else given)
            parsed = parse_text(text.values, column)
            named = pc.binary_join_element_wise(pa.scalar(name), text.reasons, ": ")
            reasons = first_of(reasons, named, parsed.reasons)
            arrays[name] = parsed.values
    for name in sorted(set(columns) - set(known)):
        given = columns[name]
        arrays[name] = given if isinstance(given, pa.Array) else text_array(given).values
    return pa.table(arrays), reasons


def mapped(
    table: str,
    source: str,
    columns: dict[str, list[Any] | pa.Array],
    raw: Raw,
    numbers: pa.Array | list[int],
    objections: pa.Array | None = None,
) -> Mapped:
    """A `Mapped` from loosely typed columns (see `typed_rows`); `objections` are reasons that stand already."""
    rows, reasons = typed_rows(table, columns, len(numbers))
    if objections is not None:
        reasons = first_of(objections, reasons)
    numbers = numbers if isinstance(numbers, pa.Array) else pa.array(numbers, pa.int64())
    return Mapped(table, source, rows, reasons, raw, numbers)


@dataclass
class Units:
    """Rows of one table under way: what was mapped, from which record, and what speaks against it already."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    raw: list[dict[str, Any]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    objections: list[str | None] = field(default_factory=list)

    def add(self, row: dict[str, Any], raw: dict[str, Any], number: int, objection: str | None = None) -> None:
        """One more row."""
        self.rows.append(row)
        self.raw.append(raw)
        self.numbers.append(number)
        self.objections.append(objection)

    def mapped(self, table: str, source: str, times: dict[str, int] | None = None) -> Iterator[Mapped]:
        """The batch; `times` names columns that hold whole numbers since 1970, so many a second."""
        if not self.rows:
            return
        objections = pa.array(self.objections, pa.string())
        names = dict.fromkeys(name for row in self.rows for name in row)
        columns: dict[str, list[Any] | pa.Array] = {name: [row.get(name) for row in self.rows] for name in names}
        for name, per_second in (times or {}).items():
            text = text_array([row.get(name) for row in self.rows])
            parsed = parse_epoch(text.values, name, per_second)
            columns[name] = parsed.values
            objections = first_of(objections, text.reasons, parsed.reasons)
        yield mapped(table, source, columns, self.raw, self.numbers, objections)


def unreadable(table: str, source: str, raw: list[dict[str, Any]], numbers: list[int], reasons: list[str]) -> Mapped:
    """Records that could not be mapped at all: each one row of `table`, each with its reason."""
    rows = pa.table({c.name: pa.nulls(len(raw), c.type) for c in columns_of(table)})
    return Mapped(table, source, rows, pa.array(reasons, pa.string()), raw, pa.array(numbers, pa.int64()))


class Sink:
    """Writes `Mapped` batches into tables and quarantine under one directory and counts every row."""

    def __init__(self, dest: Path, user_fields: tuple[str, ...], pseudonym_key: bytes | None) -> None:
        self._dest, self._user_fields, self._key = dest, user_fields, pseudonym_key
        self._writers = {Events.TABLE: TableWriter(dest, Events.TABLE)}  # there even without rows
        self._quarantine = TableWriter(dest, Quarantine.TABLE)
        self._reasons: dict[str, Counter[str]] = {}
        self._rows_in: Counter[str] = Counter()
        self._derived: set[str] = set()
        self.closed: dict[str, Written] = {}

    def write(self, batch: Mapped) -> None:
        """Split the batch by its reasons and the table's rules, and write both parts."""
        if batch.table not in self._writers:
            self._writers[batch.table] = TableWriter(self._dest, batch.table)
        self._rows_in[batch.table] += batch.rows.num_rows
        if batch.derived:
            self._derived.add(batch.table)
        reasons = first_of(batch.reasons, broken_rules(batch.rows, columns_of(batch.table)))
        good = pc.is_null(reasons)
        rows = batch.rows.filter(good)  # derived rows come from tables whose users are hidden already
        self._writers[batch.table].write(rows if batch.derived else self._pseudonymised(batch.table, rows))
        self._set_aside(batch, reasons, pc.indices_nonzero(pc.invert(good)))

    def close_tables(self) -> None:
        """Put the written tables in place, so that others can be derived from them."""
        for table, writer in self._writers.items():
            if table not in self.closed:
                self.closed[table] = writer.close()

    def close(self) -> dict[str, TableCount]:
        """Finish everything; the counts of each table."""
        self.close_tables()
        self._quarantine.close()
        return {table: self._count(table) for table in sorted(self.closed)}

    def discard(self) -> None:
        """Remove what was staged and not put in place."""
        for writer in (*self._writers.values(), self._quarantine):
            writer.discard()

    def _count(self, table: str) -> TableCount:
        written = self.closed[table]
        reasons = dict(sorted(self._reasons.get(table, Counter()).items()))
        return TableCount(self._rows_in[table], written.rows_out, written.merged, reasons, table in self._derived)

    def _set_aside(self, batch: Mapped, reasons: pa.Array, bad: pa.Array) -> None:
        if not len(bad):
            return
        why = reasons.take(bad)
        self._reasons.setdefault(batch.table, Counter()).update(why.to_pylist())
        if isinstance(batch.raw, pa.Table):
            raw = _python_rows(batch.raw.take(bad))
        else:
            raw = [batch.raw[i] for i in bad.to_pylist()]
        texts = [json_text(self._hide_user(row)) for row in raw]
        columns = [pa.array([batch.source] * len(bad)), batch.numbers.take(bad), why, pa.array(texts)]
        self._quarantine.write(pa.Table.from_arrays(columns, schema=arrow_schema(Quarantine.COLUMNS)))

    def _pseudonymised(self, table: str, rows: pa.Table) -> pa.Table:
        name = USER_COLUMNS.get(table)
        if self._key is None or name is None:
            return rows
        encoded = rows[name].combine_chunks().dictionary_encode()
        hidden = pa.array([pseudonym(self._key, user) for user in encoded.dictionary.to_pylist()], pa.string())
        values = pa.DictionaryArray.from_arrays(encoded.indices, hidden).cast(pa.string())
        return rows.set_column(rows.column_names.index(name), name, values)

    def _hide_user(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._key is None:
            return row
        hidden = {f: pseudonym(self._key, str(row[f])) for f in self._user_fields if row.get(f) is not None}
        return {**row, **hidden}


def pseudonym(key: bytes, user_id: str) -> str:
    """A keyed HMAC-SHA256 of a user id, 43 characters: the same for the same key, not reversible without it."""
    digest = hmac.new(key, user_id.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def stable_id(*parts: object) -> str:
    """A short id that depends on the parts alone (128 bits of SHA-256, hexadecimal); parts are told apart."""
    text = json.dumps([None if part is None else str(part) for part in parts])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def json_text(row: dict[str, Any]) -> str:
    """A source row as JSON text that is valid whatever the row holds."""
    try:
        return json.dumps(row, default=_plain, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(row), default=_plain)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return repr(value) if isinstance(value, float) and value - value != 0 else value


def _plain(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _python_rows(rows: pa.Table) -> list[dict[str, Any]]:
    try:
        return list(rows.to_pylist())
    except UnicodeDecodeError:  # Parquet strings need not be UTF-8
        as_bytes = [
            rows[n].cast(pa.binary()) if pa.types.is_string(rows[n].type) else rows[n] for n in rows.column_names
        ]
        return list(pa.table(as_bytes, names=rows.column_names).to_pylist())
