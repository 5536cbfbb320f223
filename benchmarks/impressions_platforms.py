"""SIMULATED: what a shopper did on the web, on their first pages in an app: one history, or one a platform.

    python -m benchmarks.impressions_platforms [--days 28] [--users 2000] [--sessions 1500] [--seed 7]

The same log is learned from twice by the same logistic regression over the same columns: as it is, and with each
shopper's web visits told as another person's, so that nothing else is lost. Judged: first pages of app visits, on the
last days, of shoppers who had been on the web before. The difference in AUC resamples shoppers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.impressions import KEPT, NEWEST_DAYS, flat, linear, say, shown
from benchmarks.impressions_truth import play_and_write
from features.cleaning import clean
from features.schema import Events, Items, Slates
from models.binary import auc, auc_difference
from models.impressions.columns import Catalogue, average_clicks, columns
from models.impressions.model import DAY_US, Floats
from models.impressions.pages import Bools, Pages
from models.impressions.taste import taste
from models.items import ContentSpace, ItemTable
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


def chances(pages: Pages, catalogue: Catalogue, asked: tuple[str, ...], cut_us: int) -> dict[str, Floats]:
    """Request -> (K,) logits of a click, by a logistic regression of the pages before the cut."""
    x_RKF, names = columns(pages, catalogue)
    taste_RK1 = taste(pages, catalogue, average_clicks(pages, x_RKF, names))[:, :, None]
    x_RKF = np.concatenate([x_RKF, taste_RK1], axis=2)
    early = pages.time_us_R < cut_us
    x_N, y_N = flat(pages.rows(early), x_RKF[early])
    keep = (y_N > 0) | (np.random.default_rng(0).random(y_N.size) < KEPT)
    logit = linear(x_N[keep], y_N[keep], np.where(y_N[keep] > 0, 1.0, 1 / KEPT), (x_N[:0], y_N[:0]), 0)
    place = {request: at for at, request in enumerate(pages.request_ids)}
    told = {}
    for request in asked:
        row = np.array([place[request]])
        told[request] = logit(flat(pages.rows(row), x_RKF[row])[0])
    return told


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
        folder = Path(name)
        play_and_write(params, folder / "tables", last_days=1)
        clean(folder / "tables", folder / "clean")
        slates, events, items = (
            pq.read_table(folder / "clean" / f"{table}.parquet") for table in (Slates.TABLE, Events.TABLE, Items.TABLE)
        )
    table = ItemTable.from_arrow(items)
    catalogue = Catalogue.of(table, ContentSpace.fit(table).vectors(table))
    one = Pages.from_tables(slates, events, table.index)
    cut_us = (int(one.time_us_R.max()) // DAY_US + 1 - 2 * NEWEST_DAYS) * DAY_US
    asked = one.rows(judged_pages(one, cut_us))
    say(f"{len(asked):,} pages are judged")
    split = Pages.from_tables(
        apart(slates, Slates.USER_ID, Slates.PLATFORM), apart(events, Events.USER_ID, Events.PLATFORM), table.index
    )
    joined, parted = (chances(pages, catalogue, asked.request_ids, cut_us) for pages in (one, split))
    label_N = asked.clicked_RK[asked.real_RK].astype(np.float64)
    user_N = np.broadcast_to(asked.shopper_R[:, None], asked.real_RK.shape)[asked.real_RK]
    first_N, second_N = (np.concatenate([told[request] for request in asked.request_ids]) for told in (joined, parted))
    print(f"SIMULATED, seed {args.seed}: {len(asked):,} first pages in the apps, {label_N.size:,} slots")
    print(f"one history over platforms: AUC {auc(label_N, first_N):.4f}; one a platform: {auc(label_N, second_N):.4f}")
    print(f"difference {shown(auc_difference(label_N, first_N, second_N, user_N, draws=200))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
