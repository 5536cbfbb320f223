"""The ranker: features of candidates -> one score each, learned list by list.

Choices. A linear part, low-rank crosses and a small MLP over standardised features: on the shop that ships with the
project it beats gradient-boosted trees on the same features (the report shows both). The loss is a softmax over each
user's candidates; a basket of n items counts sqrt(n), so that large baskets neither drown the small ones nor are
drowned. A feature that never varied in training is switched off instead of being trusted with a random weight.
Source: listwise softmax (Cao et al., 2007); low-rank crosses (DCN V2, Wang et al., 2021).
Shapes: N examples (lists), K candidates a list (padded), F features, B lists a batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.training import Curves, LoopParams, Progress, fit, quiet

Floats32 = npt.NDArray[np.float32]

CLIP = 5.0  # standard deviations
CHUNK = 256  # lists whose mean and scale are read at a time
LEAST_STEPS, LEAST_BATCH = 25, 16  # a small log in large batches is left before anything is learned


@dataclass(frozen=True)
class RankerParams:
    """Size and training of the network."""

    hidden: tuple[int, ...] = (64, 32)
    cross_rank: int = 16
    dropout: float = 0.1
    l1: float = 0.0  # of the linear part and the crosses: switches features off
    batch: int = 64  # lists; fewer where there would be less than LEAST_STEPS of them an epoch
    loop: LoopParams = field(default_factory=LoopParams)
    seed: int = 7


@dataclass(frozen=True)
class Lists:
    """Training lists: features, gains (0 = not wanted) and which places are real."""

    x_NKF: Floats32
    gain_NK: Floats32
    real_NK: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return int(self.x_NKF.shape[0])

    @classmethod
    def concat(cls, parts: list[Lists]) -> Lists:
        """Lists after lists; all with the same K and F."""
        return cls(
            np.concatenate([part.x_NKF for part in parts]),
            np.concatenate([part.gain_NK for part in parts]),
            np.concatenate([part.real_NK for part in parts]),
        )


class ListDropout(nn.Module):
    """Dropout with one mask a list: its candidates meet the same network, and training takes a third less time."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., K, H) -> the same; hidden units fall silent for a whole list at a time while training."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.empty(*x.shape[:-2], 1, x.shape[-1]).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class RankerNet(nn.Module):
    """(..., F) raw features -> (...) scores; beside them, where there is an `offset`, that network's times its weight.

    The offset is frozen: the term of a generalised linear model whose weight is known.
    """

    mean_F: torch.Tensor
    scale_F: torch.Tensor

    def __init__(self, n_features: int, params: RankerParams) -> None:
        super().__init__()
        self.register_buffer("mean_F", torch.zeros(n_features))
        self.register_buffer("scale_F", torch.zeros(n_features))
        self.l1 = params.l1
        self.down = nn.Linear(n_features, params.cross_rank, bias=False)
        self.up = nn.Linear(params.cross_rank, n_features)
        layers: list[nn.Module] = []
        width = n_features
        for size in params.hidden:
            layers += [nn.Linear(width, size), nn.SiLU(), ListDropout(params.dropout)]
            width = size
        self.mlp = nn.Sequential(*layers, nn.Linear(width, 1))
        self.linear = nn.Linear(n_features, 1)
        self.offset: RankerNet | None = None
        self.offset_weight = 0.0

    def stand_on(self, offset: RankerNet, weight: float) -> None:
        """Let another network's scores count beside one's own."""
        self.offset, self.offset_weight = copy.deepcopy(offset).eval().requires_grad_(False), weight

    def train(self, mode: bool = True) -> RankerNet:
        """As of every module; the offset has learned already."""
        super().train(mode)
        if self.offset is not None:
            self.offset.eval()
        return self

    def standardise(self, x: torch.Tensor) -> torch.Tensor:
        """(..., F) in standard deviations, clipped; switched-off features are 0."""
        return ((x - self.mean_F) * self.scale_F).clamp(-CLIP, CLIP)

    def score(self, z: torch.Tensor) -> torch.Tensor:
        """(..., F) standardised -> (...)."""
        crossed = z * self.up(self.down(z)) + z
        result: torch.Tensor = (self.mlp(crossed) + self.linear(z))[..., 0]
        return result

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., F) raw -> (...)."""
        told = self.score(self.standardise(x))
        return told if self.offset is None else told + self.offset_weight * self.offset(x)

    def measure(self, lists: Lists) -> None:
        """Read mean and scale from the real places of the training lists."""
        # In chunks: at once, numpy would hold three copies of the lists, two of them in double precision.
        chunks = [slice(at, at + CHUNK) for at in range(0, len(lists), CHUNK)]
        real = max(int(lists.real_NK.sum()), 1)

        def mean(of: Callable[[Floats32], npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
            total_F = np.zeros(lists.x_NKF.shape[2])
            for chunk in chunks:
                total_F += of(lists.x_NKF[chunk][lists.real_NK[chunk]]).sum(axis=0)
            return total_F / real

        mean_F = mean(lambda x_RF: x_RF.astype(np.float64))
        std_F = np.sqrt(mean(lambda x_RF: (x_RF.astype(np.float64) - mean_F) ** 2))
        self.mean_F.copy_(torch.from_numpy(mean_F.astype(np.float32)))
        scale_F = np.where(std_F > 1e-5, 1.0 / np.maximum(std_F, 1e-5), 0.0)
        self.scale_F.copy_(torch.from_numpy(scale_F.astype(np.float32)))


def listwise_loss(net: nn.Module, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Softmax cross-entropy over each list, weighted by gain, divided by the square root of the list's gain."""
    x_BKF, gain_BK, real_BK = batch
    score_BK = net(x_BKF).masked_fill(~real_BK, -1e9)
    log_p_BK = torch.log_softmax(score_BK, dim=1)
    total_B = gain_BK.sum(1)
    loss = -((gain_BK * log_p_BK).sum(1) / total_B.sqrt()).mean()
    if isinstance(net, RankerNet) and net.l1:
        loss = loss + net.l1 * (net.linear.weight.abs().sum() + net.down.weight.abs().sum())
    return loss


def train(
    lists: Lists,
    params: RankerParams,
    *,
    validate: Callable[[RankerNet], float] | None = None,
    stop_after: int | None = None,
    checkpoints: Path | None = None,
    progress: Progress = quiet,
) -> tuple[RankerNet, Curves]:
    """Fit on lists with at least one wanted item; `validate` (higher is better) stops early."""
    torch.manual_seed(params.seed)
    net = RankerNet(lists.x_NKF.shape[2], params)
    net.measure(lists)
    wanted = np.flatnonzero((lists.gain_NK * lists.real_NK).sum(axis=1) > 0)
    x_NKF, gain_NK = torch.from_numpy(lists.x_NKF), torch.from_numpy(lists.gain_NK)
    real_NK = torch.from_numpy(lists.real_NK)
    batch = max(min(params.batch, wanted.size // LEAST_STEPS), min(params.batch, LEAST_BATCH))

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        order = np.random.default_rng([params.seed, epoch]).permutation(wanted)
        for start in range(0, order.size, batch):
            rows = torch.from_numpy(order[start : start + batch])
            yield x_NKF[rows], gain_NK[rows], real_NK[rows]

    curves = fit(
        net,
        batches,
        listwise_loss,
        params.loop,
        name="ranker",
        steps_per_epoch=math.ceil(wanted.size / batch),
        stop_after=stop_after,
        validate=validate,  # type: ignore[arg-type]
        checkpoints=checkpoints,
        seed=params.seed,
        progress=progress,
    )
    return net, curves


def scores(net: RankerNet, x_CF: Floats32) -> Floats32:
    """(C, F) -> (C,) without gradients."""
    with torch.inference_mode():
        result: Floats32 = net(torch.from_numpy(x_CF)).numpy()
    return result


def contributions(net: RankerNet, x_F: Floats32, steps: int = 128) -> tuple[npt.NDArray[np.float64], float]:
    """(F,) integrated gradients from the average candidate to this one, and the score of that average.

    Complete: they add up to the score within 1e-3 (Sundararajan et al., 2017); those of an offset are in them.
    """
    with torch.no_grad():
        z_F = net.standardise(torch.from_numpy(x_F))
        base = float(net.score(torch.zeros_like(z_F)))
    along = ((torch.arange(steps, dtype=torch.float32) + 0.5) / steps)[:, None]
    points_SF = (along * z_F[None, :]).requires_grad_(True)
    (gradient_SF,) = torch.autograd.grad(net.score(points_SF).sum(), points_SF)
    added_F = (gradient_SF.mean(0) * z_F).detach().numpy().astype(np.float64)
    if net.offset is None:
        return added_F, base
    beside_F, beside = contributions(net.offset, x_F, steps)
    return added_F + net.offset_weight * beside_F, base + net.offset_weight * beside
