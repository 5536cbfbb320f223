"""The next-item network: any encoder, any loss, items by id and by content, little padding.

Choices. Batches hold sequences of similar length, so that short histories cost little; negatives are uniform (or drawn
by popularity, with the log-Q correction) and shared by a batch, so a step is one matrix product. An item is the sum of
its own vector and the mean of its attributes' vectors; the own vector is dropped now and then, so that content alone
works for an item that nobody took yet. Old targets may count less: fashions pass. A history longer than T is cut into
windows from its end. Augmentations are off unless asked for: each is drawn anew in every epoch.
Source: Kang & McAuley, 2018; Klenitskiy & Vasilev, 2023 (sampled softmax); Xie et al., 2022 (crop, mask, reorder);
Petrov & Macdonald, 2023 (gBCE); Bengio & Senécal, 2008 (log-Q).
Shapes: B sequences, T steps, D embedding, I items, A attributes, M negatives, N real steps of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from features.errors import UsageError
from models.encoders import ENCODERS
from models.interactions import DAY_S, Floats, Floats32, Interactions, Ints
from models.training import Curves, LoopParams, Progress, fit, quiet

LOSSES = ("sampled_softmax", "bce", "gbce")


@dataclass(frozen=True)
class NextItemParams:
    """Size and training. `id_dropout`: share of item vectors left out in a step; `target_half_life_days`: see above.

    `crop`, `reorder`: share of sequences that lose their beginning or have a stretch of a fifth shuffled; `mask`: share
    of inputs hidden. `sparse`: gradients of used items only, for a table of a million (no content, no L1).
    """

    encoder: str = "transformer"
    loss: str = "sampled_softmax"
    dim: int = 64
    blocks: int = 2
    heads: int = 2
    steps: int = 50
    dropout: float = 0.3
    id_dropout: float = 0.0
    negatives: int = 1024
    negative_power: float = 0.0  # negatives drawn by count ** power; 0 = uniform
    log_q: bool = True
    calibration: float = 0.75  # t of gBCE; 0 makes it plain BCE
    l1: float = 0.0
    crop: float = 0.0
    mask: float = 0.0
    reorder: float = 0.0
    sparse: bool = False
    max_windows: int = 400_000  # the newest
    batch: int = 128
    target_half_life_days: float = 1e9
    loop: LoopParams = field(
        default_factory=lambda: LoopParams(epochs=16, learning_rate=3e-3, weight_decay=1e-4, patience=3)
    )
    seed: int = 11


class Batch(NamedTuple):
    """(B, T) inputs and targets padded with I, (B, T) weights, (M,) negatives and (M,) log of expected draws."""

    input_BT: torch.Tensor
    target_BT: torch.Tensor
    weight_BT: torch.Tensor
    negative_M: torch.Tensor
    log_q_I: torch.Tensor


class NextItemNet(nn.Module):
    """(B, T) items -> (B, T, D) states; a score is a product with the item table."""

    content: torch.Tensor | None

    def __init__(self, n_items: int, params: NextItemParams, attributes: sp.csr_matrix | None = None) -> None:
        super().__init__()
        if params.encoder not in ENCODERS:
            raise UsageError(f"encoder {params.encoder!r} is unknown; one of {', '.join(ENCODERS)}")
        if params.loss not in LOSSES:
            raise UsageError(f"loss {params.loss!r} is unknown; one of {', '.join(LOSSES)}")
        if params.sparse and (attributes is not None or params.l1):
            raise UsageError("sparse gradients do not go with attributes or l1: both touch every item in every step")
        self.n_items, self.params = n_items, params
        self.item = nn.Embedding(n_items + 1, params.dim, padding_idx=n_items, sparse=params.sparse)
        self.position = nn.Embedding(params.steps, params.dim)
        self.encoder = ENCODERS[params.encoder](params)
        self.norm_in, self.norm = nn.LayerNorm(params.dim), nn.LayerNorm(params.dim)
        self.dropout = nn.Dropout(params.dropout)
        nn.init.normal_(self.item.weight, std=0.05)
        nn.init.zeros_(self.item.weight[n_items : n_items + 1].data)
        nn.init.normal_(self.position.weight, std=0.02)
        self.content = None
        if attributes is not None:
            self.attribute = nn.Embedding(attributes.shape[1], params.dim)
            nn.init.normal_(self.attribute.weight, std=0.03)
            self.content = _mean_of(attributes)

    def table(self) -> torch.Tensor:
        """(I + 1, D) item vectors; in training some ids are left out, so that content carries them."""
        own = self.item.weight
        if self.content is None:
            return own
        if self.training and self.params.id_dropout:
            own = own * (torch.rand(own.shape[0], 1) >= self.params.id_dropout)
        result: torch.Tensor = own + torch.sparse.mm(self.content, self.attribute.weight)
        return result

    def rows(self, index: torch.Tensor, table_ID: torch.Tensor) -> torch.Tensor:
        """(...) items -> (..., D) rows of the table."""
        return nn.functional.embedding(index, table_ID, sparse=self.params.sparse and table_ID is self.item.weight)

    def forward(self, item_BT: torch.Tensor, table_ID: torch.Tensor) -> torch.Tensor:
        """(B, T) and the item table -> (B, T, D)."""
        x_BTD = self.rows(item_BT, table_ID) * math.sqrt(self.params.dim)
        x_BTD = self.dropout(x_BTD + self.position(torch.arange(item_BT.shape[1])))
        states: torch.Tensor = self.norm(self.encoder(x_BTD))
        return states


def _mean_of(attributes: sp.csr_matrix) -> torch.Tensor:
    """(I + 1, A) sparse rows that sum to one; the padding has none."""
    held = np.maximum(np.asarray(attributes.sum(axis=1)).ravel(), 1.0)
    scaled = sp.vstack([sp.diags(1.0 / held) @ attributes, sp.csr_matrix((1, attributes.shape[1]))]).tocoo()
    at = torch.from_numpy(np.stack([scaled.row, scaled.col]).astype(np.int64))
    values = torch.from_numpy(scaled.data.astype(np.float32))
    made: torch.Tensor = torch.sparse_coo_tensor(at, values, scaled.shape, check_invariants=True).coalesce()
    return made


def loss_of(net: nn.Module, batch: Batch) -> torch.Tensor:
    """The loss that the parameters name, weighted, over the real steps; with L1 of the item table where asked."""
    assert isinstance(net, NextItemNet)  # noqa: S101 - narrows the type
    params, table_ID = net.params, net.table()
    real = batch.target_BT != net.n_items
    state_ND, target_N = net(batch.input_BT, table_ID)[real], batch.target_BT[real]
    positive_N = (state_ND * net.rows(target_N, table_ID)).sum(-1)
    negative_NM = state_ND @ net.rows(batch.negative_M, table_ID).T
    hit_NM = target_N[:, None] == batch.negative_M[None, :]
    if params.loss == "sampled_softmax":
        if params.log_q:
            negative_NM = negative_NM - batch.log_q_I[batch.negative_M]
        logits = torch.cat([positive_N[:, None], negative_NM.masked_fill(hit_NM, -1e9)], dim=1)
        loss_N = torch.logsumexp(logits, 1) - positive_N
    else:
        loss_N = _binary(positive_N, negative_NM.masked_fill(hit_NM, -1e9), net)
    weight_N = batch.weight_BT[real]
    loss = (loss_N * weight_N).sum() / weight_N.sum().clamp(min=1e-9)
    if params.l1:
        loss = loss + params.l1 * net.item.weight.abs().mean()
    result: torch.Tensor = loss
    return result


def _binary(positive_N: torch.Tensor, negative_NM: torch.Tensor, net: NextItemNet) -> torch.Tensor:
    """Binary cross-entropy; gBCE raises the positive's probability to beta, which undoes the overconfidence."""
    beta = 1.0
    if net.params.loss == "gbce":
        alpha, t = negative_NM.shape[1] / max(net.n_items - 1, 1), net.params.calibration
        beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    return -beta * nn.functional.logsigmoid(positive_N) - nn.functional.logsigmoid(-negative_NM).sum(1)


@dataclass(frozen=True)
class NextItemModel:
    """A trained network; `seen_I` marks the items that training held, the others are known by content alone."""

    net: NextItemNet
    table_ID: Floats32

    def scores(self, asked: Interactions) -> Floats32:
        """(B, I) logits."""
        params = self.net.params
        input_BT = padded([row[-params.steps :] for row in asked.sequences()], self.net.n_items)
        last_B = torch.from_numpy(np.minimum(asked.length_U, params.steps) - 1)
        with torch.inference_mode():
            table = torch.from_numpy(self.table_ID)
            state_BD = self.net(input_BT, table)[torch.arange(len(last_B)), last_B]
            scores: Floats32 = (state_BD @ table[: self.net.n_items].T).numpy()
        return scores


def padded(rows: list[Ints], filler: int) -> torch.Tensor:
    """(B, longest) rows, right-padded."""
    made = np.full((len(rows), max((row.size for row in rows), default=1)), filler, dtype=np.int64)
    for at, row in enumerate(rows):
        made[at, : row.size] = row
    return torch.from_numpy(made)


def freeze(net: NextItemNet, data: Interactions) -> NextItemModel:
    """The model to score with: an item that training never held has only its content."""
    with torch.inference_mode():
        table = net.table().numpy().copy()
        own = net.item.weight.numpy()
    unseen = np.append(data.counts_I() == 0, True)
    table[unseen] -= own[unseen]
    return NextItemModel(net, table)


class Batches:
    """Batches of similar length; their order, negatives and augmentations depend on (seed, epoch) alone."""

    def __init__(self, data: Interactions, params: NextItemParams) -> None:
        self.data, self.params = data, params
        newest = int(data.ts_R.max()) if data.ts_R.size else 0
        weight_R = np.exp2(-(newest - data.ts_R) / DAY_S / params.target_half_life_days)
        self.rows, self.weights = [], []
        for start, end in zip(data.indptr_U[:-1].tolist(), data.indptr_U[1:].tolist(), strict=True):
            while end - start >= 2:
                first = max(start, end - params.steps - 1)
                self.rows.append(data.item_R[first:end])
                self.weights.append(weight_R[first + 1 : end])
                end -= params.steps
        self.rows, self.weights = self.rows[-params.max_windows :], self.weights[-params.max_windows :]
        count_I = np.maximum(data.counts_I(), 0.5) ** params.negative_power
        self.draw_I: Floats = count_I / count_I.sum()
        self.m = min(params.negatives, data.n_items)
        self.log_q_I = torch.from_numpy(np.log(self.m * self.draw_I).astype(np.float32))

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.rows) / self.params.batch)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """One epoch."""
        rng = np.random.default_rng([self.params.seed, epoch])
        length = np.array([row.size for row in self.rows]) + rng.random(len(self.rows)) * 2.0
        order = np.argsort(length, kind="stable")
        chunks = [order[at : at + self.params.batch] for at in range(0, order.size, self.params.batch)]
        for chunk in rng.permutation(len(chunks)):
            pairs = [self._changed(self.rows[at], self.weights[at], rng) for at in chunks[chunk]]
            both = padded([row for row, _ in pairs], self.data.n_items)
            weight = np.zeros((len(pairs), both.shape[1] - 1), dtype=np.float32)
            for at, (_, mine) in enumerate(pairs):
                weight[at, : mine.size] = mine
            drawn = rng.choice(self.data.n_items, self.m, replace=self.params.negative_power > 0, p=self.draw_I)
            input_BT = both[:, :-1].clone()
            if self.params.mask:
                input_BT[torch.from_numpy(rng.random(input_BT.shape) < self.params.mask)] = self.data.n_items
            yield Batch(input_BT, both[:, 1:], torch.from_numpy(weight), torch.from_numpy(drawn), self.log_q_I)

    def _changed(self, row: Ints, weight: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
        """The sequence after the augmentations that are drawn for it."""
        params = self.params
        if params.crop and rng.random() < params.crop and row.size > 3:
            first = int(rng.integers(1, row.size - 2))
            row, weight = row[first:], weight[first:]
        if params.reorder and rng.random() < params.reorder and row.size > 3:
            size = max(2, row.size // 5)
            first = int(rng.integers(0, row.size - size))
            row = row.copy()
            row[first : first + size] = rng.permutation(row[first : first + size])
        return row, weight


def train(
    data: Interactions,
    params: NextItemParams,
    *,
    attributes: sp.csr_matrix | None = None,
    validate: Callable[[NextItemModel], float] | None = None,
    stop_after: int | None = None,
    checkpoints: Path | None = None,
    name: str | None = None,
    progress: Progress = quiet,
) -> tuple[NextItemModel, Curves]:
    """Fit; with `validate` (higher is better) the best epoch's weights are kept."""
    torch.manual_seed(params.seed)
    net, batches = NextItemNet(data.n_items, params, attributes), Batches(data, params)

    def judged(trained: Any) -> float:
        return validate(freeze(trained, data)) if validate is not None else 0.0

    curves = fit(
        net,
        batches,
        loss_of,
        params.loop,
        name=name or params.encoder,
        steps_per_epoch=batches.steps,
        stop_after=stop_after,
        validate=judged if validate is not None else None,
        checkpoints=checkpoints,
        seed=params.seed,
        progress=progress,
    )
    return freeze(net, data), curves
