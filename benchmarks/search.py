"""SIMULATED: does search order its hits better for the person than the words alone do?

    python -m benchmarks.search [--days 14] [--sessions 1500] [--weights 0 0.25 0.5]

Choices. The simulator's shoppers search for a noun of the category that they came for, after one page of popular items;
the truth is each hit's exact click probability for this shopper. Both orders hold the same hits (what the index finds),
so NDCG@10 compares orders only; values are averaged by user, and the interval of the difference is paired by user. The
model is a quick one, fitted on the days before. A weight of 0 is text relevance alone.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow as pa

from benchmarks.command import finish
from features.history import history_row, user_history
from features.schema import Events
from models.history import Action, UserState
from models.homepage import fit_simple
from models.metrics import estimate
from models.rules import Rules
from models.simulator import Session, Shop, SimulatorParams, play
from models.simulator.catalogue import VOCABULARY
from models.simulator.draws import Floats
from models.simulator.logs import day_tables
from models.simulator.pages import PlackettLucePages
from serving import answers, snapshot
from serving.params import ServingParams

K = 10


def ndcg(gain_C: Floats, order_C: np.ndarray) -> float:
    """NDCG@10 of one order of hits with graded gains."""
    discount = 1 / np.log2(np.arange(2, K + 2))
    best = np.sort(gain_C)[::-1][:K]
    return float((gain_C[order_C[:K]] * discount[: best.size]).sum() / (best * discount[: best.size]).sum())


def query_of(shop: Shop, session: Session) -> str:
    """A noun of the category that the shopper came for."""
    batch, row = session.batch, session.row
    nouns = tuple(VOCABULARY.values())[int(batch.intent_B[row])].split()
    return nouns[int(batch.key_B[row]) % len(nouns)]


def chances(shop: Shop, session: Session, index_C: np.ndarray) -> Floats:
    """(C,) the shopper's exact click probability of each hit, were it looked at first."""
    item_1C = index_C[None, :]
    return np.asarray(shop.probabilities(session.batch, session.rows, item_1C, np.ones_like(item_1C)).click[0])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--sessions", type=int, default=1500)
    parser.add_argument("--weights", type=float, nargs="*", default=[0.0, ServingParams.search_weight, 0.5])
    asked = parser.parse_args()
    params = replace(SimulatorParams(), days=asked.days)
    shop, policy = Shop(params), PlackettLucePages(params.items)
    parts = [
        rows
        for day in play(shop, policy, params.days, params.seed)
        for table, rows in day_tables(shop, day, policy.name)
        if table == Events.TABLE
    ]
    events, items = pa.concat_tables(parts).sort_by(Events.EVENT_TIME), shop.items(params.days - 1)
    model = fit_simple(events, items)
    frame = user_history(events.to_pandas())
    known = {row["user_id"]: history_row(row) for row in frame.to_dict("records")}
    now_us = model.trained_until_us
    shops = {
        weight: snapshot.build(model, [], Rules(), replace(ServingParams(), search_weight=weight), now_us)
        for weight in asked.weights
    }
    values: dict[float, dict[str, list[float]]] = {weight: defaultdict(list) for weight in asked.weights}
    shelf = shop.truth.catalogue.available(params.days)
    place = {item: at for at, item in enumerate(shop.truth.catalogue.item_ids)}
    popular = [item for item in np.argsort(-model.popular_I) if shelf[place[model.items.item_ids[item]]]][:24]
    page = [(slot, model.items.item_ids[item]) for slot, item in enumerate(popular, 1)]
    people = (session for session in shop.sessions(params.days) if not session.batch.bot_B[session.row])
    for session in islice(people, asked.sessions):
        told, _ = shop.respond(session, page, session.session_id)
        acts = [Action(e["item_id"], e["event_type"], now_us, session.session_id) for e in told if e["item_id"]]
        state = UserState.build(known.get(session.user_id), acts, model.items.index, session.session_id)
        for weight, now in shops.items():
            index_C, _, score_C = answers.hits(now, state, query_of(shop, session), now_us)
            if index_C.size < 2:
                break
            true_C = np.array([place[model.items.item_ids[at]] for at in index_C])
            value = ndcg(chances(shop, session, true_C), np.argsort(-score_C, kind="stable"))
            values[weight][session.user_id or session.session_id].append(value)
    print(f"SIMULATED: {params.days} days of a made shop, {items.num_rows} items, searches of the day after")
    alone: Floats | None = None
    for weight, by_user in values.items():
        mean_N = np.array([np.mean(one) for one in by_user.values()])
        alone = mean_N if alone is None else alone
        mine, more = estimate(mean_N), estimate(mean_N - alone)
        name = "text relevance alone" if weight == 0 else f"re-ranked, weight {weight:g}"
        told = f"{name:26} NDCG@10 {mine.mean:.4f} [{mine.low:.4f}, {mine.high:.4f}]"
        told += f"   minus text alone {more.mean:+.4f} [{more.low:+.4f}, {more.high:+.4f}]"
        print(f"{told}   {mine.users} users   SIMULATED")


if __name__ == "__main__":
    finish(main)
