"""Is anything left to learn from after cleaning? If not, what took it: no consent, unknown items, a cut too early."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.cleaning import CleaningReport
from features.errors import TrainingError
from features.schema import Events, Users
from features.tables import scan
from features.transforms import NO_CONSENT
from models.history import TYPE_CODE, TYPE_WEIGHT

CURES = {NO_CONSENT: f"for want of consent (users.{Users.PERSONALIZATION_CONSENT} is false)"}


def require_actions(report: CleaningReport, tables: Path, clean: Path, until: str | None = None) -> None:
    """TrainingError, with the numbers of what was left out, where no clean event says what somebody wanted.

    `tables` are the tables before cleaning; `until` the day of --until, inclusive.
    """
    kinds = pq.read_table(clean / f"{Events.TABLE}.parquet", columns=[Events.EVENT_TYPE])[Events.EVENT_TYPE]
    if any(TYPE_WEIGHT[TYPE_CODE[kind]] > 0 for kind in pc.unique(kinds).to_pylist()):
        return
    count = report.tables[Events.TABLE]
    said = [f"{rows:,} left out {CURES.get(why, f'({why})')}" for why, rows in count.quarantined.items()]
    if count.merged:
        said.append(f"{count.merged:,} merged as retries")
    if count.after_until:
        first, last = _days(tables)
        said.append(
            f"{count.after_until:,} later than --until {until} (the data runs from {first} to {last}: choose a later"
            " day)"
        )
    if count.rows_out:
        said.append(f"{count.rows_out:,} searches, returns and the like")
    raise TrainingError(
        "no view, click, cart or purchase of a known item is left to learn from: of"
        f" {count.rows_in:,} events {'; '.join(said) or 'none is there'}. See homeranker validate DIR"
    )


def _days(tables: Path) -> tuple[str, str]:
    """The first and the last day of the events."""
    bounds = [pc.min_max(batch[Events.EVENT_TIME]) for batch in scan(tables, Events.TABLE) if batch.num_rows]
    first, last = min(bound["min"].as_py() for bound in bounds), max(bound["max"].as_py() for bound in bounds)
    return str(first)[:10], str(last)[:10]
