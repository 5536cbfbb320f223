"""Parquet files as DuckDB reads them, times in nanoseconds cut to microseconds.

Choices. pandas writes `timestamp[ns, UTC]`, for which DuckDB has a type of its own that hardly a function takes, and
whose cast rounds: the last instant of a day would become the first of the next, in another partition than its file's.
So such columns, unknown ones too, are cut, as `conform` cuts them in Arrow; the same file then says the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from features.schema import TIMESTAMP

NANOSECONDS = "TIMESTAMPTZ_NS"


def read_files(con: Any, files: Sequence[Path], options: str = "") -> str:
    """SQL of all rows of `files`, columns joined by name; `options` more of `read_parquet`."""
    names = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
    source = f"read_parquet([{names}], union_by_name = true, hive_partitioning = false{options})"
    described = con.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()  # noqa: S608 - paths are quoted
    fine = ['"' + name.replace('"', '""') + '"' for name, kind, *_ in described if kind == NANOSECONDS]
    cut = ", ".join(f"CAST(make_timestamp(epoch_ns({name}) // 1000) AS TIMESTAMPTZ) AS {name}" for name in fine)
    return f"SELECT *{f' REPLACE ({cut})' if cut else ''} FROM {source}"  # noqa: S608 - names are quoted


def same_unit(schema: pa.Schema) -> pa.Schema:
    """The schema with all times that have a zone in microseconds of UTC: a unit is no disagreement between files."""
    fields = [field.with_type(TIMESTAMP) if getattr(field.type, "tz", None) else field for field in schema]
    return pa.schema(fields)
