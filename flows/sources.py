"""Where a run's data comes from: the names that `--data` knows, and any source as canonical tables.

Choices. A name stands for a format and a path that DVC can watch. Of the simulated shop that path is the generator
itself: the data is the code and its parameters (section `simulator` of params.yaml), so nothing is stored. The Open
Bandit Dataset may not ship; it is read from a folder that the user unpacked.
"""

from __future__ import annotations

from pathlib import Path

from features.errors import UsageError
from features.importers import ImportReport, import_data
from features.importers.base import TableCount
from models.simulator import SimulatorParams, generate

ONLINE_RETAIL, SIMULATED, OPEN_BANDIT = "online-retail", "simulated", "open-bandit"
NAMED_DATA = {
    ONLINE_RETAIL: (ONLINE_RETAIL, "data/online_retail.parquet"),
    SIMULATED: (SIMULATED, "models/simulator"),
}
FETCHED = Path("data/open_bandit")  # never committed, so a run gets a copy of its tables


def place_of(name: str, root: Path) -> tuple[str, Path]:
    """(format, file or folder) of a name whose data stands below `root`."""
    format, path = NAMED_DATA[name]
    return format, root / path


def open_bandit_tables(root: Path, dest: Path) -> Path:
    """The Open Bandit Dataset as canonical tables at `dest`; UsageError says how to fetch it."""
    if not (root / FETCHED).exists():
        raise UsageError(
            f"--data {OPEN_BANDIT}: {root / FETCHED} is missing; put obp/dataset/obd of the wheel that `pip download "
            "--no-deps obp==0.4.1` fetches there"
        )
    import_data(OPEN_BANDIT, root / FETCHED, dest)
    return dest


def make_tables(format: str, source: Path, simulator: SimulatorParams, dest: Path) -> ImportReport:
    """Canonical tables at `dest` from any source; the simulated ones are generated, every other one is imported."""
    if format != SIMULATED:
        return import_data(format, source, dest)
    written = generate(simulator, dest)
    counts = {table: TableCount(one.rows_in, one.rows_out, one.merged) for table, one in written.items()}
    return ImportReport(SIMULATED, source.name, counts)
