"""The sequence network of the main job: a shop's log as sequences, the next-item network over them, its file.

Choices. The network, its encoders and losses are those of the benchmark (next_item.py, encoders/): `train.sequence.
encoder` in params.yaml names one. Repeats in a row are one step. No user embedding: a user is their history. An item
that training never held gets the mean score: content and counting speak for it.
Shapes: B sequences, T steps, D embedding, I items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models import checkpoint, next_item
from models.history import TYPE_WEIGHT, UserState
from models.interactions import Interactions
from models.log import ActionLog
from models.next_item import NextItemModel, NextItemNet, NextItemParams
from models.training import Curves, LoopParams, Progress, quiet

Ints = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]
MOST_USERS = 2000  # to stop early on


@dataclass(frozen=True)
class SequenceParams(NextItemParams):
    """The same fields, with the main job's defaults."""

    dim: int = 48
    dropout: float = 0.2
    negatives: int = 512
    batch: int = 64
    max_windows: int = 40_000
    loop: LoopParams = field(default_factory=lambda: LoopParams(epochs=5, learning_rate=2e-3, weight_decay=1e-5))


def interactions(log: ActionLog) -> Interactions:
    """The known users' items in order of time (seconds), repeats in a row once."""
    known = np.flatnonzero(~log.is_guest)
    order = known[np.lexsort((known, log.time_us[known], log.user[known]))]
    owner, item = log.user[order], log.item[order]
    keep = np.ones(order.size, dtype=bool)
    keep[1:] = (owner[1:] != owner[:-1]) | (item[1:] != item[:-1])
    return Interactions.of_rows(owner[keep], item[keep], log.time_us[order][keep] // 1_000_000, log.n_items)


@dataclass(frozen=True)
class SequenceModel:
    """A trained network that scores every item for a history."""

    net: NextItemNet

    def scores(self, state: UserState, n_items: int) -> Floats32:
        """(I,) logits; items newer than the network get the mean, a stranger gets zeros."""
        known = self.net.n_items
        useful = (TYPE_WEIGHT[state.type_P] > 0) & (state.item_P < known)
        recent = state.item_P[useful][-self.net.params.steps :]
        scores = np.zeros(n_items, dtype=np.float32)
        if recent.size == 0:
            return scores
        with torch.inference_mode():
            table_ID = self.net.table()
            state_D = self.net(torch.from_numpy(recent)[None, :], table_ID)[0, -1]
            logits = (table_ID[:known] @ state_D).numpy()
        scores[:known] = logits
        scores[known:] = logits.mean()
        return scores


def save_model(model: SequenceModel, directory: Path) -> None:
    """Write the network as arrays and JSON."""
    arrays = {name: value.numpy() for name, value in model.net.state_dict().items()}
    checkpoint.save(directory, arrays, asdict(model.net.params) | {"n_items": model.net.n_items})


def load_model(directory: Path) -> SequenceModel | None:
    """Read it back; None where there is none. ArtifactError where a byte was changed."""
    if not directory.exists():
        return None
    arrays, config, _ = checkpoint.load(directory)
    net = make_net(config)
    net.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    return SequenceModel(net.eval())


def make_net(config: Mapping[str, Any]) -> NextItemNet:
    """An untrained network of this size."""
    told = dict(config)
    n_items = told.pop("n_items")
    return NextItemNet(n_items, SequenceParams(**(told | {"loop": LoopParams(**told["loop"])})))


def train(
    log: ActionLog,
    params: SequenceParams,
    *,
    validate_on: ActionLog | None = None,
    stop_after: int | None = None,
    checkpoints: Path | None = None,
    progress: Progress = quiet,
) -> tuple[SequenceModel, Curves]:
    """Fit on the log's rows; with `validate_on` (later rows of the same users) stop early on next-item NDCG@10."""
    data = interactions(log)
    model, curves = next_item.train(
        data,
        params,
        validate=None if validate_on is None else NextItemNdcg(log, validate_on),
        stop_after=stop_after,
        checkpoints=checkpoints,
        name="sequence",
        progress=progress,
    )
    return SequenceModel(model.net), curves


class NextItemNdcg:
    """NDCG@10 of each user's first later item, over all items, ties by mid-rank; users with a history only."""

    def __init__(self, log: ActionLog, later: ActionLog) -> None:
        data = interactions(log)
        owners = np.unique(log.user[~log.is_guest])
        fresh = ~later.is_guest
        user, first = np.unique(later.user[fresh], return_index=True)
        _, at_known, at_fresh = np.intersect1d(owners, user, return_indices=True)
        self.asked = data.users(at_known[:MOST_USERS])
        self.target_N = later.item[fresh][first[at_fresh[:MOST_USERS]]]

    def __call__(self, model: NextItemModel) -> float:
        """Mean over users; 0 where there is none."""
        gains = [np.zeros(0)]
        for start in range(0, len(self.asked), 256):
            at = np.arange(start, min(start + 256, len(self.asked)))
            score_BI = model.scores(self.asked.users(at))
            own_B1 = score_BI[np.arange(at.size), self.target_N[at]][:, None]
            rank_B = (score_BI > own_B1).sum(1) + (score_BI == own_B1).sum(1) * 0.5 + 0.5
            gains.append(np.where(rank_B <= 10, 1 / np.log2(rank_B + 1), 0.0))
        values_N = np.concatenate(gains)
        return float(values_N.mean()) if values_N.size else 0.0
