"""What turns the embeddings of a history into one state a step: every family behind one name.

Choices. One contract: (B, T, D) right-padded -> (B, T, D), step t sees the steps up to t and nothing later, so every
encoder learns from all its prefixes at once and is scored by its last real step. Sizes come from the same parameters.
Source: Covington et al., 2016 (mlp); Tang & Wang, 2018 (cnn); Hidasi et al., 2016 (gru); Kang & McAuley, 2018
(transformer); Borisyuk et al., 2024 (ligr: the same with gates on both residuals).
Shapes: B sequences, T steps, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn


class Size(Protocol):
    """What an encoder reads of its parameters."""

    @property
    def dim(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def dropout(self) -> float: ...


class Mean(nn.Module):
    """`mlp`: the running mean of the history through a feed-forward net: the textbook form."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(size.blocks):
            layers += [nn.Linear(size.dim, size.dim), nn.GELU(), nn.Dropout(size.dropout)]
        self.net = nn.Sequential(*layers, nn.Linear(size.dim, size.dim))

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        count_T1 = torch.arange(1, x_BTD.shape[1] + 1, dtype=x_BTD.dtype)[:, None]
        mean_BTD = x_BTD.cumsum(1) / count_T1
        result: torch.Tensor = mean_BTD + self.net(mean_BTD)
        return result


class Convolution(nn.Module):
    """`cnn`: causal convolutions of several widths over the last steps, joined, with residuals (Caser-like)."""

    WIDTHS = (2, 3, 5)

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.ModuleList(nn.Conv1d(size.dim, size.dim, width) for width in self.WIDTHS) for _ in range(size.blocks)
        )
        self.out = nn.ModuleList(nn.Linear(len(self.WIDTHS) * size.dim, size.dim) for _ in range(size.blocks))
        self.dropout = nn.Dropout(size.dropout)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        for convolutions, out in zip(self.levels, self.out, strict=True):
            x_BDT = x_BTD.transpose(1, 2)
            seen = [
                conv(nn.functional.pad(x_BDT, (width - 1, 0)))
                for conv, width in zip(convolutions.children(), self.WIDTHS, strict=True)
            ]
            x_BTD = x_BTD + self.dropout(out(nn.functional.gelu(torch.cat(seen, 1)).transpose(1, 2)))
        return x_BTD


class Recurrent(nn.Module):
    """`rnn`, `gru`, `lstm`: a recurrent net with a residual."""

    def __init__(self, size: Size, kind: type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.net = kind(size.dim, size.dim, size.blocks, batch_first=True)
        self.dropout = nn.Dropout(size.dropout)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        result: torch.Tensor = x_BTD + self.dropout(self.net(x_BTD)[0])
        return result


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, both with pre-normalisation and a residual, gated or not."""

    def __init__(self, dim: int, heads: int, dropout: float, gated: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_forward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.forward_net = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.dropout = nn.Dropout(dropout)
        self.gates = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2 if gated else 0))

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, D); step t sees the steps up to t."""
        size = x_BTD.shape
        q, k, v = (
            part.view(size[0], size[1], self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm_attention(x_BTD)).chunk(3, dim=-1)
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self._gated(0, x_BTD, self.dropout(self.out(seen.transpose(1, 2).reshape(size))))
        return x_BTD + self._gated(1, x_BTD, self.dropout(self.forward_net(self.norm_forward(x_BTD))))

    def _gated(self, at: int, x_BTD: torch.Tensor, change_BTD: torch.Tensor) -> torch.Tensor:
        return change_BTD * torch.sigmoid(self.gates[at](x_BTD)) if len(self.gates) else change_BTD


class Transformer(nn.Module):
    """`transformer`, `ligr`: causal self-attention blocks (SASRec), the second with gates."""

    def __init__(self, size: Size, gated: bool = False) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(size.dim, size.heads, size.dropout, gated) for _ in range(size.blocks)))

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        result: torch.Tensor = self.blocks(x_BTD)
        return result


ENCODERS: dict[str, Callable[[Size], nn.Module]] = {
    "mlp": Mean,
    "cnn": Convolution,
    "rnn": lambda size: Recurrent(size, nn.RNN),
    "gru": lambda size: Recurrent(size, nn.GRU),
    "lstm": lambda size: Recurrent(size, nn.LSTM),
    "transformer": Transformer,
    "ligr": lambda size: Transformer(size, gated=True),
}
