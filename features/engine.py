"""EDGE. Where the Ibis expressions run: DuckDB in this process, or Spark where one machine ends.

Choices. Both engines work in UTC and read the same Parquet files; DuckDB spills to a directory of its own beyond its
memory limit. Spark is started locally unless the environment names a master, and is imported only when asked for.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa

from features import nanoseconds
from features.conform import check_type, columns_of
from features.errors import SchemaError, UsageError
from features.schema import TIMESTAMP, Column
from features.tables import read_batches, read_schema, table_files

ENGINES = ("duckdb", "spark")
# Tried in turn where DuckDB runs out of memory: each thread holds blocks of its own while it sorts or groups.
MORE_ROOM = ("SET threads = 1", "SET memory_limit = '4GB'")
UTC_TIME = "timestamp('UTC', 6)"


@dataclass(frozen=True)
class EngineConfig:
    """`memory_limit` is DuckDB's or the Spark driver's, as `1GB`; `spill` a directory for what does not fit."""

    engine: str = "duckdb"
    threads: int = 2
    memory_limit: str = "1GB"
    spill: Path | None = None


def connect(config: EngineConfig) -> Any:
    """An Ibis backend; UsageError for an unknown engine or a Spark that is not installed."""
    if config.engine == "duckdb":
        options: dict[str, Any] = {"threads": config.threads, "memory_limit": config.memory_limit}
        if config.spill is not None:
            options["temp_directory"] = str(config.spill)
        backend = ibis.duckdb.connect(autoinstall_known_extensions=False, **options)
        backend.raw_sql("SET TimeZone = 'UTC'")
        backend.raw_sql("SET enable_progress_bar = false")
        return backend
    if config.engine == "spark":
        return _spark(config)
    raise UsageError(f"engine {config.engine!r} is unknown; one of {', '.join(ENGINES)}")


def _spark(config: EngineConfig) -> Any:
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise UsageError("engine 'spark' needs pyspark and Java: pip install 'homeranker[spark]'") from error
    builder = (
        SparkSession.builder.appName("homeranker")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.driver.memory", config.memory_limit.replace("GB", "g").replace("MB", "m"))
        .config("spark.sql.shuffle.partitions", str(config.threads))
        .config("spark.ui.enabled", "false")
        .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
        .config("spark.sql.ansi.enabled", "true")
    )
    return ibis.pyspark.connect(builder.master(f"local[{config.threads}]").getOrCreate())


def load(backend: Any, root: Path, table: str) -> ir.Table:
    """`table` of a canonical directory as an expression with canonical types; absent nullable columns are null.

    An absent optional table is empty. SchemaError for a wrong type or a missing required column.
    """
    columns = columns_of(table)
    files = table_files(root, table)
    if not files:
        schema = ibis.schema({column.name: ibis_type(column) for column in columns})
        return ibis.memtable([], schema=schema)
    found = read_schema(root, table)
    source = read_files(backend, files)
    extras = [name for name in found.names if name not in {column.name for column in columns}]
    return source.select(*(_typed(source, found, column, table, root) for column in columns), *sorted(extras))


def read_files(backend: Any, files: list[Path]) -> ir.Table:
    """Parquet files, whose columns may differ, as one expression; a `date=` in a path is no column."""
    view = f"files_{uuid.uuid4().hex}"
    if backend.name == "duckdb":
        backend.con.execute(f"CREATE TEMP VIEW {view} AS {nanoseconds.read_files(backend.con, files)}")
        return cast(ir.Table, backend.table(view))
    from pyspark.sql import SparkSession  # Ibis reads one path only

    session = SparkSession.getActiveSession() or SparkSession.builder.getOrCreate()
    session.read.option("mergeSchema", "true").parquet(*map(str, files)).createOrReplaceTempView(view)
    return cast(ir.Table, backend.table(view))


def _typed(source: ir.Table, found: pa.Schema, column: Column, table: str, root: Path) -> ir.Value:
    if column.name in found.names:
        check_type(found.field(column.name).type, column, table, str(root))
        return source[column.name].cast(ibis_type(column)).name(column.name)
    if not column.nullable:
        raise SchemaError(f"{root}: table {table!r} has no column {column.name!r}, which is required")
    return ibis.null(ibis_type(column)).name(column.name)


def ibis_type(column: Column) -> str:
    """The Ibis name of a column's type."""
    if column.type == TIMESTAMP:
        return UTC_TIME
    if pa.types.is_list(column.type):
        return "array<float32>"
    return {"string": "string", "int32": "int32", "double": "float64", "bool": "boolean"}[str(column.type)]


class Scratch:
    """Results of expressions as Parquet files in a directory, the same way on both engines and in constant memory.

    Chosen over the engines' own caches and readers: those of Ibis 12 need a call that DuckDB 2 has dropped, and Spark's
    collect everything on the driver.
    """

    def __init__(self, backend: Any, root: Path) -> None:
        self.backend, self._root, self._count = backend, root, 0

    def keep(self, expression: ir.Table) -> ir.Table:
        """The expression, computed once, in the types that it states (DuckDB's sums come out wider)."""
        files = self._write(expression)
        return read_files(self.backend, files).cast(expression.schema())

    def batches(self, expression: ir.Table) -> Iterator[pa.Table]:
        """The rows of an expression in its order, a batch at a time."""
        for file in self._write(expression):
            yield from read_batches(file)

    def value(self, scalar: ir.Scalar) -> Any:
        """A scalar expression as a Python value."""
        return self.backend.to_pyarrow(scalar).as_py()

    def _write(self, expression: ir.Table) -> list[Path]:
        path = self._root / f"step-{self._count:04d}.parquet"
        self._count += 1
        for more in (*MORE_ROOM, None):
            try:
                self.backend.to_parquet(expression, str(path))
                break
            except duckdb.OutOfMemoryException:
                if more is None:
                    raise
                self.backend.raw_sql(more)
        return [path] if path.is_file() else sorted(path.glob("part-*.parquet"))
