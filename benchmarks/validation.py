"""Validation of made-up tables: seconds, rows/s and peak memory, beside a plain DuckDB scan of the same columns.

    python -m benchmarks.validation --rows 1000000 10000000

The data is generated (SYNTHETIC). Each figure is of a process of its own, so that its peak is its own. The yardstick
counts nulls, lengths, sets and ranges of every column in one query: what the machine needs to look at the rows at all.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.command import finish
from features.evidence import create_view, open_database
from features.expectations import validate
from features.generate import GenerateParams, generate_tables
from features.integrity import TableFiles
from features.rules import column_rules
from features.schema import Events
from features.tables import table_files
from features.validation import ValidationParams, raise_if_critical

DAYS = 10


def plain_scan(folder: Path) -> None:
    """The bad rows of every column rule of `events`, in one DuckDB query."""
    columns = tuple(column.name for column in Events.COLUMNS)
    with open_database(ValidationParams()) as (con, _):
        create_view(con, TableFiles(Events.TABLE, tuple(table_files(folder, Events.TABLE)), 1, columns, ()))
        counts = ", ".join(f"count(*) FILTER (WHERE {rule.bad})" for rule in column_rules(Events.TABLE) if rule.bad)
        con.execute(f"SELECT {counts} FROM {Events.TABLE}").fetchall()


def validate_all(folder: Path) -> None:
    """The whole validation, as `homeranker validate` does it."""
    end = GenerateParams().first_day + timedelta(days=DAYS)
    raise_if_critical(validate(folder, load_time=datetime(end.year, end.month, end.day, tzinfo=UTC)))


def measured(what: str, folder: Path) -> dict[str, float]:
    """Run one part in a process of its own; seconds (imports not counted) and peak MB (imports counted)."""
    command = [sys.executable, "-m", "benchmarks.validation", "--part", what, "--folder", str(folder)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(out.splitlines()[-1])
    return figures


def main() -> None:
    """Generate, measure and print one line a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--part", choices=["validate", "scan"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        start = time.perf_counter()
        (validate_all if args.part == "validate" else plain_scan)(args.folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": time.perf_counter() - start, "peak_mb": peak}))
        return
    print("generated rows | validate s | rows/s | peak MB | plain DuckDB scan s | peak MB | times the scan")
    for rows in args.rows:
        with tempfile.TemporaryDirectory(prefix="homeranker-bench-") as name:
            per_day = rows // DAYS
            params = GenerateParams(days=DAYS, rows_per_day=per_day, users=max(per_day // 20, 10), items=20_000)
            folder = generate_tables(Path(name), params)
            scan, whole = measured("scan", folder), measured("validate", folder)
            print(
                f"{rows:>14,} | {whole['seconds']:10.1f} | {rows / whole['seconds']:,.0f} | {whole['peak_mb']:.0f}"
                f" | {scan['seconds']:.1f} | {scan['peak_mb']:.0f} | {whole['seconds'] / scan['seconds']:.1f}"
            )


if __name__ == "__main__":
    finish(main)
