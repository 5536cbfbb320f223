"""SIMULATED: the multi-task ranker beside LightGBM, logistic regression and the truth, on impressions with positions.

    python -m benchmarks.impressions [--days 28] [--users 2000] [--sessions 1500] [--seed 7] [--items 1500]

A shop with known truth is played, written as canonical tables, cleaned as a shop's would be (crawlers go), learned from
up to the last days and judged on those. Two truths stand in the table: `truth` knows each visit's hidden intent; no
ranker can, so `observer` is the best that is possible: it knows every law of the shop and every taste, and infers the
intent from the visit's own clicks. LightGBM and logistic regression read the same columns and the position; the
network reads the sequence and each shopper's own taste besides, and to be fair so does a second logistic regression.
Choices. Intervals and differences resample users. `of the way` is (model - logistic regression) / (ceiling - logistic
regression) in AUC. All three models are calibrated on the same days, which none was fitted on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression

from benchmarks.command import finish
from benchmarks.impressions_policy import policy_row
from benchmarks.impressions_truth import Told, play_and_write
from features.cleaning import clean
from features.schema import Events, Items, Slates
from models.binary import (
    auc,
    auc_by_user,
    auc_difference,
    calibration_gap,
    expected_calibration_error,
    log_losses,
    mean_by_user,
)
from models.impressions.columns import Catalogue, Floats32, average_clicks, columns
from models.impressions.model import DAY_US, Floats, ImpressionModel, platt, train
from models.impressions.network import ImpressionParams
from models.impressions.pages import Bools, Pages
from models.impressions.taste import taste
from models.items import ContentSpace, ItemTable
from models.metrics import Estimate
from models.simulator import SimulatorParams

Logit = Callable[[Floats32], Floats]
NEWEST_DAYS = 3  # to calibrate and stop on; as many again to judge on
KEPT = 0.25  # of the slots without a click, weighted back, for the two plain models


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


class Shop:
    """The cleaned log as arrays, its columns, and who lies before and after the cut."""

    def __init__(self, params: SimulatorParams, folder: Path) -> None:
        self.told: Told = play_and_write(params, folder / "tables", last_days=NEWEST_DAYS)
        clean(folder / "tables", folder / "clean")
        items = pq.read_table(folder / "clean" / f"{Items.TABLE}.parquet")
        self.items = ItemTable.from_arrow(items)
        self.catalogue = Catalogue.of(self.items, ContentSpace.fit(self.items).vectors(self.items))
        tables = [pq.read_table(folder / "clean" / f"{name}.parquet") for name in (Slates.TABLE, Events.TABLE)]
        self.pages = Pages.from_tables(*tables, self.items.index)
        self.x_RKF, self.with_taste_RKF = both_columns(self.pages, self.catalogue)
        cut_us = (int(self.pages.time_us_R.max()) // DAY_US + 1 - NEWEST_DAYS) * DAY_US
        self.clean = folder / "clean"
        self.judged_R: Bools = self.pages.time_us_R >= cut_us
        self.held_R: Bools = ~self.judged_R & (self.pages.time_us_R >= cut_us - NEWEST_DAYS * DAY_US)


def both_columns(pages: Pages, catalogue: Catalogue) -> tuple[Floats32, Floats32]:
    """(R, K, F) columns, and the same with each shopper's own taste."""
    x_RKF, names = columns(pages, catalogue)
    taste_RK1 = taste(pages, catalogue, average_clicks(pages, x_RKF, names))[:, :, None]
    return x_RKF, np.concatenate([x_RKF, taste_RK1], axis=2)


def thinned(x_N: Floats32, y_N: Floats, seed: int) -> tuple[Floats32, Floats, Floats]:
    """All clicks and KEPT of the other rows, with weights that make up for it."""
    keep = (y_N > 0) | (np.random.default_rng(seed).random(y_N.size) < KEPT)
    return x_N[keep], y_N[keep], np.where(y_N[keep] > 0, 1.0, 1 / KEPT)


def flat(pages: Pages, x_RKF: Floats32) -> tuple[Floats32, Floats]:
    """Real slots as rows: columns with the position last, and the click."""
    real = pages.real_RK
    position = np.minimum(pages.position_RK[real], 60).astype(np.float32)
    return np.column_stack([x_RKF[real], position]), pages.clicked_RK[real].astype(np.float64)


def plain_models(shop: Shop, seed: int) -> dict[str, tuple[Floats, float]]:
    """Name -> (calibrated probabilities of the judged slots, seconds)."""
    told = {}
    for name, fit, x_RKF in (
        ("logistic regression", linear, shop.x_RKF),
        ("the same with taste", linear, shop.with_taste_RKF),
        ("LightGBM", _trees, shop.x_RKF),
    ):
        early = ~shop.judged_R & ~shop.held_R
        x_N, y_N = flat(shop.pages.rows(early), x_RKF[early])
        held, judged = (flat(shop.pages.rows(part), x_RKF[part]) for part in (shop.held_R, shop.judged_R))
        began = time.perf_counter()
        logit = fit(*thinned(x_N, y_N, seed), held, seed)
        seconds = time.perf_counter() - began
        slope, offset = platt(logit(held[0]), held[1])
        told[name] = (1 / (1 + np.exp(-(slope * logit(judged[0]) + offset))), seconds)
    return told


def linear(x_N: Floats32, y_N: Floats, w_N: Floats, _held: tuple[Floats32, Floats], _seed: int) -> Logit:
    """Logistic regression with a term of each position: rows of `flat` -> logits."""
    mean, spread = x_N.mean(0), np.maximum(x_N.std(0), 1e-5)

    def wide(rows: Floats32) -> Floats32:
        slots = np.eye(61, dtype=np.float32)[rows[:, -1].astype(int)]
        return np.hstack([np.clip((rows[:, :-1] - mean[:-1]) / spread[:-1], -5, 5), slots])

    fitted = LogisticRegression(C=1.0, max_iter=200).fit(wide(x_N), y_N, w_N)
    return lambda rows: np.asarray(fitted.decision_function(wide(rows)), dtype=np.float64)


def _trees(x_N: Floats32, y_N: Floats, w_N: Floats, held: tuple[Floats32, Floats], seed: int) -> Logit:
    settings = {
        "objective": "binary", "num_leaves": 31, "learning_rate": 0.05, "min_data_in_leaf": 100, "lambda_l2": 5.0,
        "feature_fraction": 0.6, "bagging_fraction": 0.8, "bagging_freq": 1, "deterministic": True,
        "seed": seed, "verbose": -1,
    }  # fmt: skip
    data = lightgbm.Dataset(x_N, y_N, weight=w_N)
    fitted = lightgbm.train(
        settings, data, 600, valid_sets=[lightgbm.Dataset(*held, reference=data)],
        callbacks=[lightgbm.early_stopping(40, verbose=False)],
    )  # fmt: skip
    return lambda rows: np.asarray(fitted.predict(rows, raw_score=True), dtype=np.float64)


def shown(told: Estimate, digits: int = 4) -> str:
    """`+.0012 [+.0003, +.0021]`."""
    return f"{told.mean:+.{digits}f} [{told.low:+.{digits}f}, {told.high:+.{digits}f}]"


def print_table(named: dict[str, tuple[Floats, float]], label_N: Floats, user_N: np.ndarray, network: str) -> None:
    """AUC, AUC within users, log loss, and what the network is ahead."""
    area = {name: auc(label_N, p_N) for name, (p_N, _) in named.items()}
    mine = named[network][0]
    print("| SIMULATED | AUC | AUC within users | log loss | seconds | network's AUC - it | its log loss - network's |")
    print("|---|---|---|---|---|---|---|")
    for name, (p_N, seconds) in named.items():
        within = float(np.nanmean(auc_by_user(label_N, p_N, user_N)))
        ahead = cheaper = ""
        if name != network:
            ahead = shown(auc_difference(label_N, mine, p_N, user_N, draws=200))
            cheaper = shown(mean_by_user(log_losses(label_N, p_N) - log_losses(label_N, mine), user_N), digits=6)
        cells = [name, f"{area[name]:.4f}", f"{within:.4f}", f"{log_losses(label_N, p_N).mean():.5f}", f"{seconds:.0f}"]
        print("| " + " | ".join([*cells, ahead, cheaper]) + " |")
    base = area["logistic regression"]
    for ceiling in ("truth", "observer"):
        share = (area[network] - base) / (area[ceiling] - base)
        print(f"simulated: {share:.1%} of the way from logistic regression to the {ceiling}'s AUC")


def print_calibration(model: ImpressionModel, pages: Pages, x_RKF: Floats32) -> None:
    """ECE and the gap in the large, by task and by segment."""
    chances = model.chances(pages, x_RKF)
    real, clicked = pages.real_RK, pages.clicked_RK
    tasks = {
        "click": (chances.click[real], pages.clicked_RK[real]),
        "cart": (chances.cart[real], pages.carted_RK[real]),
        "purchase": (chances.purchase[real], pages.bought_RK[real]),
        "cart, given a click": (chances.cart_if_clicked[clicked], pages.carted_RK[clicked]),
        "purchase, given a click": (chances.buy_if_clicked[clicked], pages.bought_RK[clicked]),
    }
    segments = {
        "click, web": pages.platform_R == 0,
        "click, apps": pages.platform_R > 0,
        "click, no action before": pages.end_R == pages.start_R,
        "click, 20 actions or more before": pages.end_R - pages.start_R >= 20,
        "click, guests": pages.guest_R,
    }
    for name, rows_R in segments.items():
        part = real & rows_R[:, None]
        tasks[name] = (chances.click[part], pages.clicked_RK[part])
    print("\n| SIMULATED | rows | frequency | ECE | mean probability minus frequency |\n|---|---|---|---|---|")
    for name, (p_N, y_N) in tasks.items():
        if not y_N.size:
            continue
        ece, gap = expected_calibration_error(y_N, p_N), calibration_gap(y_N, p_N)
        print(f"| {name} | {y_N.size:,} | {y_N.mean():.4f} | {ece:.4f} | {gap:+.4f} |")


def print_examination(model: ImpressionModel, told: Told, slots: int) -> None:
    """The look of each position beside the true one."""
    positions = np.arange(1, slots + 1)
    mine, true = model.examination(positions), told.examination(positions)
    off = mine / true - 1
    print("\nsimulated: looks by position, relative to the first: model (truth)")
    print("  " + ", ".join(f"{at}: {m:.3f} ({t:.3f})" for at, m, t in zip(positions, mine, true, strict=True)))
    print(f"simulated: largest error {np.abs(off).max():.1%}, mean {np.abs(off).mean():.1%}")


def run(params: SimulatorParams, settings: ImpressionParams) -> None:
    """Play, learn, judge, print."""
    with tempfile.TemporaryDirectory(prefix="homeranker-impressions-") as name:
        began = time.perf_counter()
        shop = Shop(params, Path(name))
        say(f"played, cleaned, {shop.x_RKF.shape} columns in {time.perf_counter() - began:.0f} s")
        policy = policy_row(shop.clean, shop.items, shop.pages, shop.held_R, shop.judged_R)
    began = time.perf_counter()
    early = ~shop.judged_R
    model, curves = train(
        shop.pages.rows(early), shop.with_taste_RKF[early], shop.catalogue, settings, newest_days=NEWEST_DAYS,
        progress=lambda *told: say(f"  {told[0]} {told[1]}/{told[2]} {told[3]}"),
    )  # fmt: skip
    seconds = time.perf_counter() - began
    pages, x_RKF = shop.pages.rows(shop.judged_R), shop.with_taste_RKF[shop.judged_R]
    real = pages.real_RK
    label_N = pages.clicked_RK[real].astype(np.float64)
    user_N = np.broadcast_to(pages.shopper_R[:, None], real.shape)[real]
    truth_N, observer_N = shop.told.of(pages, shop.items)
    named = {
        "truth": (truth_N, 0.0),
        "observer": (observer_N, 0.0),
        "network": (model.chances(pages, x_RKF).click[real], seconds),
        "page policy of a retrain": policy,
        **plain_models(shop, params.seed),
    }
    print(
        f"SIMULATED shop, seed {params.seed}: {params.days} days, {params.users:,} users, {params.items:,} items; "
        f"{int((shop.pages.real_RK & early[:, None]).sum()):,} impressions to learn from, {label_N.size:,} judged "
        f"({label_N.mean():.2%} clicked); stopped after epoch {curves.best_epoch} of {len(curves.train_loss)}\n"
    )
    print_table(named, label_N, user_N, "network")
    print_calibration(model, pages, x_RKF)
    print_examination(model, shop.told, params.page_size)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("days", "users", "items", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(SimulatorParams, name))
    parser.add_argument("--sessions", type=float, default=SimulatorParams.sessions_per_day)
    parser.add_argument("--epochs", type=int, default=ImpressionParams().loop.epochs)
    args = parser.parse_args(argv)
    shop = SimulatorParams(
        seed=args.seed, days=args.days, users=args.users, items=args.items, sessions_per_day=args.sessions
    )
    settings = ImpressionParams()
    run(shop, replace(settings, loop=replace(settings.loop, epochs=args.epochs)))
    return 0


if __name__ == "__main__":
    finish(main)
