"""The multi-task network: p(click | seen), p(cart | click), p(buy | click) of each slot of a page.

Choices. The target attends to the last actions (what was done, how long ago, whether in this visit); low-rank crosses
and an MLP read that beside the columns. An item is its content plus an own vector that is dropped now and then, so
that content alone works for a new item. Position stands in a tower of its own and multiplies: a click needs a look,
p(click) = look(position) x p(click | seen), which is how a randomised log separates the two; at serving the tower is
off (a slot is judged as if it were the first). look() is a log-linear curve over knots at 1, 2, 4 ..., so that a slot
with few clicks borrows from its neighbours. No user id enters: a shopper is their history.
Source: Zhou et al., 2018 (target attention); Wang et al., 2021 (low-rank crosses); Ma et al., 2018 (purchase through
click, on all impressions); Richardson et al., 2007 (position-based model).
Shapes: B pages, K slots, H history actions, F columns, D embedding, E content, I items, P knots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from models.training import LoopParams

TASKS = ("click", "cart", "purchase")
KINDS, AGES = 3, 12
KNOTS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class ImpressionParams:
    """Size and training; `*_loss` weigh the tasks, `id_dropout` is the share of items that are content alone."""

    dim: int = 24
    hidden: tuple[int, ...] = (64, 32)
    cross_rank: int = 24
    dropout: float = 0.2
    id_dropout: float = 0.6
    cart_loss: float = 0.3
    purchase_loss: float = 0.3
    embedding_decay: float = 3e-5  # squared item vectors, by page
    batch: int = 96
    loop: LoopParams = field(
        default_factory=lambda: LoopParams(epochs=3, learning_rate=1e-3, weight_decay=1e-2, patience=1)
    )
    seed: int = 17


class Batch(NamedTuple):
    """Item numbers (I: none), columns, positions (0: empty slot), history and labels of B pages."""

    item_BK: torch.Tensor
    x_BKF: torch.Tensor
    position_BK: torch.Tensor
    past_BH: torch.Tensor  # items, I where there is none
    kind_BH: torch.Tensor
    age_BH: torch.Tensor  # bins
    visit_BH: torch.Tensor  # 1 in this visit
    label_BK3: torch.Tensor  # click, cart, purchase


class Told(NamedTuple):
    """Logits (B, K) of click given a look, cart given a click, purchase given a click; log of the look."""

    click: torch.Tensor
    cart: torch.Tensor
    purchase: torch.Tensor
    log_look: torch.Tensor


class ImpressionNet(nn.Module):
    """See the head of this file."""

    content_IE: torch.Tensor
    mean_F: torch.Tensor
    scale_F: torch.Tensor

    def __init__(self, n_items: int, n_content: int, n_columns: int, params: ImpressionParams) -> None:
        super().__init__()
        d = params.dim
        self.params, self.n_items = params, n_items
        self.register_buffer("content_IE", torch.zeros(n_items + 1, n_content))
        self.register_buffer("mean_F", torch.zeros(n_columns))
        self.register_buffer("scale_F", torch.zeros(n_columns))
        self.own = nn.Embedding(n_items + 1, d)
        self.bias = nn.Embedding(n_items + 1, 1)
        self.of_content = nn.Linear(n_content, d)
        self.kind, self.age, self.visit = nn.Embedding(KINDS, d), nn.Embedding(AGES, d), nn.Embedding(2, d)
        self.key, self.query = nn.Linear(d, d), nn.Linear(d, d)
        self.recency = nn.Linear(d, 1)
        width = n_columns + 3 * d + 3
        self.down, self.up = nn.Linear(width, params.cross_rank, bias=False), nn.Linear(params.cross_rank, width)
        layers: list[nn.Module] = []
        size = width
        for hidden in params.hidden:
            layers += [nn.Linear(size, hidden), nn.SiLU(), nn.Dropout(params.dropout)]
            size = hidden
        self.mlp = nn.Sequential(*layers)
        self.heads, self.wide = nn.Linear(size, len(TASKS)), nn.Linear(n_columns + 2, len(TASKS), bias=False)
        self.fall_P = nn.Parameter(torch.full((len(KNOTS) - 1,), 0.25))
        nn.init.zeros_(self.heads.weight)  # it starts as a linear model and departs from it where that pays
        nn.init.zeros_(self.wide.weight)
        for table, spread in ((self.own, 0.02), (self.bias, 0.0), (self.kind, 0.1), (self.age, 0.1), (self.visit, 0.1)):
            nn.init.normal_(table.weight, std=spread)

    def log_look(self, position: torch.Tensor) -> torch.Tensor:
        """Logarithm of a slot's look relative to the first; any shape; beyond the last knot it stays."""
        at = torch.log2(position.clamp(1, KNOTS[-1]).float())
        left = at.floor().long().clamp(max=len(KNOTS) - 2)
        total_P = torch.cat([torch.zeros(1), -torch.cumsum(nn.functional.softplus(self.fall_P * 4) / 4, 0)])
        return total_P[left] + (at - left) * (total_P[left + 1] - total_P[left])

    def standardised(self, x: torch.Tensor) -> torch.Tensor:
        """(..., F) columns in standard deviations, clipped."""
        return ((x - self.mean_F) * self.scale_F).clamp(-5.0, 5.0)

    def table(self) -> torch.Tensor:
        """(I + 1, D) item vectors; in training some own vectors are left out."""
        own = self.own.weight
        if self.training and self.params.id_dropout:
            own = own * (torch.rand(own.shape[0], 1) >= self.params.id_dropout)
        result: torch.Tensor = own + self.of_content(self.content_IE)
        return result

    def forward(self, batch: Batch, position: bool = True) -> Told:
        """Logits of every slot; with `position` False the tower is off and log_look is 0."""
        table_ID = self.table()
        item_BKD = nn.functional.embedding(batch.item_BK, table_ID)
        past_BHD = nn.functional.embedding(batch.past_BH, table_ID)
        told_BHD = past_BHD + self.kind(batch.kind_BH) + self.age(batch.age_BH) + self.visit(batch.visit_BH)
        gone_BH = batch.past_BH == self.n_items
        weight_BKH = self.query(item_BKD) @ self.key(told_BHD).transpose(1, 2) / math.sqrt(self.params.dim)
        weight_BKH = torch.softmax(weight_BKH.masked_fill(gone_BH[:, None, :], -1e4), dim=-1)
        some_B11 = (~gone_BH).any(1).float()[:, None, None]
        near_BKD = weight_BKH @ told_BHD * some_B11
        weight_BH1 = torch.softmax(self.recency(told_BHD).masked_fill(gone_BH[:, :, None], -1e4), dim=1)
        mean_B1D = (weight_BH1 * past_BHD).sum(1, keepdim=True) * some_B11
        z_BKF = self.standardised(batch.x_BKF)
        agree = [(item_BKD * other).sum(-1, keepdim=True) for other in (near_BKD, mean_B1D)]
        bias_BK1 = self.bias(batch.item_BK)
        z = torch.cat([z_BKF, item_BKD, near_BKD, item_BKD * mean_B1D, *agree, bias_BK1], dim=-1)
        deep = self.heads(self.mlp(z * self.up(self.down(z)) + z)) + self.wide(torch.cat([z_BKF, *agree], dim=-1))
        look = self.log_look(batch.position_BK) if position else torch.zeros(batch.item_BK.shape)
        return Told(deep[..., 0] + bias_BK1[..., 0], deep[..., 1], deep[..., 2], look)


def log_chances(told: Told) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(click) and log(1 - p(click)) of the slot as shown, in a form that neither overflows nor vanishes."""
    log_p = (told.log_look + nn.functional.logsigmoid(told.click)).clamp(max=-1e-6)
    return log_p, torch.log(-torch.expm1(log_p))


def loss_of(net: nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy of click on all slots, cart on clicked ones, purchase on all through the click."""
    assert isinstance(net, ImpressionNet)  # noqa: S101 - narrows the type
    told, params = net(batch), net.params
    real = batch.position_BK > 0
    clicked, carted, bought = (batch.label_BK3[..., task][real] for task in range(3))
    log_p, log_not = (part[real] for part in log_chances(told))
    click = -(clicked * log_p + (1 - clicked) * log_not).mean()
    cart_N = nn.functional.binary_cross_entropy_with_logits(told.cart[real], carted, reduction="none")
    cart = (cart_N * clicked).sum() / clicked.sum().clamp(min=1.0)
    log_buy = (log_p + nn.functional.logsigmoid(told.purchase[real])).clamp(max=-1e-6)
    buy = -(bought * log_buy + (1 - bought) * torch.log(-torch.expm1(log_buy))).mean()
    share = clicked.mean().detach()  # a cart is seen on clicks alone: its loss counts by their share
    decay = params.embedding_decay * (net.own.weight.square().sum() + net.bias.weight.square().sum())
    result: torch.Tensor = click + params.cart_loss * share * cart + params.purchase_loss * buy + decay
    return result
