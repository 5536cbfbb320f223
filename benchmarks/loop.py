"""Where the closed loop wins and loses: the service's own code in this process, without HTTP and DVC. SIMULATED.

    python -m benchmarks.loop [--days 7] [--sessions 600] [--seed 1] [--arms ours,frozen,...] [--shop NAME=VALUE,...]

Arms beside `ours` (retrained every night; of the gate, the off-policy proofs decide): `frozen` on the first model; on
the first model too, each with one thing less: `no draw` (neither temperature, floor nor diversity), `no learning`
(between retrains), `no visit` (the running visit's acts are not told to the page). Bounds on the same shoppers:
popular by count, popular by the truth (clicks), random, the oracle, and `blind`, the oracle that does not know what a
visit came for: what a long history could tell. Beside the value of a visit's first two pages stands the share of them
that lies in the category that it came for. Value is GBP a session, the exact expectation of what was shown; the share
is of the gap from `popular` to the oracle.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.command import finish
from features.cleaning import clean
from features.history import HistoryParams, user_history, with_tastes, write_history
from features.schema import Events, Items, Slates, Users
from features.tables import TableWriter
from flows.loop_params import NIGHT, LoopParams
from flows.online import bring_online
from flows.paths import Home
from flows.serving import export
from flows.simulate_day import Client, Visit, catalogue_changes, play_arm, serve_day, values
from models import recipe
from models.blank import unlearned
from models.gate import PASS, proofs
from models.history import DAY_US
from models.homepage import HomepageModel
from models.items import ItemTable
from models.log import ActionLog
from models.policy.plackett_luce import PlackettLuceParams
from models.policy.recipe import PolicyParams, learn_policy
from models.signals import Knowledge
from models.simulator import Shop
from models.simulator.logs import day_tables, play_day
from models.simulator.pages import CountedPages, OraclePages, PagePolicy, PlackettLucePages, PopularPages
from models.simulator.shop import day_of
from serving import answers
from serving.contract import EventsRequest, HomepageRequest, ItemsRequest
from serving.learning import Learning
from serving.params import ServingParams, from_environment
from serving.runtime import Runtime

ARMS = ("ours", "frozen", "no draw", "no learning", "no visit")


class Direct(Client):
    """The service in this process, asked as a client asks it."""

    def __init__(self, home: Path, model: Path, params: ServingParams, visits: bool = True) -> None:
        self.home, self._visits = home, visits
        self.runtime = Runtime(from_environment({"HOMERANKER_HOME": str(home)}), model)
        self.runtime.params, self.runtime.learning = params, Learning(params.learning)
        self.runtime.start()
        self.runtime.settle()  # a swap keeps what was learned; this one starts anew

    def call(self, method: str, path: str, body: Any, now: datetime) -> dict[str, Any]:
        """As over HTTP."""
        at_us = round(now.timestamp() * 1e6)
        if path == "/v1/homepage":
            asked = body if self._visits else body | {"session_id": f"{body['session_id']}-{at_us}"}
            return answers.homepage(self.runtime, HomepageRequest(**asked), at_us)
        if path == "/v1/items":
            rows = [row | {"listed_at": row["listed_at"].isoformat()} for row in body["items"]]
            return answers.put_items(self.runtime, ItemsRequest(items=rows), at_us)
        rows = [row | {"event_time": row["event_time"].isoformat()} for row in body["events"]]
        return answers.events(self.runtime, EventsRequest(events=rows), at_us)


@dataclass
class Log:
    """Everything that the shop knows by a midnight, clean."""

    slates: pa.Table
    events: pa.Table
    items: ItemTable
    actions: ActionLog

    @classmethod
    def read(cls, tables: Path, scratch: Path) -> Log:
        """Clean the canonical tables."""
        clean(tables, scratch)
        found = {name: pq.read_table(scratch / f"{name}.parquet") for name in (Slates.TABLE, Events.TABLE, Items.TABLE)}
        items = ItemTable.from_arrow(found[Items.TABLE])
        actions = ActionLog.from_arrow(found[Events.TABLE], items.index, len(items), found[Slates.TABLE])
        return cls(found[Slates.TABLE], found[Events.TABLE], items, actions)


@dataclass
class Night:
    """What a night made: the model as it was judged, and what the proof said."""

    judged: HomepageModel
    passed: bool
    said: str


def night(log: Log, until_us: int, dest: Path, champion: HomepageModel | None) -> Night:
    """Learn as the night does (the last day judges), refresh, save."""
    cut = until_us - DAY_US
    knowledge = Knowledge.fit(log.actions, log.items, cut)
    judged = unlearned(knowledge, cut)
    value = replace(PolicyParams().value, max_pages=NIGHT["policy"]["value"]["max_pages"])
    params = replace(PolicyParams(), value=value)
    asked = (log.slates, log.events, log.actions, judged, None, params, PlackettLuceParams(), None)
    told = learn_policy(*asked, champion=champion)
    assert told.model is not None and told.proof is not None, told.why  # noqa: S101 - ten days hold enough
    recipe.refresh(told.model, log.actions, log.items, until_us).save(dest)
    checks = proofs(told.proof.to_json(), told.against and told.against.to_json(), told.rival)
    said = "; ".join(f"{check.rule}: {check.observed}" for check in checks)
    if told.worth is not None:
        worth = told.worth
        said += f"; a click is worth {worth.base:.3f} (later in its visit {worth.staying:.3f})"
        said += f" + {worth.slope:.4f} x price"
    return Night(told.model, all(check.verdict == PASS for check in checks), said)


class Bench:
    """One shop, its arms and its bounds."""

    def __init__(
        self, root: Path, sessions: int, days: int, seed: int, laws: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        params = LoopParams()
        self.warm, self.root, self.seed = params.warm_days, root, seed
        self.champion: HomepageModel | None = None  # as it was judged
        self.served: Path | None = None
        size: dict[str, Any] = {"sessions_per_day": float(sessions), "days": params.warm_days + days}
        shop = replace(params.shop, seed=seed, **size, **laws)
        self.shop, self.tables = Shop(shop), root / "tables"
        self.counted = CountedPages(shop.items)
        old, writers = PlackettLucePages(shop.items, weight=params.old_page_weight), dict[str, TableWriter]()
        for day in range(self.warm):
            played = play_day(self.shop, old, day, seed)
            self.counted.learn([wave.answers for wave in played.waves], np.random.default_rng(0))
            for table, rows in day_tables(self.shop, played, old.name):
                writers.setdefault(table, TableWriter(self.tables, table)).write(rows)
        last = self.warm - 1
        for table, rows in ((Items.TABLE, self.shop.items(last)), (Users.TABLE, self.shop.users(last))):
            writers.setdefault(table, TableWriter(self.tables, table)).write(rows)
        for writer in writers.values():
            writer.close()

    def midnight(self, day: int) -> int:
        """Microseconds at the start of a day."""
        first = self.shop.params.first_day
        return round(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp() * 1e6) + day * DAY_US

    def learn(self, day: int) -> tuple[Path, Path]:
        """The model that the gate's proof lets serve on a day, and the histories up to it."""
        began, model = time.monotonic(), self.root / f"model-{day}"
        log = Log.read(self.tables, self.root / "clean")
        made = night(log, self.midnight(day), model, self.champion)
        if made.passed or self.served is None:
            self.champion, self.served = made.judged, model
        history = user_history(log.events.to_pandas(), HistoryParams(), (self.midnight(day),))
        history = with_tastes(history, log.actions.tastes(log.items, self.midnight(day)))
        path = write_history(history, self.root / f"history-{day}.parquet")
        told = f"night before day {day - self.warm + 1}: {time.monotonic() - began:.0f} s"
        print(f"{told}; {'let in' if made.passed else 'not let in'}; {made.said}", flush=True)
        return self.served, path

    def client(self, arm: str, model: Path, history: Path) -> Direct:
        """One arm's service in a home of its own."""
        home = self.root / arm.replace(" ", "-")
        bring_online(Home(home), history)
        params = ServingParams()
        if arm == "no draw":
            params = replace(params, temperature=1e-4, floor=0.0, diversity=0.0)
        if arm == "no learning":
            params = replace(params, learning=replace(params.learning, enabled=False))
        return Direct(home, model, params, visits=arm != "no visit")


def told(name: str, visits: list[Visit], low: float, high: float) -> str:
    """One line of the table."""
    both = np.array([visit.pages[:2] for visit in visits if len(visit.pages) > 1]).mean(axis=0)
    value, first = values(visits).mean(), np.mean([visit.pages[0] for visit in visits])
    share = (value - low) / (high - low)
    wanted = [visit.intended[:2] for visit in visits if len(visit.intended) > 1]
    follows = "" if not wanted else "   what they came for {:.1%} {:.1%}".format(*np.mean(wanted, axis=0))
    showed = [visit.intended[:2] for visit in visits if len(visit.intended) > 1 and visit.said]
    if showed:
        follows += "; of {} visits that clicked on it first {:.1%} {:.1%}".format(len(showed), *np.mean(showed, axis=0))
    return (
        f"{name:>22} {value:8.3f} {share:8.1%}   first {first:.3f}   pages 1, 2 of the same {both[0]:.3f} {both[1]:.3f}"
        + f"   {np.mean([len(visit.pages) for visit in visits]):.2f} pages"
        + follows
    )


def laws_of(text: str) -> dict[str, Any]:
    """`NAME=VALUE,...` as fields of SimulatorParams."""
    pairs = (pair.partition("=") for pair in text.split(",") if pair)
    return {name: float(value) for name, _, value in pairs}


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--sessions", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--shop", default="", help="other laws of the shop: names of SimulatorParams that are numbers")
    asked = parser.parse_args()
    laws = laws_of(asked.shop)
    which = f"seed {asked.seed}, {asked.sessions} sessions a day{', ' if laws else ''}{asked.shop}"
    print(f"SIMULATED, {which}: GBP a session, share of the gap", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), asked.sessions, asked.days, asked.seed, laws)
        run(bench, asked.days, asked.arms.split(","))


def run(bench: Bench, days: int, arms: list[str]) -> None:
    """Day by day: bounds, arms, the night."""
    shop, warm = bench.shop, bench.warm
    bounds: dict[str, PagePolicy] = {
        "popular": bench.counted,
        "popular by the truth": PopularPages(shop),
        "random": PlackettLucePages(shop.params.items, 0.0, 0.0),
        "blind": OraclePages(blind=True),
        "oracle": OraclePages(),
    }
    shops = {name: shop.fork() for name in (*bounds, *arms)}
    model, history = bench.learn(warm)
    clients = {arm: bench.client(arm, model, history) for arm in arms}
    for day in range(warm, warm + days):
        found = {name: play_arm(shops[name], policy, day, bench.seed, warm) for name, policy in bounds.items()}
        for arm, client in clients.items():
            client.put_items(catalogue_changes(shop, day), datetime.fromtimestamp(bench.midnight(day) / 1e6, UTC))
            found[arm] = serve_day(shops[arm], day, client, warm)
        low, high = (float(values(found[name]).mean()) for name in ("popular", "oracle"))
        print(f"day {day - warm + 1}", *(told(name, visits, low, high) for name, visits in found.items()), sep="\n")
        if "ours" in arms and day + 1 < warm + days:
            clients["ours"].runtime.stop()
            export(clients["ours"].home, bench.tables, day_of(shop.params, day))
            clients["ours"] = bench.client("ours", *bench.learn(day + 1))
    for client in clients.values():
        client.runtime.stop()


if __name__ == "__main__":
    finish(main)
