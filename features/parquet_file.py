"""One Parquet file with equal bytes for equal rows: fixed compression, row groups of one size, no time stamps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 65_536


class ParquetFile:
    """Takes rows in pieces of any size and writes them in row groups of one size, so that the pieces leave no trace."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(path, schema.remove_metadata(), compression="zstd")
        self._held: list[pa.Table] = []
        self._count = 0

    def add(self, rows: pa.Table) -> None:
        """Append rows of the file's schema."""
        self._held.append(rows.replace_schema_metadata(None))
        self._count += rows.num_rows
        while self._count >= ROW_GROUP:
            whole = pa.concat_tables(self._held)
            self._put(whole.slice(0, ROW_GROUP))
            self._held = [whole.slice(ROW_GROUP)]
            self._count -= ROW_GROUP

    def close(self) -> None:
        """Write what is held and the footer."""
        if self._held:
            self._put(pa.concat_tables(self._held))
        self._held = []
        self._writer.close()

    def _put(self, rows: pa.Table) -> None:
        self._writer.write_table(rows.combine_chunks(), row_group_size=ROW_GROUP)


def write_file(path: Path, schema: pa.Schema, batches: Iterable[pa.Table]) -> int:
    """Write `batches`, cast to `schema`, to `path` by way of a temporary name; the number of rows."""
    part = path.with_name(f".{path.name}.part")
    file, rows = ParquetFile(part, schema), 0
    try:
        for batch in batches:
            file.add(batch.cast(schema))
            rows += batch.num_rows
    except BaseException:
        file.close()
        part.unlink()
        raise
    file.close()
    part.rename(path)
    return rows
