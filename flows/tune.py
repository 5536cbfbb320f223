"""The search for better parameters: Optuna over the tune slice, resumable, one diff at the end.

Choices. Only the tune slice judges; the gate's slice is never read, so what is found here still has to pass a gate
that it could not learn. The first trial is what params.yaml says now: a gain is a paired difference to it on the same
users, told with its interval and with the warning that the best of many looks better than it is. A study belongs to
its data, split and fixed parameters; `trials` is how many it holds in the end, so the same command after a kill goes
on. A trial that raises is recorded with its error. TPE proposes; a trial below the median of the others is pruned.
Source: Akiba et al., 2019 (Optuna); Watanabe et al., 2023 (PED-ANOVA importance, which needs no further library).
"""

from __future__ import annotations

import dataclasses
import difflib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow.parquet as pq
from optuna.trial import FrozenTrial, Trial, TrialState

from features.cleaning import clean
from features.errors import HomerankerError, UsageError
from features.importers import import_data
from features.schema import Events, Items
from flows import config, runs, workspace
from flows.forget import forget_erased
from flows.paths import REPOSITORY, Home
from flows.registry import held
from flows.stages.leftover import require_actions
from flows.stages.load import choose_times
from flows.tune_space import as_sections, changed, current, suggest_ranker, suggest_sequence
from models import ranker, recipe
from models.examples import states_from_log
from models.items import ItemTable
from models.log import ActionLog
from models.metrics import Estimate, estimate
from models.recipe import Times, TrainParams, Tuning
from models.training import deterministic, fingerprint
from serving.erasure import Erased

PARTS = ("ranker", "sequence")
VALUES, ERROR = "values", "error"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Clean data and its windows; `mark` names everything that decides a trial's value besides its own choices."""

    log: ActionLog
    items: ItemTable
    times: Times
    params: TrainParams
    mark: str


@dataclasses.dataclass(frozen=True)
class Found:
    """What a study knows: (values by path, outcome, value) of every trial, best first; importance; the change."""

    name: str
    trials: list[dict[str, Any]]
    importance: dict[str, float]
    gain: Estimate | None  # best minus what params.yaml says, by user
    change: dict[str, Any]
    diff: str
    picture: Path
    storage: Path


def prepare(home: Home, data: str) -> Prepared:
    """Import and clean once for each content of the data; erased users are left out."""
    params, source, _ = runs.resolve(runs.Request(data))
    settings = config.parse(params)
    erased = Erased.read(home.root)
    mark = fingerprint(
        workspace.hash_files(source), erased.fingerprint(), dataclasses.asdict(settings.cleaning),
        dataclasses.asdict(settings.split), dataclasses.asdict(settings.train),
    )  # fmt: skip
    place = home.root / "tune" / "data" / mark
    if not (place / "clean").exists():
        shutil.rmtree(place, ignore_errors=True)
        import_data(settings.data.format, source, place / "tables")
        forget_erased(place / "tables", erased)
        report = clean(place / "tables", place / "cleaning", settings.cleaning)
        require_actions(report, place / "tables", place / "cleaning")
        shutil.rmtree(place / "tables")
        (place / "cleaning").rename(place / "clean")
    items = ItemTable.from_arrow(pq.read_table(place / "clean" / f"{Items.TABLE}.parquet"))
    events = pq.read_table(place / "clean" / f"{Events.TABLE}.parquet")
    log = ActionLog.from_arrow(events, items.index, len(items))
    return Prepared(log, items, choose_times(log, settings.split), settings.train, mark)


def objective(part: str, ready: Prepared, place: Path) -> Callable[[Trial], float]:
    """Trial -> NDCG@10 on the tune slice."""
    states = states_from_log(ready.log)
    if part == "sequence":
        return lambda trial: _try_sequence(trial, ready)
    tuning = Tuning.prepare(ready.log, ready.items, ready.times, states, None, ready.params)
    if not tuning.held.users:
        raise HomerankerError("the tune slice has no user with a history and a visit: nothing can be tuned on it")

    def value(trial: Trial) -> float:
        best: list[np.ndarray] = []

        def judged(net: ranker.RankerNet) -> float:
            values_N = tuning.values(net)
            if not best or values_N.mean() >= best[-1].mean():
                best.append(values_N)
            trial.report(float(values_N.mean()), len(trial.storage.get_trial(trial._trial_id).intermediate_values))
            if trial.should_prune():
                raise optuna.TrialPruned
            return float(values_N.mean())

        ranker.train(tuning.lists, suggest_ranker(trial, ready.params.ranker), validate=judged)
        np.save(place / f"{VALUES}-{trial.number}.npy", best[-1])
        return float(best[-1].mean())

    return value


def _try_sequence(trial: Trial, ready: Prepared) -> float:
    """NDCG@10 of counting beside the best weight of the network, on the visits that `train_sequences` looks at."""
    params = dataclasses.replace(ready.params, sequence=suggest_sequence(trial, ready.params.sequence))
    found = recipe.train_sequences(ready.log, ready.items, ready.times, params, None)
    if not found.fusion:
        raise HomerankerError("too few sequences before the earliest cut to train a network")
    return max(found.fusion.values())


def search(home: Home, part: str, data: str, trials: int, timeout_s: float | None, say: Say) -> Found:
    """Hold until the study has `trials` trials or the time is over; then tell."""
    if part not in PARTS:
        raise UsageError(f"--part {part}: one of {', '.join(PARTS)}")
    if trials < 1:
        raise UsageError("--trials must be at least 1")
    folder = home.root / "tune"
    with held(folder / "lock", "a search"):
        say("reading and cleaning the data")
        ready = prepare(home, data)
        name = f"{part}-{ready.mark}"
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        storage = folder / "study.db"
        study = _study(storage, name, ready.params.ranker.seed)
        _bury(study)
        left = trials - len(study.trials)
        if not study.trials:
            study.enqueue_trial(current(part, ready.params), skip_if_exists=True)
        if left > 0:
            deterministic(ready.params.threads, 0)
            say("building the training lists" if part == "ranker" else "counting")
            value = objective(part, ready, place)
            began = time.monotonic()
            study.optimize(
                _recorded(value), n_trials=left, timeout=timeout_s, catch=(Exception,),
                callbacks=[lambda study, trial: say(_line(study, trial, trials, time.monotonic() - began))],
            )  # fmt: skip
        return _tell(study, part, ready, place, storage)


def _study(storage: Path, name: str, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=f"sqlite:///{storage}", study_name=name, direction="maximize", load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
    )  # fmt: skip
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=6)
    return study


def _bury(study: optuna.Study) -> None:
    """A trial that a killed process left behind is recorded as failed."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study._storage.set_trial_user_attr(trial._trial_id, ERROR, "its process was ended")
        study.tell(trial.number, state=TrialState.FAIL)


def _recorded(value: Callable[[Trial], float]) -> Callable[[Trial], float]:
    """The same; an error is written beside the trial before it is raised."""

    def tried(trial: Trial) -> float:
        try:
            return value(trial)
        except optuna.TrialPruned:
            raise
        except Exception as error:
            trial.set_user_attr(ERROR, f"{type(error).__name__}: {error}"[:500])
            raise

    return tried


def _line(study: optuna.Study, trial: FrozenTrial, trials: int, seconds: float) -> str:
    done = [one for one in study.trials if one.state == TrialState.COMPLETE]
    best = f", best {study.best_value:.4f} (trial {study.best_trial.number})" if done else ""
    told = f"{trial.value:.4f}" if trial.state == TrialState.COMPLETE and trial.value is not None else ""
    return f"[{seconds:6.1f} s] trial {trial.number + 1}/{trials} {trial.state.name.lower()} {told}{best}"


def _tell(study: optuna.Study, part: str, ready: Prepared, place: Path, storage: Path) -> Found:
    done = study.get_trials(states=(TrialState.COMPLETE,))
    order = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1, TrialState.FAIL: 2}
    told = [
        {"trial": one.number, "state": one.state.name.lower(), "value": one.value, "params": one.params,
         "error": one.user_attrs.get(ERROR)}
        for one in sorted(study.trials, key=lambda one: (order.get(one.state, 3), -(one.value or 0.0), one.number))
        if one.state in order
    ]  # fmt: skip
    importance: dict[str, float] = {}
    if len(done) >= 4:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        importance = {name: round(float(share), 4) for name, share in
                      optuna.importance.get_param_importances(study, evaluator=evaluator).items()}  # fmt: skip
    picture = place / "history.png"
    draw(study, picture)
    gain, change = None, {}
    if done and study.best_trial.number > 0:
        files = [place / f"{VALUES}-{number}.npy" for number in (study.best_trial.number, 0)]
        if all(file.exists() for file in files):
            gain = estimate(np.load(files[0]) - np.load(files[1]))
        change = as_sections(part, study.best_params, ready.params)
    text = (REPOSITORY / "params.yaml").read_text()
    diff = "".join(difflib.unified_diff(
        text.splitlines(True), changed(text, change).splitlines(True), "params.yaml", "params.yaml (tuned)",
    ))  # fmt: skip
    return Found(study.study_name, told, importance, gain, change, diff, picture, storage)


def draw(study: optuna.Study, path: Path) -> None:
    """Every trial's value, the pruned ones hollow, and the best so far."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    done = [one for one in study.trials if one.state == TrialState.COMPLETE]
    value = [one.value or 0.0 for one in done]
    axes.plot([t.number + 1 for t in done], value, "o", label="trial")
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED and t.intermediate_values]
    axes.plot([t.number + 1 for t in pruned], [max(t.intermediate_values.values()) for t in pruned], "o", mfc="none",
              color="grey", label="pruned")  # fmt: skip
    failed = [t.number + 1 for t in study.trials if t.state == TrialState.FAIL]
    for number in failed:
        axes.axvline(number, color="red", lw=0.8, ls=":")
    if done:
        axes.step([t.number + 1 for t in done], np.maximum.accumulate(value), where="post", label="best so far")
    axes.set(xlabel="trial (red: failed)", ylabel="NDCG@10, tune slice", title=study.study_name.split("-")[0])
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
