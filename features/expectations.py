"""EDGE: runs the rules as Great Expectations suites over DuckDB views of the Parquet files -> our ValidationReport.

Choices. DuckDB over Parquet is the fastest engine of Great Expectations and the one with the smallest memory, yet not
one that it supports: its dialect must be among those whose connection is kept open (`_allow_duckdb`; a private name,
so the version is pinned and a test stands on it). A rule of a column becomes the expectation made for it; a rule of
rows or of a measure becomes a column of a table with one row, `TABLE_facts`, so that any number of them costs one
scan. Sample rows are fetched only for what failed. The library is imported when first used: it takes seconds.
An expectation that errs is an error of ours and is raised as such, never reported as bad data.
"""

from __future__ import annotations

import atexit
import enum
import functools
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features import census, drift, integrity
from features.errors import HomerankerError, SourceError
from features.evidence import Evidence, create_view, open_database
from features.rules import Rule, all_rules
from features.schema import REQUIRED_TABLES, TABLES, Events, Items
from features.tiers import find_tiers
from features.validation import Check, ReferenceProfile, ValidationParams, ValidationReport, verdict_of


class _Dialect(enum.StrEnum):
    DUCKDB = "duckdb"


def _great_expectations() -> Any:
    """The library, quiet, with telemetry off and the DuckDB dialect allowed."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations
    from great_expectations.execution_engine import sqlalchemy_execution_engine

    _allow_duckdb(sqlalchemy_execution_engine)
    _silence_the_exit()
    return great_expectations


@functools.cache
def _silence_the_exit() -> None:
    """Close stderr as the very last act, or DuckDB's binding lists some 40 lines of its own types there.

    They are written after Python has ended, by `nanobind`, and no switch reaches them.
    """
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stderr__.fileno() if sys.__stderr__ else 2))


def _allow_duckdb(module: Any) -> None:
    """Keep one connection open for DuckDB, as for SQLite; the only place that touches this private name."""
    if "duckdb" not in {dialect.value for dialect in module._PERSISTED_CONNECTION_DIALECTS}:
        module._PERSISTED_CONNECTION_DIALECTS = (*module._PERSISTED_CONNECTION_DIALECTS, _Dialect.DUCKDB)


def _expectation(gx: Any, rule: Rule, name: str, limit: float, position: int) -> Any:
    """The expectation of a rule; `name` is its column (of the facts, where it is a rule of rows or a measure)."""
    e = gx.expectations
    if rule.kind == "columns":
        needed = [c.name for c in TABLES[rule.table].COLUMNS if not c.nullable]
        return e.ExpectTableColumnsToMatchSet(
            column_set=needed, exact_match=False, severity=rule.severity, meta={"position": position}
        )
    common = {"column": name, "severity": rule.severity, "meta": {"position": position}}
    spec = rule.spec
    if rule.kind == "not_null":
        return e.ExpectColumnValuesToNotBeNull(**common)
    if rule.kind == "unique":
        return e.ExpectColumnValuesToBeUnique(**common)
    if rule.kind == "length":
        return e.ExpectColumnValueLengthsToBeBetween(min_value=1, max_value=256, **common)
    if rule.kind == "in_set" and spec and spec.values:
        return e.ExpectColumnValuesToBeInSet(value_set=list(spec.values), **common)
    if rule.kind == "between" and spec:
        strict = spec.exclusive_minimum
        return e.ExpectColumnValuesToBeBetween(
            min_value=spec.minimum, max_value=spec.maximum, strict_min=strict, **common
        )
    high = limit if rule.kind == "rows" else rule.high
    return e.ExpectColumnValuesToBeBetween(min_value=0 if rule.kind == "rows" else rule.low, max_value=high, **common)


class _Suites:
    """One ephemeral context over the database; runs a suite over a view or table."""

    def __init__(self, address: str) -> None:
        self._gx = _great_expectations()
        context = self._gx.get_context(mode="ephemeral")
        from great_expectations.data_context.types.base import ProgressBarsConfig

        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self._source = context.data_sources.add_sql("tables", connection_string=address, create_temp_table=False)

    def close(self) -> None:
        """Let go of the database's file."""
        self._source.get_engine().dispose()

    def run(self, table: str, rules: list[tuple[Rule, str, float]]) -> list[Any]:
        """Results in the order of `rules` (rule, column, limit); raises HomerankerError where an expectation errs."""
        if not rules:
            return []
        batch = (
            self._source.add_table_asset(table, table_name=table).add_batch_definition_whole_table("all").get_batch()
        )
        expectations = [_expectation(self._gx, *given, position) for position, given in enumerate(rules)]
        suite = self._gx.ExpectationSuite(name=table, expectations=expectations)
        outcome = batch.validate(suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0})
        ordered = sorted(outcome.results, key=lambda result: result.expectation_config.meta["position"])
        for result, (rule, _, _) in zip(ordered, rules, strict=True):
            _raise_if_erred(result, rule)
        return ordered


def _raise_if_erred(result: Any, rule: Rule) -> None:
    info = result.exception_info or {}
    parts = [info] if "raised_exception" in info else list(info.values())
    messages = [str(part.get("exception_message")) for part in parts if part.get("raised_exception")]
    if messages:
        raise HomerankerError(
            f"the check of {rule.table}.{rule.column} ({rule.sentence}) could not be run: {messages[0][:200]}."
            " This is an error of homeranker, not of the data; nothing was decided"
        )


def _run_suites(run: Evidence, rules: list[Rule], suites: _Suites) -> list[Check]:
    checks: list[Check] = []
    for table in run.sources:
        mine = [rule for rule in rules if rule.table == table and run.applies(rule)]
        native = [rule for rule in mine if rule.kind not in ("rows", "measure")]
        facts = [rule for rule in mine if rule.kind in ("rows", "measure")]
        run.count(table, facts)
        values = [
            float(run.bad_rows(table, r.bad or "")) if r.kind == "rows" else run.measures[str(r.measure)] for r in facts
        ]
        if facts:
            columns = ", ".join(f"CAST({value!r} AS DOUBLE) AS fact_{i}" for i, value in enumerate(values))
            run.con.execute(f"CREATE TABLE {table}_facts AS SELECT {columns}")
        rows = run.sources[table].rows
        found = suites.run(table, [(rule, rule.column, 0.0) for rule in native])
        checks += [run.check(rule, result, None) for rule, result in zip(native, found, strict=True)]
        found = suites.run(f"{table}_facts", [(r, f"fact_{i}", r.share * rows) for i, r in enumerate(facts)])
        checks += [run.check(*given) for given in zip(facts, found, values, strict=True)]
    return checks


def _file_checks(tables_dir: Path) -> tuple[dict[str, integrity.TableFiles], list[Check]]:
    """The tables whose files are whole and hold rows, and the checks on files, columns and types of all."""
    sources: dict[str, integrity.TableFiles] = {}
    checks: list[Check] = []
    wrong = integrity.check_manifest(tables_dir)
    for table in TABLES:
        required = table in REQUIRED_TABLES
        source, found = integrity.inspect(tables_dir, table, required)
        if not source.files and not required and not any(c.unexpected for c in found):
            continue
        checks += found
        if wrong is not None:
            mine = [sentence for sentence in wrong if sentence.startswith((f"{table}/", f"{table}.parquet"))]
            checks.append(integrity.changed_bytes(table, mine, len(source.files)))
        if source.rows and all(c.passed or c.severity != "critical" for c in found if c.column == integrity.FILES):
            sources[table] = source
    return sources, checks


def validate(
    tables_dir: Path,
    params: ValidationParams | None = None,
    *,
    load_time: datetime | None = None,
    now: datetime | None = None,
    reference: ReferenceProfile | None = None,
) -> ValidationReport:
    """Validate a directory of canonical tables (CONTRACT, section 1). Bad data is in the report, not raised.

    `load_time` (with a zone) is when the data was loaded: without it nothing is said on the future or on freshness.
    `now` (with a zone), where it comes before the load time, begins the future: a day of loading may not be over yet.
    Data that pass give the same report whatever `now` is. `reference` is the profile of the last accepted run.
    Raises SourceError where `tables_dir` is no directory, and HomerankerError where a check cannot be run.
    """
    params = params or ValidationParams()
    if not tables_dir.is_dir():
        raise SourceError(
            f"{tables_dir} is no directory of canonical tables; name the folder that holds events/ and items/"
        )
    load_time = load_time.astimezone(UTC) if load_time else None
    sources, checks = _file_checks(tables_dir)
    with open_database(params) as (con, address):
        import duckdb

        run = Evidence(con, sources, params)
        try:
            for source in sources.values():
                create_view(con, source)
            days = _profile(run, load_time, reference)
            suites = _Suites(address)
            accepted = reference is not None and bool(reference.rows_by_day)
            begins = min(load_time, now.astimezone(UTC)) if load_time and now else load_time
            rules = [*all_rules(params, begins, accepted), *census.rules(params), *census.strays(run, days.rows)]
            checks += _run_suites(run, rules, suites)
            tiers = find_tiers(run)
            suites.close()
        except duckdb.Error as error:
            raise HomerankerError(f"validation of {tables_dir} stopped: {str(error).splitlines()[0]}") from error
    profile = drift.profile_of(days, sorted(days.rows), params.reference_days)
    rows = {table: source.rows for table, source in sources.items()}
    first, last = (None if t is None else t.isoformat(sep=" ") for t in (days.first, days.last))
    return ValidationReport(verdict_of(tuple(checks)), rows, first, last, tuple(checks), tiers, profile)


def _profile(run: Evidence, load_time: datetime | None, reference: ReferenceProfile | None) -> drift.DayCounts:
    """Count the days of `events` and fill the measures; empty counts where there are no events to count."""
    present = run.columns(Events.TABLE)
    census.take(run)
    drift.find_duplicates(run.con, present)
    if Events.EVENT_TIME not in present:
        return drift.DayCounts({}, {}, {}, {}, None, None)
    days = drift.count_days(run.con, present)
    run.measures |= drift.compare(days, reference, run.params)
    run.measures |= drift.measures(run.con, days, present, run.columns(Items.TABLE), run.params, load_time)
    return days
