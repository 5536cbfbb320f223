"""The two training stages."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

from flows.paths import Artifacts
from flows.stages import load
from flows.stages.progress import tell
from models import recipe
from models.sequence import load_model, save_model
from models.yardsticks import fit_lightgbm

A = Artifacts()
EARLY, LATE, TREES = "early", "late", "trees.txt"


def _progress(name: str, epoch: int, epochs: int, figures: dict[str, float]) -> None:
    tell(f"{name} epoch", epoch, epochs, figures)


def _lists(done: int, total: int) -> None:
    tell("training lists", done, total)


def train_sequence() -> None:
    """The sequence network, twice: for the training features, and for judging and shipping."""
    load.fix_bytes()
    table = load.items()
    settings = load.params().train
    place = load.checkpoints("sequence", dataclasses.asdict(settings), load.digest_of(A.clean / "events.parquet"))
    found = recipe.train_sequences(load.log(table), table, load.times(), settings, place, _progress)
    A.sequence.mkdir(parents=True, exist_ok=True)
    for name, model in ((EARLY, found.early), (LATE, found.late)):
        if model is not None:
            save_model(model, A.sequence / name)
    load.write_json(A.sequence / "curves.json", found.curves.to_json() | {"fusion": found.fusion})


def train_ranker() -> None:
    """Tune, refit up to the cut, fit the trees beside it, refresh what ships."""
    load.fix_bytes()
    table = load.items()
    actions, times, settings = load.log(table), load.times(), load.params().train
    states = load.states(actions, table)
    place = load.checkpoints(
        "ranker", dataclasses.asdict(settings), load.digest_of(A.features), load.digest_of(A.sequence)
    )
    early, late = (load_model(A.sequence / name) for name in (EARLY, LATE))
    tuned = recipe.tune(actions, table, times, states, early, settings, place / "tune", _progress, _lists)
    lists = recipe.gate_lists(actions, table, times, states, early, settings, _lists)
    # The trees' threads and the network's leave each other idle cores; each is deterministic by itself.
    with ThreadPoolExecutor(1) as beside:
        growing = beside.submit(fit_lightgbm, lists, settings.threads)
        judged, curves = recipe.refit(actions, table, times, lists, late, tuned, settings, place / "refit", _progress)
        trees = growing.result()
    judged.save(A.model / "judged")
    (A.model / TREES).write_text(trees.model_to_string())
    recipe.refresh(judged, actions, table, times.end_us).save(A.model / "final")
    told = {"tune": tuned[0].to_json(), "refit": curves.to_json(), "calibration": dataclasses.asdict(tuned[1])}
    load.write_json(A.model / "curves.json", told)
