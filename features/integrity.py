"""Are the files whole? What no SQL expectation sees: files that cannot be read, changed bytes, columns by file.

Choices. Every page of every file is decoded once (and its checksum compared, where the writer stored one), because a
query reads only the columns that it names. Most writers store no checksums, and a flipped bit in an uncompressed page
still decodes; so `write_manifest` puts the sha256 of every file beside the tables and `check_manifest` compares.
A column that may be null and is missing reads as null (`tables.scan`), hence a warning; yet it is critical where the
shop's measures hang on it, where only some files lack it, and where an unknown column hints at another name for it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from features.conform import check_type
from features.errors import SchemaError, SourceError
from features.schema import PARTITION, TABLES, TIMESTAMP, Column, Events
from features.tables import table_files
from features.validation import SAMPLE_ROWS, Check, Severity

MANIFEST = "_manifest.json"
NEEDED = frozenset({Events.USER_ID, Events.ITEM_ID, Events.PRICE, Events.QUANTITY, Events.CURRENCY})
FILES = "(files)"  # stands where a column would, for rules on files


@dataclass(frozen=True)
class TableFiles:
    """The files of one table that can be read, their rows, and of each canonical column the files that lack it."""

    table: str
    files: tuple[Path, ...]
    rows: int
    columns: tuple[str, ...]  # canonical columns that every file has, rightly typed
    untyped: tuple[str, ...]  # of these, columns without a type, because every value is null


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _all_files(tables_dir: Path) -> list[Path]:
    return [path for table in TABLES for path in table_files(tables_dir, table)]


def write_manifest(tables_dir: Path) -> Path:
    """Write `_manifest.json`: the sha256 of every file of the tables. Atomic; returns its path."""
    files = {path.relative_to(tables_dir).as_posix(): _sha256(path) for path in _all_files(tables_dir)}
    target = tables_dir / MANIFEST
    temporary = tables_dir / f"{MANIFEST}.tmp"
    temporary.write_text(json.dumps({"sha256": files}, indent=1, sort_keys=True) + "\n")
    temporary.replace(target)
    return target


def check_manifest(tables_dir: Path) -> list[str] | None:
    """What differs from `_manifest.json`, a sentence each; None without a manifest.

    A file that the manifest does not name is no difference: a shop may add days by hand.
    """
    path = tables_dir / MANIFEST
    if not path.is_file():
        return None
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["sha256"]
        pairs = [(str(name), str(digest)) for name, digest in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{path} is no manifest ({error}); delete it or import the data again") from error
    root = tables_dir.resolve()
    wrong = []
    for name, digest in sorted(pairs):
        file = (tables_dir / name).resolve()
        if not file.is_relative_to(root):
            wrong.append(f"{name}: lies outside the directory")
        elif not file.is_file():
            wrong.append(f"{name}: named in the manifest, not there")
        elif _sha256(file) != digest:
            wrong.append(f"{name}: its bytes are not those that were written")
    return wrong


def _read_whole(path: Path, batch_rows: int = 131_072) -> tuple[pa.Schema, int]:
    """Decode every page of a file; raises ArrowInvalid or OSError where one does not decode."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(batch_rows, row_groups=[group]):
                batch.validate(full=True)
        return file.schema_arrow, file.metadata.num_rows


def _why(error: Exception) -> str:
    """The reader's own words, in one line and without this machine's folders."""
    return re.sub(r"(/[^\s/'\"]+)+/", "", str(error).splitlines()[0])[:160]


def _failure(
    table: str,
    column: str,
    rule: str,
    names: list[str],
    total: int,
    severity: Severity = "critical",
    observed: str = "",
) -> Check:
    samples = tuple({"file": name} for name in names[:SAMPLE_ROWS])
    percent = 100.0 * len(names) / max(total, 1)
    return Check(table, column, rule, severity, not names, len(names), percent, observed, samples)


def _column_checks(table: str, column: Column, schemas: dict[str, pa.Schema]) -> list[Check]:
    """Is the column in every file, and of its type? Its absence is critical where it hurts or looks like a mistake."""
    lacking = sorted(name for name, schema in schemas.items() if column.name not in schema.names)
    known = {PARTITION, *(c.name for c in TABLES[table].COLUMNS)}
    extra = sorted({name for schema in schemas.values() for name in schema.names} - known)
    needed = not column.nullable or (table == Events.TABLE and column.name in NEEDED)
    torn = 0 < len(lacking) < len(schemas)
    severity: Severity = "critical" if needed or torn or extra else "warning"
    observed = ""
    if lacking:
        observed = (
            f"columns that no rule knows: {', '.join(extra[:8])} (renamed?)" if extra else "no column in its place"
        )
    rule = f"the column {column.name} is there" + (" (all null will do)" if column.nullable else "")
    there = _failure(table, column.name, rule, lacking, len(schemas), severity, observed)
    wrong = {}
    for name, schema in sorted(schemas.items()):
        if column.name in schema.names:
            try:
                check_type(schema.field(column.name).type, column, table, name)
            except SchemaError:
                wrong[name] = str(schema.field(column.name).type)
    found = ", ".join(sorted(set(wrong.values()))) + (f": {_cure(column, list(wrong.values()))}" if wrong else "")
    rule = f"{column.name} is of type {column.type}"
    return [there, _failure(table, column.name, rule, list(wrong), len(schemas), "critical", found)]


def _cure(column: Column, found: list[str]) -> str:
    """What to do about a column of another type; only a shop knows in which zone its clocks stood."""
    if column.type != TIMESTAMP:
        return "write it in that type, or the table as CSV for homeranker import canonical SRC DEST"
    if any(kind.startswith("timestamp") for kind in found):
        return "times without a zone; give them the shop's own zone and write them in UTC"
    return (
        "write timestamps with a zone, in UTC; or the table as CSV, its times with an offset as 2026-01-31T12:00:00Z,"
        " for homeranker import canonical SRC DEST"
    )


def inspect(tables_dir: Path, table: str, must_exist: bool) -> tuple[TableFiles, list[Check]]:
    """Read every file of a table; return what is usable of it and the checks on files, columns and types."""
    paths = table_files(tables_dir, table)
    broken: list[str] = []
    schemas: dict[str, pa.Schema] = {}
    rows: dict[str, int] = {}
    for path in paths:
        name = path.relative_to(tables_dir).as_posix()
        try:
            schemas[name], rows[name] = _read_whole(path)
        except (pa.ArrowException, OSError, ValueError) as error:
            size = path.stat().st_size
            broken.append(f"{name}: {_why(error) if size else 'empty, 0 bytes'}")
    missing = (
        "" if paths else f"neither {table}/*.parquet nor {table}.parquet; homeranker import FORMAT SRC DEST makes it"
    )
    checks = [
        Check(table, FILES, "the table is there", "critical" if must_exist else "info", bool(paths), observed=missing),
        _failure(table, FILES, "every file is whole and can be read", broken, len(paths)),
    ]
    good = tuple(path for path in paths if path.relative_to(tables_dir).as_posix() in schemas)
    columns: list[str] = []
    if schemas:
        total = sum(rows.values())
        empty = sorted(name for name, count in rows.items() if not count)
        checks.append(_failure(table, FILES, "no file is without rows", empty, len(rows), "warning"))
        checks.append(
            Check(
                table,
                FILES,
                "the table has rows",
                "critical" if must_exist else "info",
                total > 0,
                observed=f"{total:,}",
            )
        )
        for column in TABLES[table].COLUMNS:
            pair = _column_checks(table, column, schemas)
            checks += pair
            if all(check.passed for check in pair):
                columns.append(column.name)
    untyped = [c for c in columns if all(pa.types.is_null(schema.field(c).type) for schema in schemas.values())]
    return TableFiles(table, good, sum(rows.values()), tuple(columns), tuple(untyped)), checks


def changed_bytes(table: str, wrong: list[str], files: int) -> Check:
    """The check that a table's files are those of the manifest; `wrong` is of `check_manifest`."""
    return _failure(table, FILES, "the bytes are those that were written (sha256 of the manifest)", wrong, files)
