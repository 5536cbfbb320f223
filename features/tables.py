"""Canonical tables on disk: one reader and one writer.

Choices. A table is a directory of Parquet files (hive partitions or not) or one file `TABLE.parquet`; names that start
with `_` or `.` and everything that is not Parquet are ignored. The writer streams into a staging file and lets DuckDB
merge retries, sort and split by day at the end, because DuckDB spills to disk where pyarrow would need the memory, and
because a total order makes equal input give equal bytes. Files are replaced by rename, so that a killed run leaves the
old table or the new one.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.conform import columns_of, conform
from features.errors import SchemaError, SourceError
from features.nanoseconds import same_unit
from features.parquet_file import ROW_GROUP, ParquetFile
from features.schema import PARTITION, PARTITIONED_BY, Events, Items, ItemVectors, Slates, Users, arrow_schema

PART = "part-0000.parquet"
MEMORY_MB = 180  # of DuckDB, for merging and sorting; beyond it DuckDB spills to disk
MORE_MEMORY = (1, 2, 4, 16)  # times that, one after the other, where rows are so wide that even spilling needs more
LITTLE = 1 / 8  # of the memory: compressed rows that take more start with twice as much, as slates would fail first
_SEQ = "__seq"

KEYS: dict[str, tuple[str, ...]] = {
    Events.TABLE: (Events.EVENT_ID,),
    Slates.TABLE: (Slates.REQUEST_ID, Slates.POSITION),
    Items.TABLE: (Items.ITEM_ID,),
    Users.TABLE: (Users.USER_ID,),
    ItemVectors.TABLE: (ItemVectors.ITEM_ID, ItemVectors.MODALITY),
}


@dataclass(frozen=True)
class Written:
    """What a writer did: rows given, rows on disk, rows merged into another row with the same key."""

    rows_in: int
    rows_out: int
    merged: int


def table_files(root: Path, table: str) -> list[Path]:
    """The Parquet files of `table` under `root`, sorted; empty where the table is absent."""
    single = root / f"{table}.parquet"
    if single.is_file():
        return [single]
    folder = root / table
    found = [path for path in folder.rglob("*.parquet") if path.is_file()] if folder.is_dir() else []
    return sorted(path for path in found if not any(p[0] in "._" for p in path.relative_to(folder).parts))


def require_files(root: Path, table: str) -> list[Path]:
    """As `table_files`, but an absent table is a SourceError."""
    if not root.is_dir():
        raise SourceError(f"{root}: no such directory; name a directory of canonical tables")
    if not (files := table_files(root, table)):
        raise SourceError(f"{root}: no Parquet file of table {table!r}; expected {table}/*.parquet or {table}.parquet")
    return files


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file; a truncated or foreign one is a SourceError that names it."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def read_schema(root: Path, table: str) -> pa.Schema:
    """The schema of `table` as found on disk, all its files joined, types unchecked; SchemaError if files disagree."""
    schemas = [same_unit(open_parquet(path).schema_arrow) for path in require_files(root, table)]
    try:
        return pa.unify_schemas(schemas)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SchemaError(f"{root}: the files of table {table!r} disagree on a column's type: {error}") from error


def scan(root: Path, table: str, batch_size: int = ROW_GROUP) -> Iterator[pa.Table]:
    """Batches of `table` with canonical types; nullable columns that a file lacks are null, extra columns are kept."""
    for path in require_files(root, table):
        for batch in read_batches(path, batch_size):
            yield conform(batch, table, str(path))


def read_table(root: Path, table: str) -> pa.Table:
    """The whole of `table` in memory, with canonical types."""
    batches = list(scan(root, table))
    if not batches:
        return arrow_schema(columns_of(table)).empty_table()
    return pa.concat_tables(batches, promote_options="default")


def read_batches(path: Path, batch_size: int = ROW_GROUP) -> Iterator[pa.Table]:
    """Batches of one Parquet file as found; SourceError where the file breaks off, also in its middle."""
    file = open_parquet(path)
    try:
        for batch in file.iter_batches(batch_size=batch_size):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    finally:
        file.close()


def _unreadable(path: Path, error: Exception) -> SourceError:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return SourceError(f"{path}: not a readable Parquet file, truncated or damaged ({first}); copy or export it again")


def connect_duckdb(memory_mb: int = MEMORY_MB, spill: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that works in UTC, loads nothing from the network and spills into `spill`."""
    connection = duckdb.connect(
        config={"memory_limit": f"{memory_mb}MB", "threads": 2, "autoinstall_known_extensions": False}
    )
    connection.execute("SET TimeZone = 'UTC'")
    with contextlib.suppress(duckdb.InvalidInputException):  # in a notebook it asks for ipywidgets to be silent
        connection.execute("SET enable_progress_bar = false")
    connection.execute("SET preserve_insertion_order = false")  # every query here states its order
    if spill is not None:
        connection.execute("SET temp_directory = ?", [str(spill)])
    return connection


class TableWriter:
    """Writes one canonical table under `dest` from batches of any size and order, in constant memory.

    Rows with one key are merged. Of events and slates the first by (time, content) stays, whatever the order of
    arrival; of items, users and vectors the last row given, as in a feed of updates. `quarantine` keeps every row.
    """

    def __init__(self, dest: Path, table: str, memory_mb: int = MEMORY_MB) -> None:
        dest.mkdir(parents=True, exist_ok=True)
        self._dest, self._table, self._memory_mb = dest, table, memory_mb
        self._staging = Path(tempfile.mkdtemp(prefix=f".{table}-", dir=dest))
        self._writer: pq.ParquetWriter | None = None
        self._files = 0
        self._rows = 0

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def write(self, rows: pa.Table) -> None:
        """Add rows with the columns of the table and any others, in any order."""
        rows = conform(rows, self._table, f"rows for {self._table}")
        seq = pa.array(range(self._rows, self._rows + rows.num_rows), pa.int64())
        rows = rows.append_column(_SEQ, seq).replace_schema_metadata(None)
        if self._writer is None or self._writer.schema != rows.schema:
            if self._writer is not None:
                self._writer.close()
            path = self._staging / f"stage-{self._files:04d}.parquet"
            self._writer = pq.ParquetWriter(path, rows.schema, compression="zstd")
            self._files += 1
        self._writer.write_table(rows)
        self._rows += rows.num_rows

    def close(self) -> Written:
        """Merge, sort, split by day and put the table in place of an older one."""
        if self._writer is None:
            self.write(arrow_schema(columns_of(self._table)).empty_table())
        assert self._writer is not None  # noqa: S101 - for the type checker
        self._writer.close()
        final = self._staging / "final"
        final.mkdir()
        rows_out = self._write_final(final)
        self._swap(final)
        self.discard()
        return Written(self._rows, rows_out, self._rows - rows_out)

    def discard(self) -> None:
        """Remove what was staged; what is in place stays. Safe to call twice."""
        if self._writer is not None:
            with suppress(pa.ArrowException):
                self._writer.close()
        shutil.rmtree(self._staging, ignore_errors=True)

    def _swap(self, final: Path) -> None:
        target = self._dest / self._table
        (self._dest / f"{self._table}.parquet").unlink(missing_ok=True)
        if target.exists():
            target.rename(self._staging / "old")
        final.rename(target)

    def _write_final(self, final: Path) -> int:
        if not self._rows:
            _DaySink(final, PARTITIONED_BY.get(self._table), arrow_schema(columns_of(self._table))).close()
            return 0
        staged_mb = sum(path.stat().st_size for path in self._staging.glob("stage-*.parquet")) / 1e6
        for times in MORE_MEMORY[int(staged_mb > LITTLE * self._memory_mb) : -1]:
            try:
                return self._merged(final, times * self._memory_mb)
            except (duckdb.OutOfMemoryException, OSError) as error:  # pyarrow's reader makes an OSError of it
                if "Out of Memory" not in str(error):
                    raise
                shutil.rmtree(final)
                final.mkdir()
        return self._merged(final, MORE_MEMORY[-1] * self._memory_mb)

    def _merged(self, final: Path, memory_mb: int) -> int:
        connection = connect_duckdb(memory_mb, self._staging / "spill")
        try:
            reader = connection.sql(self._sorted_query(connection)).to_arrow_reader(ROW_GROUP)
            sink = _DaySink(final, PARTITIONED_BY.get(self._table), reader.schema)
            for batch in reader:
                sink.write(pa.Table.from_batches([batch]))
            sink.close()
            return sink.rows
        except duckdb.ConversionException as error:
            raise SchemaError(f"{self._dest}: the sources of {self._table!r} disagree on a type: {error}") from error
        finally:
            connection.close()

    def _sorted_query(self, connection: duckdb.DuckDBPyConnection) -> str:
        """The rows that stay, in order. Three narrow steps, as one window over all rows would not fit in memory."""
        known = [column.name for column in columns_of(self._table)]
        extras = sorted(n for n in self._all_names() if n not in known and n != _SEQ)
        chosen = ", ".join(quote(n) for n in [*known, *extras])
        glob = str(self._staging / "stage-*.parquet").replace("'", "''")
        source = f"read_parquet('{glob}', union_by_name = true)"
        if self._table not in KEYS:
            return f"SELECT {chosen} FROM {source} ORDER BY {_SEQ}"  # noqa: S608 - names are quoted
        keys = ", ".join(quote(n) for n in KEYS[self._table])
        time = PARTITIONED_BY.get(self._table)
        winner = f"{quote(time)}, {chosen}, {_SEQ}" if time else f"{_SEQ} DESC"
        connection.execute(
            f"CREATE TEMP TABLE doubles AS SELECT {keys} FROM {source} GROUP BY {keys} HAVING count(*) > 1"  # noqa: S608
        )
        connection.execute(
            f"CREATE TEMP TABLE losers AS SELECT {_SEQ} FROM {source} SEMI JOIN doubles USING ({keys}) "  # noqa: S608
            f"QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {winner}) > 1"
        )
        order = f"{quote(time)}, {keys}" if time else keys
        return f"SELECT {chosen} FROM {source} ANTI JOIN losers USING ({_SEQ}) ORDER BY {order}"  # noqa: S608

    def _all_names(self) -> list[str]:
        paths = sorted(self._staging.glob("stage-*.parquet"))
        return list(dict.fromkeys(n for path in paths for n in pq.read_schema(path).names))


class _DaySink:
    """Writes sorted rows into `date=.../part-0000.parquet`, one open file at a time."""

    def __init__(self, root: Path, time_column: str | None, schema: pa.Schema) -> None:
        self._root, self._time, self._schema = root, time_column, schema
        self._day = ""
        self._file = None if time_column else ParquetFile(root / PART, schema)
        self.rows = 0

    def write(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        if self._time is None:
            self._add("", rows)
            return
        runs = pc.run_end_encode(pc.strftime(rows[self._time], format="%Y-%m-%d").combine_chunks())
        start = 0
        for day, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            self._add(day, rows.slice(start, end - start))
            start = end

    def close(self) -> None:
        if self._file is None:  # no row at all: one empty file outside of any day keeps the table and its columns
            self._file = ParquetFile(self._root / PART, self._schema)
        self._file.close()

    def _add(self, day: str, rows: pa.Table) -> None:
        if self._file is None or day != self._day:
            if self._file is not None:
                self._file.close()
            self._day = day
            (self._root / f"{PARTITION}={day}").mkdir()
            self._file = ParquetFile(self._root / f"{PARTITION}={day}" / PART, self._schema)
        self._file.add(rows)


def quote(name: str) -> str:
    """A column name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def write_rows(dest: Path, table: str, batches: Sequence[pa.Table]) -> Written:
    """Write `batches` as `table` under `dest`; a convenience for small data and tests."""
    with TableWriter(dest, table) as writer:
        for batch in batches:
            writer.write(batch)
        return writer.close()
