"""Erased users out of a run's data: what was erased since never becomes a training set again.

Choices. The data of the user's own directory is left as it is; the copy that a run reads is filtered, by the keyed
hashes that an erasure leaves behind. Rows of a user who came back after the erasure stay.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from features.schema import Events, Slates, Users
from features.tables import TableWriter, scan, table_files
from serving.erasure import NEVER_US, Erased
from serving.export import without_erased


def forget_erased(directory: Path, erased: Erased) -> int:
    """Rewrite the tables of `directory` that hold rows of erased users; returns the rows that left."""
    gone = 0
    if not erased:
        return gone
    for table in (Events.TABLE, Slates.TABLE):
        dropped = [0]
        if table_files(directory, table):
            batches = [without_erased(batch, table, erased, dropped) for batch in scan(directory, table)]
            if dropped[0]:
                _replace(directory, table, batches)
        gone += dropped[0]
    if table_files(directory, Users.TABLE):
        kept = [_known(batch, erased) for batch in scan(directory, Users.TABLE)]
        _replace(directory, Users.TABLE, kept)
    return gone


def _known(rows: pa.Table, erased: Erased) -> pa.Table:
    keep = [erased.until_us(user, None) == NEVER_US for user in rows[Users.USER_ID].to_pylist()]
    return rows.filter(pa.array(keep, pa.bool_()))


def _replace(directory: Path, table: str, batches: list[pa.Table]) -> None:
    with TableWriter(directory, table) as writer:
        for batch in batches:
            writer.write(batch)
        writer.close()
    (directory / "_manifest.json").unlink(missing_ok=True)  # of the bytes before
