"""Every source that can be read, by name, and the one call that reads it.

`import_data("ga4", src, dest)` writes the canonical tables and `quarantine` under `dest`, each replaced as a whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from features.errors import SourceError, UsageError
from features.importers import canonical, ga4, online_retail, open_bandit, personalize, segment
from features.importers.base import Importer, ImportReport, Sink
from features.schema import TABLES

FORMATS: dict[str, Importer] = {
    "canonical": canonical.IMPORTER,
    "personalize": personalize.IMPORTER,
    "ga4": ga4.IMPORTER,
    "segment": segment.IMPORTER,
    "open-bandit": open_bandit.IMPORTER,
    "online-retail": online_retail.IMPORTER,
}


def import_data(format: str, src: Path, dest: Path, *, pseudonym_key: bytes | None = None) -> ImportReport:
    """Read `src`, which is of `format`, into canonical tables at `dest`; the report counts every row.

    With `pseudonym_key`, user ids are replaced by a keyed HMAC-SHA256, in quarantined rows too. Raises UsageError for
    an unknown format, SourceError for a source that cannot be read, SchemaError for one that lacks a column.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}; one of {', '.join(FORMATS)}")
    if not src.exists():
        raise SourceError(f"{src}: no such file or directory")
    if src.resolve() == dest.resolve():
        raise UsageError(f"{src}: source and destination are the same directory; name another destination")
    importer = FORMATS[format]
    sink = Sink(dest, importer.user_fields, pseudonym_key)
    try:
        for batch in importer.read(src):
            sink.write(batch)
        sink.close_tables()
        for stale in set(TABLES) - set(sink.closed):  # of an earlier import
            shutil.rmtree(dest / stale, ignore_errors=True)
            (dest / f"{stale}.parquet").unlink(missing_ok=True)
        for batch in importer.derive(dest) if importer.derive else ():
            sink.write(batch)
        counts = sink.close()
    finally:
        sink.discard()
    return ImportReport(format, src.name, counts)


__all__ = ["FORMATS", "ImportReport", "import_data"]
