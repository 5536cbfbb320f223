"""The search: starts from params.yaml, survives what breaks, goes on after a kill, changes a file only if asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from features.errors import TrainingError, UsageError
from features.tables import write_rows
from flows import config, runs, tune
from flows.commands.tune import tune as command
from flows.paths import Home
from flows.tune_space import as_sections, changed, current
from models.recipe import TrainParams
from tests.models.conftest import events_table, items_table

PARAMS = """# kept
data: {}
split: {tune_days: 12, gate_days: 12}
train:
  threads: 1
  tune_users: 40
  examples: {places: 60, cuts: 1, tune_cuts: 1}
  ranker: {hidden: [32], cross_rank: 4, loop: {epochs: 3}}
gate: {}  # kept, too
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A repository with its own params.yaml, and a home."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    for module in (runs, tune):
        monkeypatch.setattr(module, "REPOSITORY", tmp_path)
    monkeypatch.setattr("flows.paths.REPOSITORY", tmp_path)
    monkeypatch.setenv("HOMERANKER_HOME", str(tmp_path / "home"))
    return Home.from_environment()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    write_rows(place, "events", [events_table(users=80)])
    write_rows(place, "items", [items_table()])
    return place


def search(home: Home, data: Path, trials: int) -> tune.Found:
    return tune.search(home, "ranker", str(data), trials, None, lambda _line: None)


def test_a_search_goes_on_where_it_was_killed_and_records_what_failed(
    home: Home, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = search(home, data, 2)
    assert [one["state"] for one in found.trials] == ["complete", "complete"]
    assert {one["trial"]: one["params"]["hidden"] for one in found.trials}[0] == "32"  # what params.yaml says
    study = optuna.load_study(study_name=found.name, storage=f"sqlite:///{found.storage}")
    study.ask()  # a process that was killed inside a trial leaves this behind

    def explode(*_args: object, **_kwargs: object) -> None:
        raise TrainingError("the loss exploded")

    with monkeypatch.context() as broken:
        broken.setattr(tune.ranker, "train", explode)
        found = search(home, data, 4)
    errors = {one["trial"]: one["error"] for one in found.trials if one["state"] == "fail"}
    assert errors == {2: "its process was ended", 3: "TrainingError: the loss exploded"}
    assert search(home, data, 4).trials == found.trials  # holds as many as it should: nothing is tried again
    states = [trial.state for trial in optuna.load_study(study_name=found.name, storage=study._storage).trials]
    assert TrialState.RUNNING not in states
    assert found.picture.stat().st_size > 5000


@pytest.mark.slow
def test_the_change_is_shown_and_written_only_where_asked(
    home: Home, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(4, None, str(data), "ranker", False, True)
    told = json.loads(capsys.readouterr().out)
    assert (tmp_path / "params.yaml").read_text() == PARAMS
    assert not told["applied"]
    if not told["change"]:
        pytest.skip("nothing beat params.yaml in four trials")
    assert "+++ params.yaml (tuned)" in told["diff"]
    command(4, None, str(data), "ranker", True, False)
    written = (tmp_path / "params.yaml").read_text()
    assert "# kept\n" in written and "gate: {}  # kept, too" in written
    assert config.load(tmp_path / "params.yaml").train.ranker != TrainParams().ranker
    assert "written; commit it and retrain" in capsys.readouterr().out


def test_other_data_is_another_study(home: Home, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(data, other)
    write_rows(other, "events", [events_table(users=60)])
    assert tune.prepare(home, str(data)).mark != tune.prepare(home, str(other)).mark


def test_a_change_of_one_rate_keeps_the_other_values_of_its_loop() -> None:
    params = TrainParams()
    best = current("sequence", params) | {"loop.learning_rate": 0.00912345, "encoder": "gru"}
    sections = as_sections("sequence", best, params)
    assert sections["sequence"]["encoder"] == "gru" and "dim" not in sections["sequence"]
    merged = config.parse(yaml.safe_load(changed(PARAMS, sections)))
    assert merged.train.sequence.loop.learning_rate == pytest.approx(0.009123)
    assert merged.train.sequence.loop.epochs == params.sequence.loop.epochs
    assert merged.train.sequence.dim == params.sequence.dim
    assert merged.train.threads == 1
    assert changed(PARAMS, {}) == PARAMS


def test_wrong_words_are_told(home: Home, data: Path) -> None:
    with pytest.raises(UsageError, match="--part magic: one of ranker, sequence"):
        tune.search(home, "magic", str(data), 1, None, print)
    with pytest.raises(UsageError, match="at least 1"):
        search(home, data, 0)
