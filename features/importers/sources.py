"""CSV, JSON lines and Parquet as batches of rows, with row numbers and constant memory.

Choices. CSV is read by Python's own reader, a third as fast as Arrow's: it splits any dirty file into rows in one known
way and never stops in the middle. Bytes that are no UTF-8 come through as lone surrogates, which the rules then find.
An empty CSV field is a null. A line of JSON that does not parse is a record with a reason, not an error of the file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.errors import SchemaError, SourceError
from features.importers.base import BATCH, unreadable
from features.importers.base import Mapped as Mapped
from features.schema import PLATFORMS
from features.tables import read_batches

csv.field_size_limit(16 * 1024 * 1024)


@dataclass(frozen=True)
class Records:
    """Source records as read, each with its number, and those that could not be opened, each with a reason."""

    source: str
    rows: list[dict[str, Any]]
    numbers: list[int]
    broken: list[dict[str, Any]]
    broken_numbers: list[int]
    broken_reasons: list[str]

    def rejected(self, table: str) -> Iterator[Mapped]:
        """The records that could not be opened, as rows of `table` with reasons."""
        if self.broken:
            yield unreadable(table, self.source, self.broken, self.broken_numbers, self.broken_reasons)


def csv_header(path: Path) -> list[str]:
    """The column names of a CSV file, trimmed; SourceError for an empty one, or one of another separator."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        header = next(csv.reader(lines), None)
    if not header:
        raise SourceError(f"{path}: an empty file; a header line of column names was expected")
    for separator, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and separator in header[0]:  # no format has a single column
            raise SourceError(f"{path}: the columns are separated by {word}; write it with commas (and decimal points)")
    return [name.strip() for name in header]


def need_columns(path: Path, found: list[str], needed: tuple[str, ...], what: str) -> None:
    """SchemaError that names the missing columns and what the format needs."""
    if lacking := [name for name in needed if name not in found]:
        raise SchemaError(f"{path}: no column {', '.join(lacking)}; {what} needs {', '.join(needed)}")


def read_csv(path: Path) -> Iterator[Records]:
    """Rows of a CSV file as dicts; a row with too many or too few fields is broken."""
    header = csv_header(path)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.reader(lines)
        next(reader)
        yield from _batched(path.name, _csv_rows(path, reader, header))


def _csv_rows(path: Path, reader: Any, header: list[str]) -> Iterator[tuple[dict[str, Any], str | None]]:
    width = len(header)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield {"line": reader.line_num}, f"not a CSV row: {error}"
            continue
        if not fields:
            continue  # a blank line is no row
        if len(fields) == width:
            yield {name: field or None for name, field in zip(header, fields, strict=True)}, None
        else:
            yield {"fields": fields}, "another number of fields than the header has"


def read_jsonl(path: Path) -> Iterator[Records]:
    """Objects of a JSON-lines file; a line that is none is broken."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        yield from _batched(path.name, (_json_row(line) for line in lines if line.strip()))


def _json_row(line: str) -> tuple[dict[str, Any], str | None]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {"line": line[:10_000].rstrip("\n")}, "not a line of JSON"
    if not isinstance(row, dict):
        return {"line": line[:10_000].rstrip("\n")}, "not a JSON object"
    return row, None


def read_parquet(path: Path) -> Iterator[Records]:
    """Rows of a Parquet file as dicts."""
    rows = (row for batch in read_batches(path, BATCH) for row in batch.to_pylist())
    yield from _batched(path.name, ((row, None) for row in rows))


def read_records(path: Path) -> Iterator[Records]:
    """Parquet by its ending, JSON lines otherwise."""
    return read_parquet(path) if path.suffix == ".parquet" else read_jsonl(path)


def _batched(source: str, rows: Iterator[tuple[dict[str, Any], str | None]]) -> Iterator[Records]:
    batch = Records(source, [], [], [], [], [])
    for number, (row, reason) in enumerate(rows):
        if reason is None:
            batch.rows.append(row)
            batch.numbers.append(number)
        else:
            batch.broken.append(row)
            batch.broken_numbers.append(number)
            batch.broken_reasons.append(reason)
        if len(batch.rows) + len(batch.broken) >= BATCH:
            yield batch
            batch = Records(source, [], [], [], [], [])
    if batch.rows or batch.broken:
        yield batch


def files_of(src: Path, *endings: str) -> list[Path]:
    """`src` itself, or the files below it with one of the endings, sorted; SourceError where there is none."""
    if src.is_file():
        return [src]
    found = sorted(p for p in src.rglob("*") if p.is_file() and p.suffix in endings and p.name[0] not in "._")
    if not found:
        raise SourceError(f"{src}: no file that ends in {' or '.join(endings)}")
    return found


def as_record(value: Any) -> dict[str, Any]:
    """`value` where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_platform(value: Any) -> str | None:
    """A source's name of a platform as one of ours; anything else that is said is `other`."""
    plain = value.strip().lower() if isinstance(value, str) else ""
    return plain if plain in PLATFORMS else ("other" if plain else None)
