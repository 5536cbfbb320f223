"""The views over the Parquet files, and what is counted and shown of them: bad rows, measures, sample rows.

Choices. One throw-away DuckDB database a validation. The views hold only canonical columns that are rightly typed, cast
to DuckDB's own types, times in UTC without a zone. All predicates of a table are counted in one scan. A sample row
shows the columns that identify it and the one that is wrong; a user or session only as a hash.
"""
# Queries are put together from the names of `schema.py` and the predicates of `rules.py`, never from the data.
# ruff: noqa: S608

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from features.integrity import TableFiles
from features.nanoseconds import read_files
from features.rules import PARTITION_DAY, Rule
from features.schema import PARTITION, PARTITIONED_BY, TABLES, Column, Events, Items
from features.validation import SAMPLE_ROWS, Check, ValidationParams, pseudonym

HIDDEN = frozenset({Events.USER_ID, Events.SESSION_ID})  # shown as a short hash
DUCKDB_TYPES = {"string": "VARCHAR", "double": "DOUBLE", "int32": "BIGINT", "bool": "BOOLEAN"}


@contextlib.contextmanager
def open_database(params: ValidationParams) -> Iterator[tuple[Any, str]]:
    """A throw-away DuckDB database and its address; opened as SQLAlchemy does, so that both share one instance."""
    import sqlalchemy

    with tempfile.TemporaryDirectory(prefix="homeranker-validate-") as folder:
        address = f"duckdb:///{folder}/validate.duckdb"
        engine = sqlalchemy.create_engine(address)
        wrapper = engine.raw_connection()
        con: Any = wrapper.driver_connection
        try:
            con.execute(f"SET memory_limit='{params.memory_limit_mb}MB'")
            con.execute(f"SET threads={params.threads}")
            con.execute("SET preserve_insertion_order=false")
            con.execute("SET TimeZone='UTC'")
            yield con, address
        finally:
            wrapper.close()
            engine.dispose()


def _select(column: Column, untyped: bool) -> str:
    kind = DUCKDB_TYPES.get(str(column.type))
    if untyped:
        return f"CAST(NULL AS {kind or 'TIMESTAMP'}) AS {column.name}"
    if pa.types.is_timestamp(column.type):  # a time: without its zone, in UTC
        return f"make_timestamp(epoch_us({column.name})) AS {column.name}"
    return f"CAST({column.name} AS {kind}) AS {column.name}" if kind else column.name


def create_view(con: Any, source: TableFiles) -> None:
    """A view with the canonical columns that are there, in DuckDB's own types, and the day of the partition."""
    columns = [_select(c, c.name in source.untyped) for c in TABLES[source.table].COLUMNS if c.name in source.columns]
    if source.table in PARTITIONED_BY:
        day = rf"'{PARTITION}=(\d{{4}}-\d{{2}}-\d{{2}})/[^/]*$'"
        columns.append(f"nullif(regexp_extract(_file, {day}, 1), '') AS {PARTITION_DAY}")
    rows = read_files(con, source.files, ", filename = '_file'")
    con.execute(f"CREATE VIEW {source.table} AS SELECT {', '.join(columns)} FROM ({rows})")


class Evidence:
    """One validation: the views, what is usable, and the counts that the rules share."""

    def __init__(self, con: Any, sources: dict[str, TableFiles], params: ValidationParams) -> None:
        self.con, self.sources, self.params = con, sources, params
        self.measures: dict[str, float] = {}
        self.words: dict[str, str] = {}  # what a measure says, where its number alone says too little
        self._counts: dict[tuple[str, str], int] = {}

    def columns(self, table: str) -> tuple[str, ...]:
        """The canonical columns of a table that can be asked for."""
        return self.sources[table].columns if table in self.sources else ()

    def applies(self, rule: Rule) -> bool:
        """Whether the table, the columns and the measure that the rule speaks of are there."""
        there = rule.table in self.sources and set(rule.needs) <= set(self.columns(rule.table))
        known = rule.kind != "measure" or rule.measure in self.measures
        partition = rule.bad is None or PARTITION_DAY not in rule.bad or rule.table in PARTITIONED_BY
        return there and known and partition and set(rule.items) <= set(self.columns(Items.TABLE))

    def count(self, table: str, rules: list[Rule]) -> None:
        """Count the bad rows of all rules of rows: one scan, and one more for each predicate with a subquery."""
        together = sorted({rule.bad for rule in rules if rule.kind == "rows" and rule.bad and not rule.alone})
        if together:
            sums = ", ".join(f"count(*) FILTER (WHERE {bad})" for bad in together)
            found = self.con.execute(f"SELECT {sums} FROM {table}").fetchone()
            self._counts.update({(table, bad): n for bad, n in zip(together, found, strict=True)})
        for bad in sorted({rule.bad for rule in rules if rule.kind == "rows" and rule.bad and rule.alone}):
            self.bad_rows(table, bad)

    def bad_rows(self, table: str, bad: str) -> int:
        """Rows of a table for which a predicate is true; counted once."""
        if (table, bad) not in self._counts:
            query = f"SELECT count(*) FROM {table} WHERE {bad}"
            self._counts[(table, bad)] = int(self.con.execute(query).fetchone()[0])
        return self._counts[(table, bad)]

    def samples(self, rule: Rule) -> tuple[dict[str, Any], ...]:
        """Up to five bad rows: the columns that identify a row and the one that is wrong; people only as a hash."""
        if rule.bad is None:
            return ()
        ids = [c.name for c in TABLES[rule.table].COLUMNS if c.is_id or c.name in PARTITIONED_BY.values()]
        names = [n for n in dict.fromkeys([*ids[:4], rule.column]) if n in self.columns(rule.table)]
        query = f"SELECT {', '.join(names)} FROM {rule.table} WHERE {rule.bad} ORDER BY ALL LIMIT {SAMPLE_ROWS}"
        rows = self.con.execute(query).fetchall()
        return tuple({name: _shown(name, value) for name, value in zip(names, row, strict=True)} for row in rows)

    def _is_set_aside(self, rule: Rule) -> bool:
        """Whether the import leaves the bad rows out by itself: a few of them are then a warning, not the end."""
        by_column = rule.kind in ("not_null", "length", "in_set", "between")
        return rule.table in PARTITIONED_BY and rule.severity == "critical" and by_column

    def check(self, rule: Rule, result: Any, value: float | None) -> Check:
        """One expectation's result as a Check; `value` is the fact, where the expectation stood on one."""
        passed, rows = bool(result.success), max(self.sources[rule.table].rows, 1)
        count = 0
        if rule.kind == "rows":
            count = int(value or 0)
        elif rule.kind == "measure":
            count = self.bad_rows(rule.table, rule.bad) if rule.bad and not passed else 0
        else:
            count = int(result.result.get("unexpected_count") or 0)
        observed = ""
        if rule.kind == "measure" and value is not None:
            observed = self.words.get(str(rule.measure), f"{value:.4g}")
        if rule.kind == "columns" and not passed:
            usable = self.columns(rule.table)
            required = [c.name for c in TABLES[rule.table].COLUMNS if not c.nullable and c.name not in usable]
            observed = f"missing or of another type: {', '.join(required)}"
        samples = () if passed else self.samples(rule)
        few = not passed and self._is_set_aside(rule) and count <= self.params.bad_row_share_critical * rows
        return Check(
            rule.table,
            rule.column,
            rule.sentence,
            "warning" if few else rule.severity,
            passed,
            count,
            100.0 * count / rows,
            observed,
            samples,
        )


def _shown(name: str, value: Any) -> Any:
    if name in HIDDEN:
        return pseudonym(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    if isinstance(value, list):
        return f"{len(value)} numbers"
    return str(value)[:64]
