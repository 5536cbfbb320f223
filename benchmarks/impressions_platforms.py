"""SIMULATED: what a shopper did on the web, on their first pages in an app: one history, or one a platform.

    python -m benchmarks.impressions_platforms [--days 28] [--users 2000] [--sessions 1500] [--seed 7]

The same log is learned from twice by the same logistic regression over the same columns: as it is, and with each
shopper's web visits told as another person's, so that nothing else is lost. Judged: first pages of app visits, on the
last days, of shoppers who had been on the web before. The difference in AUC resamples shoppers.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.command import finish
from benchmarks.impressions import Shop, both_columns, flat, linear, say, shown, thinned
from features.schema import Events, Slates
from models.binary import auc, auc_difference
from models.impressions.columns import Floats32
from models.impressions.model import DAY_US, Floats
from models.impressions.pages import Bools, Pages
from models.simulator import SimulatorParams

WEB = 0


def apart(table: pa.Table, user: str, platform: str) -> pa.Table:
    """The table with the web's rows of each user as another user's."""
    names = table[user]
    other = pc.binary_join_element_wise(names, pa.scalar("web"), "@")
    web = pc.fill_null(pc.equal(table[platform], "web"), False)
    return table.set_column(table.schema.get_field_index(user), user, pc.if_else(web, other, names))


def judged_pages(pages: Pages, cut_us: int) -> Bools:
    """(R,) first pages of app visits after the cut, of shoppers who had seen a page on the web before."""
    first_R = np.zeros(len(pages), np.bool_)
    first_R[np.unique(pages.session_R, return_index=True)[1]] = True
    web_R = pages.platform_R == WEB
    began: dict[int, int] = {}
    for shopper, at in zip(pages.shopper_R[web_R].tolist(), pages.time_us_R[web_R].tolist(), strict=True):
        began.setdefault(shopper, at)
    never = np.iinfo(np.int64).max
    known_R = np.array([began.get(one, never) for one in pages.shopper_R.tolist()]) < pages.time_us_R
    result: Bools = first_R & ~web_R & known_R & ~pages.guest_R & (pages.time_us_R >= cut_us)
    return result


def chances(pages: Pages, x_RKF: Floats32, asked: tuple[str, ...], cut_us: int) -> Floats:
    """(N,) logits of a click on the real slots of these requests, by a logistic regression of the pages before it."""
    early = pages.time_us_R < cut_us
    x_N, y_N = flat(pages.rows(early), x_RKF[early])
    logit = linear(*thinned(x_N, y_N, 0), (x_N[:0], y_N[:0]), 0)
    place = {request: at for at, request in enumerate(pages.request_ids)}
    rows = np.array([place[request] for request in asked])
    return logit(flat(pages.rows(rows), x_RKF[rows])[0])


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--sessions", type=float, default=1500)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args(argv)
    params = SimulatorParams(days=args.days, users=args.users, sessions_per_day=args.sessions, seed=args.seed)
    with tempfile.TemporaryDirectory(prefix="homeranker-platforms-") as name:
        shop = Shop(params, Path(name))
        tables = [
            apart(pq.read_table(Path(name) / "clean" / f"{table}.parquet"), user, platform)
            for table, user, platform in (
                (Slates.TABLE, Slates.USER_ID, Slates.PLATFORM), (Events.TABLE, Events.USER_ID, Events.PLATFORM),
            )
        ]  # fmt: skip
    pages, split = shop.pages, Pages.from_tables(*tables, shop.items.index)
    cut_us = int(pages.time_us_R[shop.judged_R | shop.held_R].min()) // DAY_US * DAY_US
    asked = pages.rows(judged_pages(pages, cut_us))
    say(f"{len(asked):,} pages are judged")
    first_N = chances(pages, shop.with_taste_RKF, asked.request_ids, cut_us)
    second_N = chances(split, both_columns(split, shop.catalogue)[1], asked.request_ids, cut_us)
    label_N = asked.clicked_RK[asked.real_RK].astype(np.float64)
    user_N = np.broadcast_to(asked.shopper_R[:, None], asked.real_RK.shape)[asked.real_RK]
    print(f"SIMULATED, seed {args.seed}: {len(asked):,} first pages in the apps, {label_N.size:,} slots")
    print(f"one history over platforms: AUC {auc(label_N, first_N):.4f}; one a platform: {auc(label_N, second_N):.4f}")
    print(f"difference {shown(auc_difference(label_N, first_N, second_N, user_N, draws=200))}")
    return 0


if __name__ == "__main__":
    finish(main)
