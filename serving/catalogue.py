"""Catalogue changes over HTTP: durable patches on top of the items that came with the model.

Choices. A patch keeps only the fields that were given, merged field by field, so that a later model's catalogue still
shows through where nothing was said. Each change gets the next number; a worker asks for what is newer than what it
has. A new item without `listed_at` counts as listed when the catalogue was first told of it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from features.schema import Items
from models.items import ItemRow, ItemTable
from serving.contract import ItemRowIn
from serving.event_log import EventLog, encode

FIRST_TOLD = "_first_told_us"


@dataclass(frozen=True)
class Patch:
    """What was put of one item."""

    item_id: str
    fields: dict[str, Any]
    seq: int


def put(log: EventLog, rows: Sequence[ItemRowIn], now_us: int) -> Future[int]:
    """Store the fields that each row names; the future ends after the fsync with the last change's number."""
    given = [(row.item_id, row.model_dump(include=row.model_fields_set - {Items.ITEM_ID})) for row in rows]

    def job(connection: sqlite3.Connection) -> int:
        (seq,) = connection.execute("SELECT COALESCE(MAX(seq), 0) FROM items").fetchone()
        for item_id, fields in given:
            seq += 1
            old = connection.execute("SELECT row FROM items WHERE item_id = ?", (item_id,)).fetchone()
            row = {FIRST_TOLD: now_us, **(json.loads(old[0]) if old else {}), **fields}
            connection.execute("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", (item_id, seq, encode(row)))
        return int(seq)

    return log.store.submit(job)


def changes(log: EventLog, since: int) -> list[Patch]:
    """Patches newer than a number, oldest first."""
    rows = log.store.read("SELECT item_id, row, seq FROM items WHERE seq > ? ORDER BY seq", (since,))
    return [Patch(item_id, json.loads(row), seq) for item_id, row, seq in rows]


def patched(table: ItemTable, patch: Patch) -> ItemRow:
    """The item's row with the patch on it; a new row where the table does not know the item."""
    at = table.index.get(patch.item_id)
    base = table.row(at) if at is not None else ItemRow(patch.item_id, listed_at_us=patch.fields.get(FIRST_TOLD, 0))
    fields = {name: value for name, value in patch.fields.items() if name != FIRST_TOLD}
    if Items.LISTED_AT in fields:
        fields["listed_at_us"] = fields.pop(Items.LISTED_AT) or 0
    return replace(base, **fields)
