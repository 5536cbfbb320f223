"""The page policy that learns from impressions: what a slot is worth to this person, whatever its position.

Choices. The same network as the ranker, over the same features, so that it serves, explains and is checked like one;
its score is the logarithm of a slot's expected value, up to a constant. It is fitted to the clicks on what was shown,
and a term for each position takes up what is attention and not wish. It starts as the best linear model, whose prior is
that appeal and own taste are the log-odds that they say they are and nothing else counts (a small log says no more, and
a large one overrules it), and keeps what the deep part adds only where held-out pages agree. Counts that follow from
what pages showed are switched off: an item that was seldom shown has few, however good it is; its appeal knows better.
A page that was chosen by a ranker shows only what that one thinks much of: what tells shown from never shown cannot be
learned from it, and a network fitted to it alone thinks as much of everything. So where people also find items without
a page, by search and by browsing, the ranker of next visits stays beneath the network as an offset, in log-odds as it
is, and counts by the share of acts that followed no page; by the same share, where the log has shown little, what pages
hardly showed is believed less (a lower bound of its appeal; caution.py). What a click is worth at an item's price is a
line through the log's carts and purchases, which are too rare to be learned item by item, and joins the score through
the weight of the price. Greedy on that score is the contextual bandit of horizon one page; Plackett-Luce with a floor
samples it.
Source: position-based model (Richardson et al., 2007) as an additive tower (Guo et al., 2019).
Shapes: N pages, K slots, F features.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.columns import SHOWN_MORE
from models.policy.impressions import Bools, Floats, Floats32, Impressions, Ints
from models.ranker import Lists, RankerNet, RankerParams, scores
from models.training import Curves, LoopParams, Progress, fit, quiet

POSITIONS = 101
POSITION_RIDGE, NEWTON = 1.0, 6
PRIOR = {"appeal": 1.0, "taste_of_pages": 1.0}  # weights of what is in log-odds already


@dataclass(frozen=True)
class Worth:
    """What a click on an item of a price is worth: `base` + `slope` x price, in the shop's currency.

    `staying` is the part of `base` that comes later in the visit (visit.py).
    """

    base: float
    slope: float
    staying: float = 0.0

    def of(self, price: Floats) -> Floats:
        """Same shape as the prices."""
        return self.base + self.slope * price


@dataclass(frozen=True)
class ValueParams:
    """Reward weights (a click, a cart, the margin of a sale) and how the network is trained."""

    click: float = 0.02
    cart: float = 0.10
    margin: float = 0.35
    rest_of_visit: float = 0.0  # how much what a click brings later in the visit counts; 0: a bandit of one page
    max_pages: int = 20_000  # the newest before the cut
    ridge: float = 1000.0  # how surely the columns weigh what they weigh before anybody clicked
    believed: float = 1.0  # of that prior
    organic: float = 1.0  # of the ranker's score of next visits, times the share of acts that followed no page
    pessimism: float = 8.0  # standard deviations, at most, that an appeal must be better by, times that share
    net: RankerParams = field(
        default_factory=lambda: RankerParams(batch=64, loop=LoopParams(epochs=3, learning_rate=1e-3, weight_decay=0.05))
    )


def worth_of_clicks(seen: Impressions, params: ValueParams) -> Worth:
    """Clicks x their price against what followed; the slope is the sales' share of the price that was clicked."""
    clicked = seen.clicked_NK & seen.real_NK
    clicks = max(1.0, float(clicked.sum()))
    base = params.click + params.cart * float((seen.carted_NK & clicked).sum()) / clicks
    looked_at = float(seen.price_NK[clicked].sum())
    return Worth(base, params.margin * float(seen.paid_NK[clicked].sum()) / looked_at if looked_at > 0 else 0.0)


class PositionNet(nn.Module):
    """(B, K, F), (B, K) positions -> (B, K) logits; the position's part stays behind when `ranker` serves."""

    def __init__(self, n_features: int, params: RankerParams) -> None:
        super().__init__()
        self.ranker = RankerNet(n_features, params)
        self.position = nn.Embedding(POSITIONS, 1)
        nn.init.zeros_(self.position.weight)

    def start(self, seen: Impressions, ridge: float, prior_F: Floats | None = None) -> None:
        """Begin as the best linear model beside a term for each position; what it switches off stays off.

        `prior_F`: weights by unit of a column, 0 where None.
        """
        place_M = np.clip(seen.position_NK[seen.real_NK], 0, POSITIONS - 1)
        with torch.no_grad():
            z_MF = self.ranker.standardise(torch.from_numpy(seen.x_NKF[seen.real_NK])).numpy()
            scale_F = self.ranker.scale_F.numpy().astype(np.float64)
            prior_F = np.zeros(scale_F.size) if prior_F is None else prior_F
            prior_F = np.divide(prior_F, scale_F, out=np.zeros(scale_F.size), where=scale_F > 0)
            offset_M, ranker = np.zeros(place_M.size), self.ranker
            if ranker.offset is not None:
                offset_M = ranker.offset_weight * scores(ranker.offset, seen.x_NKF[seen.real_NK]).astype(np.float64)
            mean, clicked_M = offset_M.mean(), seen.clicked_NK[seen.real_NK]
            weight_F, bias_S = linear_clicks(z_MF, place_M, clicked_M, ridge, prior_F, offset_M - mean)
            bias_S -= mean  # a step of Newton's starts from the rates of clicks
            for values in (*self.ranker.mlp[-1].parameters(), *self.ranker.linear.parameters()):
                values.zero_()
            self.ranker.linear.weight[0] = torch.from_numpy(weight_F.astype(np.float32))
            self.position.weight[:, 0] = torch.from_numpy(bias_S.astype(np.float32))

    def forward(self, x_BKF: torch.Tensor, position_BK: torch.Tensor) -> torch.Tensor:
        """Score and position's term."""
        result: torch.Tensor = self.ranker(x_BKF) + self.position(position_BK)[..., 0]
        return result


def before_clicks(names: Sequence[str], params: ValueParams) -> tuple[Bools, Floats]:
    """(F,) which of the named columns are switched off, and what each weighs, by its unit, before anybody clicked."""
    off_F = np.array([name.startswith(SHOWN_MORE) for name in names])
    return off_F, params.believed * np.array([PRIOR.get(name, 0.0) for name in names])


def linear_clicks(
    z_MF: Floats32, place_M: Ints, clicked_M: Bools, ridge: float, prior_F: Floats, offset_M: Floats | float = 0.0
) -> tuple[Floats, Floats]:
    """(F,) weights and a (S,) term of each position: logistic regression by Newton steps, ridge around `prior_F`.

    `offset_M` is part of the log-odds as it is. A position never shown gets the term of the nearest one that was.
    """
    shown_S = np.bincount(place_M, minlength=POSITIONS)
    rate = (float(clicked_M.sum()) + 1.0) / (place_M.size + 20.0)
    rate_S = (np.bincount(place_M, clicked_M, POSITIONS) + 20.0 * rate) / (shown_S + 20.0)
    bias_S, weight_F = np.log(rate_S / (1 - rate_S)), prior_F.copy()
    for _ in range(NEWTON):
        p_M = 1.0 / (
            1.0 + np.exp(-np.clip(z_MF @ weight_F.astype(np.float32) + bias_S[place_M] + offset_M, -30.0, 30.0))
        )
        spread_M, left_M = (p_M * (1 - p_M)).astype(np.float32), (clicked_M - p_M).astype(np.float32)
        scaled_MF = z_MF * spread_M[:, None]
        own_S = np.bincount(place_M, spread_M, POSITIONS) + POSITION_RIDGE
        both_SF = np.zeros((POSITIONS, z_MF.shape[1]))
        for place in np.flatnonzero(shown_S):
            both_SF[place] = scaled_MF[place_M == place].sum(axis=0)
        gradient_S = np.bincount(place_M, left_M, POSITIONS)
        gradient_F = z_MF.T @ left_M - ridge * (weight_F - prior_F)
        hessian_FF = (z_MF.T @ scaled_MF).astype(np.float64) + ridge * np.eye(weight_F.size)
        hessian_FF -= both_SF.T @ (both_SF / own_S[:, None])
        step_F = np.linalg.solve(hessian_FF, gradient_F - both_SF.T @ (gradient_S / own_S))
        weight_F += step_F
        bias_S += (gradient_S - both_SF @ step_F) / own_S
    known = np.flatnonzero(shown_S)
    return weight_F, bias_S[known[np.abs(np.arange(POSITIONS)[:, None] - known).argmin(axis=1)]]


def click_loss(net: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Logistic loss of the clicks; padding counts nothing."""
    x_BKF, position_BK, clicked_BK, real_BK = batch
    loss_BK = nn.functional.binary_cross_entropy_with_logits(net(x_BKF, position_BK), clicked_BK, reduction="none")
    return (loss_BK * real_BK).sum() / real_BK.sum()


def learn(
    seen: Impressions,
    params: ValueParams,
    off_F: Bools | None = None,
    prior_F: Floats | None = None,
    offset: tuple[RankerNet, float] | None = None,
    *,
    validate: Callable[[PositionNet], float] | None = None,
    stop_after: int | None = None,
    checkpoints: Path | None = None,
    progress: Progress = quiet,
) -> tuple[PositionNet, Curves]:
    """Fit on impressions without the features of `off_F`; with `validate` (higher is better) the best net is kept.

    `prior_F`: what the columns weigh before anybody clicked; `offset`: a network beneath this one, and its weight.
    """
    torch.manual_seed(params.net.seed)
    net = PositionNet(seen.x_NKF.shape[2], params.net)
    if offset is not None:
        net.ranker.stand_on(*offset)
    net.ranker.measure(Lists(seen.x_NKF, np.zeros(seen.real_NK.shape, np.float32), seen.real_NK))
    if prior_F is not None:  # on the first day of a log nothing has an appeal yet
        net.ranker.scale_F[torch.from_numpy(prior_F > 0) & (net.ranker.scale_F == 0)] = 1.0
    if off_F is not None:
        net.ranker.scale_F[torch.from_numpy(off_F)] = 0.0
    net.start(seen, params.ridge, prior_F)
    linear = copy.deepcopy(net.state_dict())
    least = -math.inf if validate is None else validate(net)
    x_NKF, real_NK = torch.from_numpy(seen.x_NKF), torch.from_numpy(seen.real_NK)
    position_NK, clicked_NK = _positions(seen), _clicked(seen)

    def batches(epoch: int) -> Iterator[tuple[torch.Tensor, ...]]:
        order = np.random.default_rng([params.net.seed, epoch]).permutation(len(x_NKF))
        for start in range(0, order.size, params.net.batch):
            rows = torch.from_numpy(order[start : start + params.net.batch])
            yield x_NKF[rows], position_NK[rows], clicked_NK[rows], real_NK[rows]

    curves = fit(
        net,
        batches,
        click_loss,
        params.net.loop,
        name="page policy",
        steps_per_epoch=math.ceil(len(x_NKF) / params.net.batch),
        stop_after=stop_after,
        validate=validate,  # type: ignore[arg-type]
        checkpoints=checkpoints,
        seed=params.net.seed,
        progress=progress,
    )
    if validate is not None and max(curves.validation, default=-math.inf) < least:
        net.load_state_dict(linear)
    return net, curves


def add_worth(ranker: RankerNet, price_feature: int, worth: Worth, price: Floats) -> None:
    """Turn click scores into values: the slope of log(worth) over log(1 + price) joins the price's weight, in place."""
    log_price, log_worth = np.log1p(price), np.log(worth.of(price))
    spread = float(((log_price - log_price.mean()) ** 2).sum())
    if spread <= 0:
        return
    slope = float(((log_price - log_price.mean()) * log_worth).sum()) / spread
    scale = float(ranker.scale_F[price_feature])
    with torch.no_grad():
        ranker.linear.weight[0, price_feature] += slope / scale if scale > 0 else 0.0


def believe_less(ranker: RankerNet, doubt_feature: int, weight: float) -> None:
    """Let each unit of a column that nothing was learned of take `weight` from the score, in place."""
    first = ranker.mlp[0]
    assert isinstance(first, nn.Linear)  # noqa: S101 - how RankerNet is built
    with torch.no_grad():
        ranker.mean_F[doubt_feature], ranker.scale_F[doubt_feature] = 0.0, 1.0
        first.weight[:, doubt_feature] = 0.0
        ranker.down.weight[:, doubt_feature] = 0.0
        ranker.linear.weight[0, doubt_feature] = -weight


def held_out(net: PositionNet, seen: Impressions) -> float:
    """Minus the loss on pages that the network did not see."""
    batch = (torch.from_numpy(seen.x_NKF), _positions(seen), _clicked(seen), torch.from_numpy(seen.real_NK))
    with torch.inference_mode():
        return -float(click_loss(net, batch))


def _clicked(seen: Impressions) -> torch.Tensor:
    return torch.from_numpy(seen.clicked_NK.astype(np.float32))


def _positions(seen: Impressions) -> torch.Tensor:
    return torch.from_numpy(np.clip(seen.position_NK, 0, POSITIONS - 1))
