"""The sequence network: SASRec with a sampled softmax over shared negatives.

Choices. The loss is the gain (one negative scores half as well as a sampled softmax); negatives are uniform and shared
by the batch, so a step costs one matrix product. Right padding, so that positions count from the oldest kept action.
Input and output item embeddings are one table. No user embedding: a user is their history.
Source: Kang & McAuley, 2018 (SASRec); Klenitskiy & Vasilev, 2023 (the loss).
Shapes: B sequences, T steps, D embedding, I items, M negatives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models import checkpoint
from models.history import TYPE_WEIGHT, UserState
from models.log import ActionLog
from models.training import Curves, LoopParams, Progress, fit, quiet

Ints = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SequenceParams:
    """Size and training of the network."""

    dim: int = 48
    blocks: int = 2
    heads: int = 2
    steps: int = 50
    dropout: float = 0.2
    negatives: int = 512
    batch: int = 64
    max_windows: int = 40_000
    loop: LoopParams = field(default_factory=lambda: LoopParams(epochs=5, learning_rate=2e-3, weight_decay=1e-5))
    seed: int = 11


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, both with pre-normalisation and a residual."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_forward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.forward_net = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, D); step t sees the steps up to t."""
        size = x_BTD.shape
        q, k, v = (
            part.view(size[0], size[1], self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm_attention(x_BTD)).chunk(3, dim=-1)
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.dropout(self.out(seen.transpose(1, 2).reshape(size)))
        forwarded: torch.Tensor = x_BTD + self.dropout(self.forward_net(self.norm_forward(x_BTD)))
        return forwarded


class SequenceNet(nn.Module):
    """(B, T) item indices, padded with I -> (B, T, D) states; a score is a product with the item table."""

    def __init__(self, n_items: int, params: SequenceParams) -> None:
        super().__init__()
        self.n_items, self.params = n_items, params
        self.item = nn.Embedding(n_items + 1, params.dim, padding_idx=n_items)
        self.position = nn.Embedding(params.steps, params.dim)
        self.blocks = nn.ModuleList(Block(params.dim, params.heads, params.dropout) for _ in range(params.blocks))
        self.norm = nn.LayerNorm(params.dim)
        self.dropout = nn.Dropout(params.dropout)
        nn.init.normal_(self.item.weight, std=0.05)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, item_BT: torch.Tensor) -> torch.Tensor:
        """(B, T) -> (B, T, D)."""
        steps = torch.arange(item_BT.shape[1])
        x_BTD = self.dropout(self.item(item_BT) * math.sqrt(self.params.dim) + self.position(steps))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        states: torch.Tensor = self.norm(x_BTD)
        return states


class Windows(NamedTuple):
    """Training windows: (N, T) inputs and (N, T) next items, both padded with I."""

    input_NT: torch.Tensor
    target_NT: torch.Tensor


def sequences(log: ActionLog) -> list[Ints]:
    """The items of each known user in order of time, repeats in a row once."""
    known = np.flatnonzero(~log.is_guest)
    order = known[np.lexsort((known, log.time_us[known], log.user[known]))]
    owner, item = log.user[order], log.item[order]
    repeat = np.zeros(order.size, dtype=bool)
    repeat[1:] = (owner[1:] == owner[:-1]) & (item[1:] == item[:-1])
    owner, item = owner[~repeat], item[~repeat]
    return np.split(item, np.flatnonzero(np.diff(owner)) + 1) if item.size else []


def windows(all_sequences: list[Ints], n_items: int, params: SequenceParams) -> Windows:
    """Cut sequences into windows of T steps from their end; the newest windows are kept where there are too many."""
    rows: list[Ints] = []
    for sequence in all_sequences:
        end = sequence.size
        while end >= 2:
            rows.append(sequence[max(0, end - params.steps - 1) : end])
            end -= params.steps
    rows = rows[-params.max_windows :]
    both = np.full((2, len(rows), params.steps), n_items, dtype=np.int64)
    for at, row in enumerate(rows):
        both[0, at, : row.size - 1], both[1, at, : row.size - 1] = row[:-1], row[1:]
    return Windows(torch.from_numpy(both[0]), torch.from_numpy(both[1]))


def sampled_softmax(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Cross-entropy of the next item against M shared negatives; a negative that is the target is masked."""
    assert isinstance(net, SequenceNet)  # noqa: S101 - narrows the type
    input_BT, target_BT, negative_M = batch
    real = target_BT != net.n_items
    state_ND, target_N = net(input_BT)[real], target_BT[real]
    positive_N = (state_ND * net.item(target_N)).sum(-1)
    negative_NM = state_ND @ net.item(negative_M).T
    negative_NM = negative_NM.masked_fill(target_N[:, None] == negative_M[None, :], -1e9)
    # M of I - 1 other items were drawn: the correction makes the sum an estimate of the full one.
    lift = math.log(max(net.n_items - 1, 1) / negative_M.numel())
    logits = torch.cat([positive_N[:, None], negative_NM + lift], dim=1)
    return nn.functional.cross_entropy(logits, torch.zeros(logits.shape[0], dtype=torch.long))


@dataclass(frozen=True)
class SequenceModel:
    """A trained network that scores every item for a history."""

    net: SequenceNet

    def scores(self, state: UserState, n_items: int) -> Floats32:
        """(I,) logits; items newer than the network get the mean, a stranger gets zeros."""
        known = self.net.n_items
        useful = (TYPE_WEIGHT[state.type_P] > 0) & (state.item_P < known)
        recent = state.item_P[useful][-self.net.params.steps :]
        scores = np.zeros(n_items, dtype=np.float32)
        if recent.size == 0:
            return scores
        with torch.inference_mode():
            state_D = self.net(torch.from_numpy(recent)[None, :])[0, -1]
            logits = (self.net.item.weight[:known] @ state_D).numpy()
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


def make_net(config: Mapping[str, Any]) -> SequenceNet:
    """An untrained network of this size."""
    told = dict(config)
    n_items = told.pop("n_items")
    return SequenceNet(n_items, SequenceParams(**(told | {"loop": LoopParams(**told["loop"])})))


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
    torch.manual_seed(params.seed)
    net = SequenceNet(log.n_items, params)
    data = windows(sequences(log), log.n_items, params)
    steps = math.ceil(len(data.input_NT) / params.batch)

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng([params.seed, epoch])
        order = rng.permutation(len(data.input_NT))
        for start in range(0, order.size, params.batch):
            rows = torch.from_numpy(order[start : start + params.batch])
            negatives = rng.choice(log.n_items, size=min(params.negatives, log.n_items), replace=False)
            yield data.input_NT[rows], data.target_NT[rows], torch.from_numpy(negatives)

    curves = fit(
        net,
        batches,
        sampled_softmax,
        params.loop,
        name="sequence",
        steps_per_epoch=steps,
        stop_after=stop_after,
        validate=None if validate_on is None else NextItemNdcg(log, validate_on, params),
        checkpoints=checkpoints,
        seed=params.seed,
        progress=progress,
    )
    return SequenceModel(net), curves


class NextItemNdcg:
    """NDCG@10 of each user's first later item, over all items; users with a history only, at most 2,000."""

    def __init__(self, log: ActionLog, later: ActionLog, params: SequenceParams) -> None:
        known = ~log.is_guest
        owners = np.unique(log.user[known])
        by_user = dict(zip(owners.tolist(), sequences(log), strict=True))
        fresh = ~later.is_guest
        user, first = np.unique(later.user[fresh], return_index=True)
        pairs = [(int(u), int(later.item[fresh][at])) for u, at in zip(user, first, strict=True) if int(u) in by_user]
        pairs = pairs[:2000]
        self.target_N = torch.tensor([item for _, item in pairs], dtype=torch.long)
        self.input_NT = torch.full((len(pairs), params.steps), log.n_items, dtype=torch.long)
        self.last_N = torch.zeros(len(pairs), dtype=torch.long)
        for at, (owner, _) in enumerate(pairs):
            recent = by_user[owner][-params.steps :]
            self.input_NT[at, : recent.size] = torch.from_numpy(recent)
            self.last_N[at] = recent.size - 1

    def __call__(self, net: nn.Module) -> float:
        """Mean over users; 0 where there is none."""
        assert isinstance(net, SequenceNet)  # noqa: S101 - narrows the type
        gains: list[torch.Tensor] = []
        with torch.inference_mode():
            for start in range(0, len(self.target_N), 256):
                rows = torch.arange(start, min(start + 256, len(self.target_N)))
                state_ND = net(self.input_NT[rows])[torch.arange(len(rows)), self.last_N[rows]]
                score_NI = state_ND @ net.item.weight[: net.n_items].T
                own_N = score_NI.gather(1, self.target_N[rows][:, None])
                rank_N = (score_NI > own_N).sum(1) + (score_NI == own_N).sum(1) * 0.5 + 0.5
                gains.append(torch.where(rank_N <= 10, 1 / torch.log2(rank_N + 1), torch.zeros(())))
        return float(torch.cat(gains).mean()) if gains else 0.0
