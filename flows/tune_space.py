"""What `homeranker tune` may choose, and how a choice becomes a change of params.yaml.

Choices. Ranges span what is known to train at all; rates and penalties are searched on a logarithmic scale. A change is
merged into the `train` section as text, so that the comments of the other sections survive.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml
from optuna.trial import Trial

from models.encoders import ENCODERS
from models.next_item import LOSSES
from models.ranker import RankerParams
from models.recipe import TrainParams
from models.sequence import SequenceParams


def suggest_ranker(trial: Trial, now: RankerParams) -> RankerParams:
    """One choice of the ranker's size and training."""
    width = trial.suggest_categorical("hidden", ["32", "64-32", "128-64"])
    loop = dataclasses.replace(
        now.loop,
        learning_rate=trial.suggest_float("loop.learning_rate", 3e-4, 1e-2, log=True),
        weight_decay=trial.suggest_float("loop.weight_decay", 1e-6, 1e-1, log=True),
        epochs=trial.suggest_int("loop.epochs", 3, 10),
    )
    return dataclasses.replace(
        now,
        hidden=tuple(int(size) for size in width.split("-")),
        cross_rank=trial.suggest_categorical("cross_rank", [4, 16, 32]),
        dropout=trial.suggest_float("dropout", 0.0, 0.5),
        l1=trial.suggest_float("l1", 1e-7, 1e-2, log=True),
        loop=loop,
    )


def suggest_sequence(trial: Trial, now: SequenceParams) -> SequenceParams:
    """One encoder, its size and training."""
    loop = dataclasses.replace(now.loop, learning_rate=trial.suggest_float("loop.learning_rate", 5e-4, 1e-2, log=True))
    return dataclasses.replace(
        now,
        encoder=trial.suggest_categorical("encoder", list(ENCODERS)),
        loss=trial.suggest_categorical("loss", list(LOSSES)),
        dim=trial.suggest_categorical("dim", [32, 48, 64]),
        dropout=trial.suggest_float("dropout", 0.0, 0.5),
        loop=loop,
    )


def current(part: str, params: TrainParams) -> dict[str, Any]:
    """What params.yaml says now, in the names of the trials."""
    if part == "ranker":
        now = params.ranker
        return {
            "hidden": "-".join(map(str, now.hidden)), "cross_rank": now.cross_rank, "dropout": now.dropout,
            "l1": max(now.l1, 1e-7), "loop.learning_rate": now.loop.learning_rate,
            "loop.weight_decay": now.loop.weight_decay, "loop.epochs": now.loop.epochs,
        }  # fmt: skip
    net = params.sequence
    return {
        "encoder": net.encoder, "loss": net.loss, "dim": net.dim, "dropout": net.dropout,
        "loop.learning_rate": net.loop.learning_rate,
    }  # fmt: skip


def as_sections(part: str, best: dict[str, Any], params: TrainParams) -> dict[str, Any]:
    """The values that differ, nested as in params.yaml's `train` section; of a loop that differs, every value."""
    now = current(part, params)
    nested: dict[str, Any] = {}
    for name, value in best.items():
        if value == now.get(name):
            continue
        told = [int(size) for size in value.split("-")] if name == "hidden" else value
        *parents, last = name.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = float(f"{told:.4g}") if isinstance(told, float) else told
    if "loop" in nested:  # a section that params.yaml names in part takes the class's defaults for the rest
        nested["loop"] = dataclasses.asdict(getattr(params, part).loop) | nested["loop"]
    return {part: nested} if nested else {}


def changed(text: str, change: dict[str, Any]) -> str:
    """params.yaml with the change merged into its `train` section; all other lines stay as they are."""
    if not change:
        return text
    train = _merged((yaml.safe_load(text) or {}).get("train") or {}, change)
    block = yaml.safe_dump({"train": train}, sort_keys=False)
    lines = text.splitlines(True)
    start = next((at for at, line in enumerate(lines) if line.startswith("train:")), len(lines))
    end = next((at for at in range(start + 1, len(lines)) if lines[at][0] not in " \n#"), len(lines))
    return "".join(lines[:start]) + block + "".join(lines[end:])


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in change.items():
        inner = merged.get(name)
        merged[name] = _merged(inner if isinstance(inner, dict) else {}, value) if isinstance(value, dict) else value
    return merged
