"""What several stages read: parameters, the log as arrays, windows, histories, networks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.bulk import ends
from features.errors import ArtifactError
from features.history import History, history_row
from features.schema import Events, Items, ItemVectors, Slates
from features.split import SplitParams, for_young_pages, make_windows
from flows import config
from flows.paths import CHAMPION_INPUT, Artifacts, Home
from models import checkpoint
from models.examples import States
from models.history import UserState
from models.homepage import HomepageModel, utc
from models.items import ItemTable
from models.log import ActionLog
from models.recipe import Times
from models.training import deterministic, fingerprint
from models.vectors import read_vectors

A = Artifacts()
CUT = "cut_us"


@lru_cache(maxsize=1)
def params() -> config.Params:
    """params.yaml of the working directory."""
    return config.load(Path("params.yaml"))


def read_json(path: Path) -> Any:
    """A JSON artifact; ArtifactError says which stage to run."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error}); run `dvc repro` for the stage that writes it"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Stable JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(path, value)


def items() -> ItemTable:
    """The clean catalogue, with the vectors that other models gave its items."""
    table = ItemTable.from_arrow(pq.read_table(A.clean / f"{Items.TABLE}.parquet"))
    vectors = A.clean / f"{ItemVectors.TABLE}.parquet"
    return (
        dataclasses.replace(table, vectors=read_vectors(pq.read_table(vectors), table)) if vectors.exists() else table
    )


def clean_events() -> pa.Table:
    """Clean events, sorted by time."""
    return pq.read_table(A.clean / f"{Events.TABLE}.parquet")


def clean_slates() -> pa.Table | None:
    """Clean slates, None where the shop has none."""
    path = A.clean / f"{Slates.TABLE}.parquet"
    return pq.read_table(path) if path.exists() else None


def log(table: ItemTable) -> ActionLog:
    """The clean events as arrays, with what pages showed."""
    return ActionLog.from_arrow(clean_events(), table.index, len(table), clean_slates())


def times() -> Times:
    """The windows that the history stage chose."""
    told = read_json(A.features / "windows.json")
    return Times(told["start_us"], told["tune_cut_us"], told["gate_cut_us"], told["end_us"])


def choose_times(actions: ActionLog, split: SplitParams, slates: pa.Table | None = None) -> Times:
    """The windows of a log's bulk. A cut lies a gap before its slice: histories end there, labels begin with the slice.

    Strays before it are learned from, as all that lies before a cut; those after it are not: a model that believes to
    stand there would find every other event old.
    """
    first_us, last_us, until_us = ends(actions.time_us)
    first, last = (datetime.fromtimestamp(at / 1e6, UTC) for at in (first_us, last_us))
    if slates is not None:
        pages = [page for page in _drawn_pages(slates) if first.date() <= page.date() <= last.date()]
        split = for_young_pages(first, last, pages, split)
    windows = make_windows(first, last, split)
    start_us, tune_cut_us, gate_cut_us, end_us = (
        round(moment.timestamp() * 1e6)
        for moment in (windows.train.start, windows.train.end, windows.tune.end, windows.gate.end)
    )
    return Times(start_us, tune_cut_us, gate_cut_us, end_us + until_us - last_us)


def _drawn_pages(slates: pa.Table) -> list[datetime]:
    """When each page with a slot that was drawn was served, sorted."""
    drawn = slates.filter(pc.and_(pc.greater(slates[Slates.PROPENSITY], 0), pc.less(slates[Slates.PROPENSITY], 1)))
    pages = drawn.group_by(Slates.REQUEST_ID).aggregate([(Slates.SERVED_AT, "min")])
    return sorted(pages[f"{Slates.SERVED_AT}_min"].to_pylist())


def states(actions: ActionLog, table: ItemTable) -> States:
    """Histories as the point-in-time join gave them."""
    rows = pq.read_table(A.features / "training.parquet")

    def at(cut_us: int, users: Sequence[int]) -> dict[int, UserState]:
        mine = rows.filter(pc.equal(rows[CUT], cut_us))
        code = {name: at for at, name in enumerate(actions.user_ids)}
        asked = set(users)
        found: dict[int, UserState] = {}
        for batch in mine.to_batches(max_chunksize=256):
            for row in batch.to_pylist():
                user = code.get(row[History.USER_ID])
                if user in asked and row[History.LAST_TIME] is not None:
                    found[user] = UserState.build(history_row(row), [], table.index)
        return found

    return at


def checkpoints(*parts: Any) -> Path:
    """Where a training that these parts decide keeps its epochs."""
    return Home.from_environment().checkpoints / fingerprint(*parts)


def fix_bytes() -> None:
    """Threads and deterministic algorithms, from the parameters."""
    deterministic(params().train.threads, 0)


def digest_of(directory: Path) -> str:
    """One hash over the names and contents of a directory's files (or of one file)."""
    files = [directory] if directory.is_file() else sorted(path for path in directory.rglob("*") if path.is_file())
    return fingerprint([(path.relative_to(directory).as_posix(), checkpoint.sha256_of(path)) for path in files])


def champion(cut_us: int) -> tuple[HomepageModel | None, dict[str, Any] | None, str]:
    """The champion as it was judged, what it is, and why it cannot be scored where it cannot."""
    told = CHAMPION_INPUT / "champion.json"
    if not told.exists():
        return None, None, ""
    about = read_json(told)
    try:
        found = HomepageModel.load(CHAMPION_INPUT / "judged")
    except ArtifactError as error:
        return None, about, f"the champion {about['version']} does not load in this code: {error}"
    if found.trained_until_us > cut_us:
        return None, about, f"the champion saw events of the gate slice (its cut is {utc(found.trained_until_us)})"
    return found, about, ""
