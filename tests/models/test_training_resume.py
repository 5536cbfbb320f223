"""Training survives being killed, to the byte; it stops on a loss that is no number; it keeps its best epoch."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from features.errors import TrainingError
from models import ranker
from models.training import LoopParams, fit

HERE = Path(__file__).parent
SCRIPT = HERE / "killed_training.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("killed_training", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["ranker", "sequence"])
def test_killed_at_any_moment_and_started_again_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), name, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    cases = json.loads(done.stdout)["cases"]
    whole = cases.pop("uninterrupted")
    assert len(cases) == 8 and len(whole["train_loss"]) == 4
    assert {case: told for case, told in cases.items() if told != whole} == {}


def test_a_crash_between_two_renames_leaves_an_older_epoch_to_start_from(script: Any, tmp_path: Path) -> None:
    expected = script.answer(*script.train("ranker", None))
    stops = iter([False, False, True])

    def stop(*_: object) -> None:
        if next(stops):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        script.train("ranker", tmp_path, stop)
    (tmp_path / "epoch").rename(tmp_path / "old-again")
    half = tmp_path / "new-999"
    half.mkdir()
    (half / "net.safetensors").write_bytes(b"half a fi")
    assert json.loads((tmp_path / "old" / "curves.json").read_text())["epoch"] == 2
    assert script.answer(*script.train("ranker", tmp_path)) == expected


def test_a_finished_training_is_not_done_twice(script: Any, tmp_path: Path) -> None:
    first = script.answer(*script.train("ranker", tmp_path))
    told: list[int] = []
    again = script.answer(*script.train("ranker", tmp_path, lambda _name, epoch, _epochs, _figures: told.append(epoch)))
    assert again == first and told == []


def linear(slope: float = 1.0, rows: int = 64) -> tuple[torch.nn.Linear, Any]:
    """A network of one weight, and its data."""
    torch.manual_seed(0)
    x = torch.randn(rows, 1, generator=torch.Generator().manual_seed(1))

    def batches(_epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield from zip(x.split(8), (slope * x).split(8), strict=True)

    return torch.nn.Linear(1, 1), batches


def squared(net: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    loss: torch.Tensor = ((net(batch[0]) - batch[1]) ** 2).mean()
    return loss


@pytest.mark.parametrize("changed", ["data", "rate", "length", "seed"])
def test_a_checkpoint_of_another_training_is_not_taken_up(changed: str, tmp_path: Path) -> None:
    net, batches = linear()
    fit(net, batches, squared, LoopParams(epochs=3), name="toy", steps_per_epoch=8, checkpoints=tmp_path)
    other, more = linear(slope=2.0 if changed == "data" else 1.0)
    params = LoopParams(epochs=3, learning_rate=1e-2 if changed == "rate" else 2e-3)
    length, seed = 2 if changed == "length" else None, 5 if changed == "seed" else 0
    told: list[int] = []
    fit(
        other, more, squared, params, name="toy", steps_per_epoch=8, checkpoints=tmp_path, stop_after=length, seed=seed,
        progress=lambda _name, epoch, _epochs, _figures: told.append(epoch),
    )  # fmt: skip
    assert told == list(range(1, (length or 3) + 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_what_to_do_and_offers_no_result(value: float, tmp_path: Path) -> None:
    net, batches = linear()
    with pytest.raises(TrainingError, match=r"toy: the loss is (nan|inf) in epoch 1, step 1; .*learning_rate"):
        fit(
            net, batches, lambda net, batch: squared(net, batch) * value, LoopParams(), name="toy", steps_per_epoch=8,
            checkpoints=tmp_path,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_an_exploding_loss_stops_and_the_bad_epoch_is_not_kept(tmp_path: Path) -> None:
    net, batches = linear()
    epochs = iter(range(100))

    def exploding(net: torch.nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return squared(net, batch) + (1e4 if next(epochs) >= 16 else 1.0)  # 8 steps an epoch: from the third on

    with pytest.raises(TrainingError, match=r"the loss exploded in epoch 3 .*lower learning_rate"):
        fit(net, batches, exploding, LoopParams(), name="toy", steps_per_epoch=8, checkpoints=tmp_path)
    told = json.loads((tmp_path / "epoch" / "curves.json").read_text())
    assert told["epoch"] == 2 and len(told["train_loss"]) == 2


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_ranker_whose_features_are_infinite_is_no_result() -> None:
    x_NKF = np.ones((4, 3, 2), dtype=np.float32)
    x_NKF[0, 0, 0] = np.inf
    lists = ranker.Lists(x_NKF, np.eye(4, 3, dtype=np.float32), np.ones((4, 3), dtype=bool))
    with pytest.raises(TrainingError, match="ranker: the loss is nan in epoch 1"):
        ranker.train(lists, ranker.RankerParams(hidden=(4,), cross_rank=2))


def test_nothing_to_learn_from_is_said() -> None:
    lists = ranker.Lists(np.ones((4, 3, 2), np.float32), np.zeros((4, 3), np.float32), np.ones((4, 3), dtype=bool))
    with pytest.raises(TrainingError, match="ranker: no batch to learn from; the training window holds no usable"):
        ranker.train(lists, ranker.RankerParams(hidden=(4,), cross_rank=2))


def test_early_stopping_puts_the_best_weights_back() -> None:
    net, batches = linear()
    values, seen = iter([0.1, 0.5, 0.3, 0.2, 0.9]), []

    def validate(net: torch.nn.Module) -> float:
        seen.append([value.clone() for value in net.state_dict().values()])
        return next(values)

    curves = fit(
        net, batches, squared, LoopParams(epochs=9, patience=2), name="toy", steps_per_epoch=8, validate=validate
    )
    assert curves.validation == [0.1, 0.5, 0.3, 0.2] and curves.best_epoch == 2 and curves.stopped_early
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), seen[1], strict=True))
    assert not net.training


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_the_learning_rate_follows_one_schedule_over_a_restart(stop: int, tmp_path: Path) -> None:
    rates: list[list[float]] = [[], []]

    def recording(at: int) -> Any:
        def step(optimizer: torch.optim.Optimizer, *_: object) -> None:
            rates[at].append(optimizer.param_groups[0]["lr"])

        return step

    def go(at: int, place: Path | None, epochs_to_run: int) -> None:
        net, batches = linear()
        hook = register_optimizer_step_pre_hook(recording(at))

        def interrupt(_name: str, epoch: int, _epochs: int, _figures: dict[str, float]) -> None:
            if epoch == epochs_to_run:
                raise KeyboardInterrupt

        try:
            fit(
                net, batches, squared, LoopParams(epochs=4), name="toy", steps_per_epoch=8, checkpoints=place,
                progress=interrupt,
            )  # fmt: skip
        except KeyboardInterrupt:
            assert epochs_to_run < 9
        finally:
            hook.remove()

    go(0, None, 9)
    go(1, tmp_path, stop)
    go(1, tmp_path, 9)
    assert rates[0] == rates[1] and len(rates[0]) == 32
    assert max(rates[0]) == pytest.approx(2e-3) and rates[0][0] < max(rates[0]) > rates[0][-1]


def test_a_refit_of_fewer_epochs_walks_the_same_first_steps() -> None:
    long, short = linear()[0], linear()[0]
    weights: list[list[float]] = []
    fit(
        long, linear()[1], squared, LoopParams(epochs=4), name="toy", steps_per_epoch=8,
        progress=lambda *_: weights.append(long.weight.flatten().tolist()),
    )  # fmt: skip
    fit(short, linear()[1], squared, LoopParams(epochs=4), name="toy", steps_per_epoch=8, stop_after=2)
    assert short.weight.flatten().tolist() == weights[1]
