"""Trains a small network in processes that are killed with SIGKILL; run by test_training_resume.py, prints JSON.

    python killed_training.py ranker|sequence DIRECTORY

Every training runs in a process of its own, forked after the slow imports.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import ranker, sequence
from models.log import ActionLog
from models.training import Curves, LoopParams, deterministic, quiet

EPOCHS = 4
RANDOM_MOMENTS = 4
LOOP = LoopParams(epochs=EPOCHS, patience=9)
Progress = Callable[[str, int, int, dict[str, float]], None]


def ranker_lists() -> ranker.Lists:
    rng = np.random.default_rng(0)
    x_NKF = rng.normal(size=(300, 12, 8)).astype(np.float32)
    gain_NK = (x_NKF[:, :, 0] + rng.normal(size=(300, 12)) > 1.5).astype(np.float32)
    return ranker.Lists(x_NKF, gain_NK, np.ones((300, 12), dtype=bool))


def action_log(rows: int, seed: int) -> ActionLog:
    rng = np.random.default_rng(seed)
    user, start = np.sort(rng.integers(0, 60, rows)), rng.integers(0, 30, rows)
    item = (start + np.arange(rows)) % 30
    time_us = np.arange(rows) + seed * 10**6
    ones = np.ones(rows)
    names = tuple(f"u{n}" for n in range(60))
    return ActionLog(user, np.zeros(rows, dtype=bool), user, item, user * 0 + 4, time_us, ones, ones, names, 30)


def train(name: str, checkpoints: Path | None, progress: Progress = quiet) -> tuple[torch.nn.Module, Curves]:
    """One training, always the same; the validation picks an epoch that is not the last."""
    deterministic(threads=1, seed=0)
    if name == "ranker":
        lists = ranker_lists()
        x, wanted = torch.from_numpy(lists.x_NKF), torch.from_numpy(lists.gain_NK) > 0
        params = ranker.RankerParams(hidden=(16,), cross_rank=4, batch=16, loop=LOOP)
        return ranker.train(
            lists,
            params,
            validate=lambda net: -float(net(x)[wanted].detach().std()),
            checkpoints=checkpoints,
            progress=progress,
        )
    small = sequence.SequenceParams(dim=8, blocks=1, steps=6, negatives=12, batch=8, loop=LOOP)
    model, curves = sequence.train(
        action_log(900, 0), small, validate_on=action_log(200, 1), checkpoints=checkpoints, progress=progress
    )
    return model.net, curves


def answer(net: torch.nn.Module, curves: Curves) -> dict[str, Any]:
    """What must be equal byte for byte."""
    weights = b"".join(value.numpy().tobytes() for value in net.state_dict().values())
    return {"weights": hashlib.sha256(weights).hexdigest(), **curves.to_json()}


def in_child(work: Callable[[], None]) -> int:
    """Fork, work, leave; returns the child's pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def whole(name: str, checkpoints: Path, result: Path) -> dict[str, Any]:
    """Train to the end in a process of its own."""
    os.waitpid(in_child(lambda: void(result.write_text(json.dumps(answer(*train(name, checkpoints)))))), 0)
    told: dict[str, Any] = json.loads(result.read_text())
    return told


def void(_: object) -> None:
    """Drop a value."""


def killed_after(name: str, checkpoints: Path, epoch: int) -> None:
    def die(_name: str, at: int, _epochs: int, _figures: dict[str, float]) -> None:
        if at == epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(in_child(lambda: void(train(name, checkpoints, die))), 0)


def killed_within(name: str, checkpoints: Path, seconds: float) -> None:
    pid = in_child(lambda: void(train(name, checkpoints)))
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def warm_up() -> None:
    """The imports that a first optimizer step brings, without a backward pass: autograd must not run before a fork."""
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    torch.optim.AdamW([weight]).step()


def main(name: str, root: Path) -> None:
    warm_up()
    began = time.monotonic()
    cases = {"uninterrupted": whole(name, root / "whole", root / "whole.json")}
    took = time.monotonic() - began
    for epoch in range(1, EPOCHS + 1):
        killed_after(name, root / f"after-{epoch}", epoch)
        cases[f"killed after epoch {epoch}"] = whole(name, root / f"after-{epoch}", root / f"after-{epoch}.json")
    moments = random.Random(3)
    for at in range(RANDOM_MOMENTS):
        seconds = took * moments.uniform(0.1, 0.95)
        killed_within(name, root / f"random-{at}", seconds)
        cases[f"kill {at}, after {seconds:.2f} s"] = whole(name, root / f"random-{at}", root / f"random-{at}.json")
    sys.stdout.write(json.dumps({"seconds": took, "cases": cases}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
