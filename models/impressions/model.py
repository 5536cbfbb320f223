"""A trained multi-task ranker: probabilities of click, cart and purchase, calibrated, and what a slot is worth.

Choices. Platt scaling of each task's logit on the newest days that the weights never saw; the look of a slot is part
of the click's fit, so that calibration does not undo it. Value = weights x probabilities, the purchase times price and
margin: a weight is money, stated in params.yaml.
Shapes: as in network.py; N slots, flat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize

from models.impressions.columns import Catalogue, Floats, Floats32, standardise
from models.impressions.network import AGES, Batch, ImpressionNet, ImpressionParams, Told, log_chances, loss_of
from models.impressions.pages import NO_ITEM, Ints, Pages
from models.training import Curves, Progress, fit, quiet

DAY_US = 86_400_000_000


@dataclass(frozen=True)
class ValueParams:
    """What an event is worth, in the shop's money; a purchase brings `margin` of its price."""

    click: float = 0.02
    cart: float = 0.10
    margin: float = 0.35


@dataclass(frozen=True)
class Chances:
    """(R, K) probabilities: a look relative to the first slot, a click in the slot as shown, then after a click."""

    look: Floats
    click: Floats
    cart_if_clicked: Floats
    buy_if_clicked: Floats

    @property
    def cart(self) -> Floats:
        """Click and cart."""
        return self.click * self.cart_if_clicked

    @property
    def purchase(self) -> Floats:
        """Click and purchase."""
        return self.click * self.buy_if_clicked

    def value(self, price_RK: Floats, params: ValueParams) -> Floats:
        """(R, K) expected money."""
        sale = params.margin * price_RK * self.buy_if_clicked
        return self.click * (params.click + params.cart * self.cart_if_clicked + sale)


@dataclass(frozen=True)
class ImpressionModel:
    """Weights and the (slope, offset) of each task's logit."""

    net: ImpressionNet
    platt: tuple[tuple[float, float], ...] = ((1.0, 0.0),) * 3

    def chances(self, pages: Pages, x_RKF: Floats32, position: bool = True) -> Chances:
        """Calibrated; with `position` False every slot is judged as the first (serving)."""
        click, cart, buy, log_look = logits(self.net, pages, x_RKF, position)
        look = np.exp(log_look)
        told = [_sigmoid(a * logit + b) for (a, b), logit in zip(self.platt, (click, cart, buy), strict=True)]
        return Chances(look, look * told[0], told[1], told[2])

    def examination(self, positions: Ints) -> Floats:
        """Share of the first slot's looks, by position."""
        with torch.no_grad():
            look: Floats = np.exp(self.net.log_look(torch.from_numpy(positions)).double().numpy())
        return look


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -30.0, 30.0))), dtype=np.float64)


def batch_of(net: ImpressionNet, pages: Pages, x_RKF: Floats32, at: Ints) -> Batch:
    """Some pages as tensors."""
    place_BH, real_BH = pages.history(at)
    longest = max(int(real_BH.sum(axis=1).max(initial=0)), 1)
    place_BH, real_BH = place_BH[:, :longest], real_BH[:, :longest]
    actions = pages.actions
    age_BH = np.maximum(pages.time_us_R[at][:, None] - actions.time_us[place_BH], 0) / 60e6
    bins_BH = np.clip(np.log2(1.0 + age_BH) * 0.6, 0, AGES - 1).astype(np.int64)  # minutes to months
    item_BK, real_BK = pages.item_RK[at], pages.item_RK[at] != NO_ITEM
    visit_BH = (actions.session[place_BH] == pages.session_R[at][:, None]) & real_BH
    label = np.stack([pages.clicked_RK[at], pages.carted_RK[at], pages.bought_RK[at]], axis=2)
    none = net.n_items
    arrays = (
        np.where(real_BK, item_BK, none), x_RKF[at], np.where(real_BK, np.maximum(pages.position_RK[at], 1), 0),
        np.where(real_BH, actions.item[place_BH], none), np.where(real_BH, actions.kind[place_BH], 0),
        bins_BH, visit_BH.astype(np.int64), label.astype(np.float32),
    )  # fmt: skip
    return Batch(*(torch.from_numpy(np.ascontiguousarray(one)) for one in arrays))


def logits(net: ImpressionNet, pages: Pages, x_RKF: Floats32, position: bool = True) -> tuple[Floats, ...]:
    """(R, K) each: click, cart, purchase logits and the log of the look."""
    net.eval()
    with torch.inference_mode():
        chunks = [np.arange(start, min(start + 512, len(pages))) for start in range(0, len(pages), 512)]
        parts: list[Told] = [net(batch_of(net, pages, x_RKF, at), position) for at in chunks]
    return tuple(np.concatenate([part[at].double().numpy() for part in parts]) for at in range(4))


def platt(logit_N: Floats, label_N: npt.NDArray[Any], look_N: Floats | None = None) -> tuple[float, float]:
    """(slope, offset) of most likelihood for p = look x sigmoid(slope x logit + offset); a slope is never negative."""
    label = np.asarray(label_N, dtype=np.float64)
    if label.size == 0 or label.min() == label.max():
        return 1.0, 0.0
    look = np.ones(label.size) if look_N is None else np.minimum(look_N, 1.0)

    def loss(ab: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        s = _sigmoid(ab[0] * logit_N + ab[1])
        p = np.clip(look * s, 1e-12, 1 - 1e-9)
        slope = (p - label) / (1 - p) * (1 - s)  # d loss / d logit
        return float(-(label * np.log(p) + (1 - label) * np.log1p(-p)).mean()), np.array(
            [(slope * logit_N).mean(), slope.mean()]
        )

    start = np.array([1.0, 0.0])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(1e-3, 10.0), (-20.0, 20.0)])
    return round(float(found.x[0]), 6), round(float(found.x[1]), 6)


def train(
    pages: Pages,
    x_RKF: Floats32,
    catalogue: Catalogue,
    params: ImpressionParams,
    *,
    newest_days: int = 3,
    progress: Progress = quiet,
) -> tuple[ImpressionModel, Curves]:
    """Fit on all but the newest days, stop early and calibrate on those."""
    newest = pages.time_us_R >= (int(pages.time_us_R.max()) // DAY_US + 1 - newest_days) * DAY_US
    learn, held = np.flatnonzero(~newest), np.flatnonzero(newest)
    torch.manual_seed(params.seed)
    net = ImpressionNet(pages.n_items, catalogue.content_IE.shape[1], x_RKF.shape[2], params)
    net.content_IE[: pages.n_items] = torch.from_numpy(catalogue.content_IE)
    mean_F, scale_F = standardise(x_RKF[learn], pages.real_RK[learn])
    net.mean_F.copy_(torch.from_numpy(mean_F))
    net.scale_F.copy_(torch.from_numpy(scale_F))
    start_linear(net, pages.rows(learn), x_RKF[learn])
    later, x_later = pages.rows(held), x_RKF[held]

    def batches(epoch: int) -> Iterator[Batch]:
        order = np.random.default_rng([params.seed, epoch]).permutation(learn)
        for start in range(0, order.size, params.batch):
            yield batch_of(net, pages, x_RKF, np.sort(order[start : start + params.batch]))

    def validate(_net: torch.nn.Module) -> float:
        click, _, _, log_look = logits(net, later, x_later)
        p = np.clip(np.exp(log_look) * _sigmoid(click), 1e-9, 1 - 1e-9)[later.real_RK]
        label = later.clicked_RK[later.real_RK]
        return float(np.log(np.where(label, p, 1 - p)).mean())

    curves = fit(
        net, batches, loss_of, params.loop, name="impressions", steps_per_epoch=math.ceil(learn.size / params.batch),
        validate=validate, seed=params.seed, progress=progress,
    )  # fmt: skip
    return ImpressionModel(net, calibrate(net, later, x_later)), curves


def start_linear(net: ImpressionNet, pages: Pages, x_RKF: Floats32, slots: int = 400_000) -> None:
    """Put the best linear click model and its look by position into the net: what the deep part starts from.

    Slots without a click are thinned to `slots` and weighted back.
    """
    rng = np.random.default_rng(net.params.seed)
    real, clicked = pages.real_RK, pages.clicked_RK
    kept = min(1.0, slots / max(int(real.sum()), 1))
    chosen = real & (clicked | (rng.random(real.shape) < kept))
    y_N, weight_N = (
        torch.from_numpy(one[chosen]) for one in (clicked.astype(np.float32), np.where(clicked, 1, 1 / kept))
    )
    z_NF = net.standardised(torch.from_numpy(x_RKF[chosen]))
    position_N = torch.from_numpy(np.maximum(pages.position_RK[chosen], 1))
    rate = max(float(clicked.sum() / max(real.sum(), 1)), 1e-6)
    line = torch.zeros(z_NF.shape[1] + 1)
    line[-1] = math.log(3 * rate)
    line.requires_grad_(True)
    solver = torch.optim.LBFGS([line, net.fall_P], max_iter=60, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        told = Told(z_NF @ line[:-1] + line[-1], y_N, y_N, net.log_look(position_N))
        log_p, log_not = log_chances(told)
        loss = (
            -((y_N * log_p + (1 - y_N) * log_not) * weight_N).sum() / weight_N.sum() + 1e-5 * line[:-1].square().sum()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        net.wide.weight[0, : z_NF.shape[1]] = line[:-1]
        net.heads.bias.copy_(torch.stack([line[-1].detach(), torch.tensor(-2.0), torch.tensor(-3.0)]))


def calibrate(net: ImpressionNet, pages: Pages, x_RKF: Floats32) -> tuple[tuple[float, float], ...]:
    """Platt's two numbers for each task, on pages that the weights never saw."""
    click, cart, buy, log_look = logits(net, pages, x_RKF)
    real, clicked = pages.real_RK, pages.clicked_RK
    return (
        platt(click[real], pages.clicked_RK[real], np.exp(log_look)[real]),
        platt(cart[clicked], pages.carted_RK[clicked]),
        platt(buy[clicked], pages.bought_RK[clicked]),
    )
