"""The stages: each reads, calls one function of the core, and writes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.cleaning import clean
from features.engine import EngineConfig
from features.errors import TrainingError, UsageError
from features.expectations import validate
from features.history import History, user_history, with_tastes, write_history
from features.integrity import write_manifest
from features.schema import Events, Users
from features.transforms import NO_CONSENT
from features.validation import ReferenceProfile, raise_if_critical
from flows.paths import CHAMPION_INPUT, Artifacts
from flows.sources import make_tables
from flows.stages import load
from flows.stages.judging import evaluate, gate
from flows.stages.leftover import CURES, require_actions
from flows.stages.packaging import package
from flows.stages.policy import policy
from flows.stages.training import train_ranker, train_sequence
from models.examples import ExampleParams, next_visits
from models.homepage import utc
from models.log import ActionLog
from models.recipe import Times

A = Artifacts()


def _end_of_day(day: str | None) -> datetime | None:
    """A UTC date, inclusive -> the first moment after it."""
    if day is None:
        return None
    try:
        return datetime.combine(datetime.strptime(day, "%Y-%m-%d").date(), time(), UTC) + timedelta(days=1)
    except ValueError as error:
        raise UsageError(f"{day!r} is no date; write YYYY-MM-DD") from error


def _load_time() -> datetime | None:
    """The last moment of the day of loading, where that says something: rows after `until` are cut off, no future.

    The day and no clock, so that what a stage writes, and whether it runs again, does not hang on the hour.
    """
    data = load.params().data
    end = None if data.until is not None else _end_of_day(data.as_of)
    return None if end is None else end - timedelta(microseconds=1)


def import_tables() -> None:
    """Any source into canonical tables."""
    settings = load.params()
    report = make_tables(settings.data.format, Path(settings.data.path), settings.simulator, A.tables)
    write_manifest(A.tables)
    load.write_json(A.import_report, report.as_dict())


def validate_tables() -> None:
    """Great Expectations; a critical failure ends the run here.

    Canonical tables are judged as they were given: the import has already set bad rows aside, and would hide them.
    """
    settings = load.params()
    given = Path(settings.data.path) if settings.data.format == "canonical" else A.tables
    # The clock only says what is in the future: that stops the run, so no byte of one that goes on depends on it.
    now = datetime.now(UTC)
    report = validate(given, settings.validation, load_time=_load_time(), now=now, reference=_last_accepted())
    load.write_json(A.validation, json.loads(report.to_json()))
    raise_if_critical(report)


def _last_accepted() -> ReferenceProfile | None:
    path = CHAMPION_INPUT / "profile.json"
    return ReferenceProfile.from_json(path.read_text()) if path.exists() else None


def clean_tables() -> None:
    """Retries, bots, sessions, quarantine."""
    settings = load.params()
    until = settings.data.until
    day = None if until is None else (_end_of_day(until) or datetime.now(UTC)).date() - timedelta(days=1)
    report = clean(
        A.tables,
        A.clean,
        settings.cleaning,
        load_time=_load_time(),
        until=day,
        engine=EngineConfig(engine=settings.data.engine),
    )
    load.write_json(A.clean / "cleaning.json", report.as_dict())
    require_actions(report, A.tables, A.clean, until)


def build_history() -> None:
    """Windows, every user's history a day, and the point-in-time join for every cut that training asks for."""
    settings = load.params()
    table = load.items()
    actions = load.log(table)
    times = load.choose_times(actions, settings.split, load.clean_slates())
    left_out = load.read_json(A.clean / "cleaning.json")["tables"][Events.TABLE]["quarantined"]
    _need_returns(actions, times, settings.train.examples, left_out.get(NO_CONSENT, 0))
    A.features.mkdir(parents=True, exist_ok=True)
    load.write_json(A.features / "windows.json", dataclasses.asdict(times))
    examples = settings.train.examples
    asked = dict.fromkeys(times.tune_cuts(examples), times.tune_cut_us)
    asked |= dict.fromkeys(times.gate_cuts(examples), times.gate_cut_us)
    asked |= {times.tune_cut_us: times.gate_cut_us, times.gate_cut_us: times.end_us}
    history = user_history(load.clean_events().to_pandas(), settings.history, tuple(sorted(asked)))
    path = write_history(history, A.features / "history.parquet")
    pairs = [
        (actions.user_ids[user], cut)
        for cut, end in sorted(asked.items())
        for user in sorted(next_visits(actions, cut, end))
    ]
    _join(pairs, path)
    # Only now: training's joined states must not know what all of the log says.
    if tastes := actions.tastes(table, times.end_us):
        write_history(with_tastes(history, tastes), path)


def _need_returns(actions: ActionLog, times: Times, params: ExampleParams, refused: int = 0) -> None:
    """TrainingError where nobody comes back: there is no "what came next" to learn from or to be judged on.

    `refused`: events that were left out because their users did not agree to personalisation.
    """
    cut, cuts = times.tune_cut_us, times.tune_cuts(params)
    if any(next_visits(actions, one, cut) for one in cuts):
        return
    if refused:
        raise TrainingError(
            f"nobody to learn from: {refused:,} events were left out {CURES[NO_CONSENT]}, and of the "
            f"{len(actions.user_ids):,} other users none comes back before {utc(cut)}, so no ranker can be trained or"
            " judged. Correct the column where it is wrong (null counts as consent); where nobody agreed,"
            " `homeranker serve --fallback` serves without a model"
        )
    first = min(cuts)
    known = np.unique(actions.user[(actions.time_us < first) & ~actions.is_guest]).size
    since = actions.between(first, cut).time_us.size
    raise TrainingError(
        f"nobody to learn from: of {len(actions.user_ids):,} users with a user_id none comes back in time: {known:,} "
        f"came before {utc(first)}, and none of them again between half an hour later and {utc(cut)} (asked at "
        f"{len(cuts)} moments from the first of these on; {since:,} of {actions.time_us.size:,} actions lie between "
        "the two), so no ranker can be trained or judged. Where hardly any lie there, choose other slices "
        "(split.tune_start and split.gate_start in params.yaml). A log of anonymous single slots (as the Open Bandit "
        "Dataset) only tells whether off-policy estimators are right: `python -m benchmarks.ope --obd DIR`. To train, "
        "import events with a user_id over several days; to start with none, `homeranker serve --fallback` learns as "
        "it serves"
    )


def _join(pairs: list[tuple[str, int]], history: Path) -> None:
    """(user, cut) -> the state before the cut, by Feast's point-in-time join."""
    import tempfile

    import pandas as pd

    from features.store import training_rows
    from features.views import store_for

    users = [user for user, _ in pairs]
    cuts = [cut for _, cut in pairs]
    # An event at the cut itself is the future: the join counts states up to and including its time.
    moments = pd.to_datetime(pd.Series(cuts, dtype="int64") - 1, unit="us", utc=True)
    asked = pd.DataFrame({History.USER_ID: users, History.EVENT_TIMESTAMP: moments})
    with tempfile.TemporaryDirectory() as scratch:
        store = store_for(Path(scratch), offline_path=history)
        rows = training_rows(store, asked)
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.append_column(load.CUT, pa.array(cuts, pa.int64()))
    pq.write_table(table.replace_schema_metadata(None), A.features / "training.parquet", compression="zstd")


def no_consent() -> list[str]:
    """Users who did not agree to personalisation."""
    path = A.clean / f"{Users.TABLE}.parquet"
    if not path.exists():
        return []
    users = pq.read_table(path)
    told = users[Users.PERSONALIZATION_CONSENT].to_pylist()
    return [user for user, agreed in zip(users[Users.USER_ID].to_pylist(), told, strict=True) if agreed is False]


def report() -> None:
    """The reviewer's page, without seconds and memory: those are no part of a run's bytes."""
    from flows.report.build import write_report

    write_report(A, A.report)


def bento() -> None:
    """The Bento and the manifest."""
    package(no_consent())


RUN: dict[str, Callable[[], Any]] = {
    "import": import_tables,
    "validate": validate_tables,
    "clean": clean_tables,
    "history": build_history,
    "train_sequence": train_sequence,
    "train_ranker": train_ranker,
    "policy": policy,
    "evaluate": evaluate,
    "gate": gate,
    "package": bento,
    "report": report,
}
