"""The closed loop: simulated shoppers, the real Bento over HTTP, and every night the real retrain on the log it left.

Choices. Days before the loop are made by the shop's old page (popularity with noise), as canonical tables: what a shop
has when it starts. Each night the service's log is exported into the same tables and retrained, gated and promoted like
any data; the service swaps the model by itself. The arm that is frozen on the first model has a service of its own, the
yardsticks (popular, random, oracle) are played in memory: all on the same shoppers with the same luck.
Everything is SIMULATED, and says so.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from features.errors import HomerankerError
from features.schema import Events, Items, Slates, Users
from features.tables import TableWriter, read_table
from flows import runs, sabotage
from flows.loop_params import NIGHT, LoopParams
from flows.online import bring_online
from flows.paths import Home
from flows.registry import Registry
from flows.serving import export
from flows.simulate_day import Client, Visit, catalogue_changes, play_arm, serve_day
from models.ope import SlotLog, estimate, faults
from models.simulator import Shop
from models.simulator.logs import day_tables, play_day, without_pages
from models.simulator.pages import CountedPages, OraclePages, PagePolicy, PlackettLucePages, PopularPages
from models.simulator.shop import day_of

Say = Callable[[str], None]
ARMS = ("ours", "frozen", "popular", "popular by the truth", "random", "oracle")
SWAP_S = 30.0


@dataclass
class Night:
    """What became of one night's retrain."""

    day: int
    run: str
    verdict: str
    reasons: list[str]
    promoted: bool
    seconds: float
    planted: str = ""


@dataclass
class Outcome:
    """Arm -> visits by day, and the nights."""

    days: list[int]
    visits: dict[str, list[list[Visit]]]
    nights: list[Night]
    rejected: int = 0
    seconds: float = 0.0
    checks: dict[str, Any] = field(default_factory=dict)


class Loop:
    """One closed loop in a home of its own."""

    def __init__(self, root: Path, params: LoopParams, days: int, sessions: int, seed: int, say: Say) -> None:
        self.days, self.warm, self.say, self.seed = days, params.warm_days, say, seed
        shop = replace(params.shop, seed=seed, sessions_per_day=float(sessions), days=params.warm_days + days)
        self.params, self.shop = params, Shop(shop)
        shutil.rmtree(root, ignore_errors=True)
        self.home, self.frozen = Home(root / "home"), Home(root / "frozen")
        self.tables = root / "tables"
        self.registry = Registry(self.home)
        self.popular = CountedPages(shop.items)

    def run(self, planted: Mapping[int, str]) -> Outcome:
        """Warm up, train the first model, then day by day; `planted`: day of the loop (from 1) -> sabotage."""
        began = time.monotonic()
        self.say(f"simulated: {self.warm} days of the old page, {self.params.shop.users} shoppers")
        self._warm_up()
        nights = [self._night(0, "")]
        visits: dict[str, list[list[Visit]]] = {arm: [] for arm in ARMS}
        outcome = Outcome(list(range(1, self.days + 1)), visits, nights)
        with ExitStack() as stack:
            ours, frozen = self._serve(stack)
            for number in outcome.days:
                self._day(number, ours, frozen, outcome, planted.get(number, ""))
        outcome.checks = self._propensities_checked()
        outcome.seconds = time.monotonic() - began
        return outcome

    def _propensities_checked(self) -> dict[str, Any]:
        """Propensities of our pages against frequencies: the greedy share over its probability is 1 in the mean."""
        export(self.home.root, self.tables, None)
        slates = read_table(self.tables, Slates.TABLE)
        old = pc.starts_with(pc.fill_null(slates[Slates.MODEL_VERSION], ""), "simulated-")
        log = SlotLog.from_tables(slates.filter(pc.invert(old)), read_table(self.tables, Events.TABLE))
        share = estimate(np.where(log.explored_N, 0.0, 1.0 / log.propensity_N))
        told = f"{share.mean:.3f} [{share.low:.3f}, {share.high:.3f}] over {log.item_N.size:,} drawn slots"
        return {
            "greedy share over propensity (1 if exact)": told,
            "faults of our log": [fault.why for fault in faults(log) if fault.name == "wrong propensities"],
        }

    def _warm_up(self) -> None:
        shop, policy = self.shop, PlackettLucePages(self.params.shop.items, weight=self.params.old_page_weight)
        writers: dict[str, TableWriter] = {}
        for day in range(self.warm):
            played = play_day(shop, policy, day, self.seed)
            self.popular.learn([wave.answers for wave in played.waves], np.random.default_rng(0))
            logged = day_tables(shop, played, policy.name)
            for table, rows in logged if self.params.old_page_logged else without_pages(logged):
                writers.setdefault(table, TableWriter(self.tables, table)).write(rows)
        for table, rows in ((Items.TABLE, shop.items(self.warm - 1)), (Users.TABLE, shop.users(self.warm - 1))):
            writers.setdefault(table, TableWriter(self.tables, table)).write(rows)
        for writer in writers.values():
            writer.close()
        self.shops = {arm: shop.fork() for arm in ARMS}

    def _yardsticks(self) -> dict[str, PagePolicy]:
        return {
            "popular": self.popular,
            "popular by the truth": PopularPages(self.shop),
            "random": PlackettLucePages(self.params.shop.items, 0.0, 0.0),
            "oracle": OraclePages(),
        }

    def _serve(self, stack: ExitStack) -> tuple[Client, Client]:
        from serving.package import served

        champion = self.registry.pointer("champion")
        run = self.registry.run_dir(str(champion["run"]) if champion else "last")
        bring_online(self.frozen, run / "history.parquet")
        # A first model that was refused meets nobody: the shop opens with the service's popular page.
        bases = [
            stack.enter_context(served(run / "bento", home.root, fallback=champion is None, HOMERANKER_REPLAY="1"))[0]
            for home in (self.home, self.frozen)
        ]
        self._policies = self._yardsticks()
        return Client(bases[0]), Client(bases[1])

    def _day(self, number: int, ours: Client, frozen: Client, outcome: Outcome, planted: str) -> None:
        day, shop = self.warm + number - 1, self.shops["ours"]
        began, midnight = time.monotonic(), self._moment(day)
        changes = catalogue_changes(shop, day)
        for client in (ours, frozen):
            client.put_items(changes, midnight)
        with ThreadPoolExecutor(2) as pool:  # each service has one worker, and so one of the two cores
            frozen_day = pool.submit(serve_day, self.shops["frozen"], day, frozen, self.warm)
            outcome.visits["ours"].append(serve_day(shop, day, ours, self.warm, self._progress(f"day {number}")))
            outcome.visits["frozen"].append(frozen_day.result())
        if planted == sabotage.POISON:
            sabotage.poison(ours, shop, day)
        for arm, policy in self._policies.items():
            outcome.visits[arm].append(play_arm(self.shops[arm], policy, day, self.seed, self.warm))
        took = time.monotonic() - began
        mean = {arm: sum(visit.value for visit in found[-1]) / len(found[-1]) for arm, found in outcome.visits.items()}
        told = ", ".join(f"{arm} {value:.3f}" for arm, value in mean.items())
        self.say(f"simulated day {number} ({day_of(self.params.shop, day)}), {took:.0f} s: GBP a session: {told}")
        if number == self.days:
            return
        export(self.home.root, self.tables, day_of(self.params.shop, day))
        night = self._night(number, planted)
        outcome.nights.append(night)
        if night.promoted:
            self._wait_for_swap(ours)

    def _moment(self, day: int) -> datetime:
        first = self.params.shop.first_day
        return datetime(first.year, first.month, first.day, tzinfo=UTC) + timedelta(days=day)

    def _progress(self, label: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            if done % 500 == 0:
                self.say(f"simulated {label}: {done}/{total} visits")

        return tell

    def _night(self, number: int, planted: str) -> Night:
        """Retrain on the log as it was exported, and promote what passed."""
        from features.errors import ValidationFailed

        began, until = time.monotonic(), day_of(self.params.shop, self.warm + number - 1)
        data = sabotage.spoiled(self.tables, planted) if planted else self.tables
        night = Night(number, "", "refuse", [], False, 0.0, planted)
        try:
            request = runs.Request(str(data), until, "simulate", f"night {number}", True, NIGHT)
            record = runs.start(self.home, request, lambda _stage, _told: None).record
            night.run, night.verdict = record["run"], record["verdict"]
            verdict = self.registry.run_dir(night.run) / "verdict.json"
            night.reasons = list(_json(verdict)["reasons"])
            if night.verdict == "pass":
                bring_online(self.home, self.registry.run_dir(night.run) / "history.parquet")
                self.registry.promote(night.run, False, None)
                night.promoted = True
        except ValidationFailed as error:
            night.reasons = [str(error).splitlines()[0]]
        night.seconds = time.monotonic() - began
        what = "promoted" if night.promoted else f"{night.verdict}: {'; '.join(night.reasons)[:300]}"
        self.say(f"simulated night {number}: {night.seconds:.0f} s, {planted + ', ' if planted else ''}{what}")
        return night

    def _wait_for_swap(self, client: Client) -> None:
        champion = self.registry.pointer("champion") or {}
        end = time.monotonic() + SWAP_S
        while time.monotonic() < end:
            if client.call("GET", "/v1/model", None, datetime.now(UTC))["model_version"] == champion["version"]:
                return
            time.sleep(0.2)
        raise HomerankerError(f"simulate: the service did not take up model {champion['version']} in {SWAP_S:g} s")


def _json(path: Path) -> dict[str, Any]:
    import json

    told: dict[str, Any] = json.loads(path.read_text())
    return told
