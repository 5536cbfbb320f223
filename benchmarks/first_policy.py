"""SIMULATED: what the page policy of a log of so many visits earns on a first page, by the truth.

    python -m benchmarks.first_policy [--sessions 300] [--days 5] [--users 200] [--seeds 4] [--shop NAME=VALUE,...]

A shop's old page is logged for some days; the policy that a retrain learns from it orders everything that is on sale
for every shopper the day after, and the truth says what the first 24 would earn: no draw, no luck, minutes for four
shops. It stands beside what it was without a prior (ridge 30: until November 2026). Shares are of the gap from the
popular page (counted on the same log) to the best page that knows every taste, but not what a visit comes for.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.command import finish
from benchmarks.impressions_truth import fresh_chances
from benchmarks.loop import laws_of
from features.cleaning import clean
from features.schema import Events, Items, Slates
from flows.loop_params import LoopParams
from models.blank import unlearned
from models.history import DAY_US
from models.items import ItemTable
from models.log import ActionLog
from models.metrics import estimate
from models.policy.impressions import Floats, People
from models.policy.plackett_luce import PlackettLuceParams
from models.policy.recipe import PolicyParams, learn_policy
from models.policy.value import ValueParams
from models.signals import Knowledge
from models.simulator import Shop, SimulatorParams, generate
from models.simulator.pages import PlackettLucePages

PLACES = 24
KINDS = {
    "without a prior": ValueParams(ridge=30.0, believed=0.0),
    "as it ships": ValueParams(),
}


def tables_of(params: SimulatorParams) -> dict[str, pa.Table]:
    """What the shop logged of its old page, clean."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(params, folder / "tables", PlackettLucePages(params.items, weight=LoopParams.old_page_weight))
        clean(folder / "tables", folder / "clean")
        names = (Slates.TABLE, Events.TABLE, Items.TABLE)
        return {table: pq.read_table(folder / "clean" / f"{table}.parquet") for table in names}


def played(params: SimulatorParams) -> dict[str, float]:
    """One shop: share of the gap by kind, and how many pages there were."""
    tables, shop = tables_of(params), Shop(params)
    slates, events = tables[Slates.TABLE], tables[Events.TABLE]
    items = ItemTable.from_arrow(tables[Items.TABLE])
    log = ActionLog.from_arrow(events, items.index, len(items), slates)
    end_us = (int(log.time_us.max()) // DAY_US + 1) * DAY_US
    known = set(shop.truth.people.user_ids)
    users = sorted(known.intersection(slates[Slates.USER_ID].to_pylist()))
    people = People(events, log, items)
    people.open_day(end_us, set(users))
    states = [people.state(user, None, end_us) for user in users]
    judged = unlearned(Knowledge.fit(log, items, end_us), end_us)
    sold_J = np.flatnonzero(judged.knowledge.on_sale(end_us) & (items.listed_at_I < end_us))
    chances = fresh_chances(shop.truth, users, [items.item_ids[item] for item in sold_J.tolist()], params.days - 1)
    worth_UJ = np.concatenate([shop.truth.value(one) for one in chances], axis=1)
    look_K = shop.truth.examination(np.arange(1, PLACES + 1))

    def earned(score_UJ: Floats) -> float:
        top_UK = np.argsort(-score_UJ, axis=1, kind="stable")[:, :PLACES]
        return float((np.take_along_axis(worth_UJ, top_UK, 1) * look_K).sum(axis=1).mean())

    low = earned(np.broadcast_to(judged.popular_I[sold_J], worth_UJ.shape).astype(np.float64))
    high = earned(worth_UJ)
    told = {"pages": float(len(set(slates[Slates.REQUEST_ID].to_pylist())))}
    for kind, value in KINDS.items():
        asked = replace(PolicyParams(), value=value, least_pages=50, least_clicks=20, gate_pages=0)
        made = learn_policy(slates, events, log, judged, None, asked, PlackettLuceParams(), None)
        assert made.model is not None, made.why  # noqa: S101 - these logs hold enough
        score_UJ = np.stack([made.model.score_items(state, end_us, sold_J).score_C for state in states])
        told[kind] = (earned(score_UJ.astype(np.float64)) - low) / (high - low)
    return told


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("sessions", 300), ("days", 5), ("users", 200), ("seeds", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--shop", default="", help="other laws of the shop: names of SimulatorParams that are numbers")
    asked = parser.parse_args()
    laws = laws_of(asked.shop)
    found = []
    for seed in range(1, asked.seeds + 1):
        size = {"users": asked.users, "sessions_per_day": float(asked.sessions), "days": asked.days}
        found.append(played(SimulatorParams(seed=seed, bots=1, **size, **laws)))
        shares = ", ".join(f"{kind} {found[-1][kind]:.1%}" for kind in KINDS)
        print(f"SIMULATED, seed {seed}, {found[-1]['pages']:,.0f} pages logged: {shares} of the gap", flush=True)
    ahead = estimate(np.array([one["as it ships"] - one["without a prior"] for one in found]))
    print(f"as it ships minus without a prior: {ahead.mean:+.1%} [{ahead.low:+.1%}, {ahead.high:+.1%}] of the gap")


if __name__ == "__main__":
    finish(main)
