"""The closed loop: arms share their shoppers, bad nights are what they say, the table adds up. All of it simulated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest

from features.errors import UsageError
from features.tables import read_table
from flows import sabotage, simulate_report
from flows.simulate import ARMS, Night, Outcome
from flows.simulate_day import Visit, catalogue_changes, play_arm, values
from models.simulator import Shop, SimulatorParams, generate
from models.simulator.pages import CountedPages, OraclePages, PagePolicy, PlackettLucePages, PopularPages

SHOP = SimulatorParams(users=200, items=150, sessions_per_day=150, days=5, page_size=10)


@pytest.fixture(scope="module")
def played() -> Outcome:
    """Two days in which the oracle stands for ours."""
    shop = Shop(SHOP)
    policies: dict[str, PagePolicy] = dict.fromkeys(("ours", "oracle"), OraclePages())
    policies |= dict.fromkeys(("frozen", "popular by the truth"), PopularPages(shop))
    policies |= {"popular": CountedPages(SHOP.items), "random": PlackettLucePages(SHOP.items, 0.0, 0.0)}
    visits: dict[str, list[list[Visit]]] = {}
    for arm in ARMS:
        mine = shop.fork()
        visits[arm] = [play_arm(mine, policies[arm], day, 1, 0) for day in (0, 1)]
    return Outcome([1, 2], visits, [Night(0, "r", "pass", [], True, 1.0)])


def test_arms_meet_the_same_shoppers(played: Outcome) -> None:
    first = {arm: [visit.session_id for visit in played.visits[arm][0]] for arm in ARMS}
    assert all(sessions == first["ours"] for sessions in first.values())
    same = played.visits["ours"][1], played.visits["oracle"][1]
    assert [v.pages for v in same[0]] == [v.pages for v in same[1]]
    assert values(played.visits["oracle"][0]).mean() > values(played.visits["random"][0]).mean()


def test_the_table_says_simulated_and_the_oracle_closes_the_gap(played: Outcome, tmp_path: Path) -> None:
    told = simulate_report.table(played)
    assert told["simulated"] and told["days"][-1]["share_of_gap"] == 1.0
    assert told["days"][-1]["ours_minus_popular"]["low"] > 0
    words = "\n".join(simulate_report.lines(told))
    assert words.startswith("SIMULATED") and "night 0" in words
    simulate_report.picture(told, tmp_path / "loop.png")
    assert (tmp_path / "loop.png").stat().st_size > 5_000


def test_the_catalogue_of_a_morning_is_what_changed() -> None:
    shop = Shop(SHOP)
    changed = catalogue_changes(shop, 3)
    assert 0 < len(changed) < SHOP.items / 2
    assert any(not row["available"] for row in changed) or any(row["available"] for row in changed)


def test_a_bad_night_that_nobody_knows_is_refused() -> None:
    assert sabotage.planted(["2:labels", "3:poison"]) == {2: "labels", 3: "poison"}
    with pytest.raises(UsageError, match="write DAY:KIND"):
        sabotage.planted(["labels"])


def test_bad_nights_spoil_a_copy(tmp_path: Path) -> None:
    generate(SHOP, tmp_path / "tables")
    before = read_table(tmp_path / "tables", "events")
    spoiled = sabotage.spoiled(tmp_path / "tables", sabotage.LABELS)
    after = read_table(spoiled, "events")
    assert after.num_rows == before.num_rows and not after["item_id"].equals(before["item_id"])
    priced = read_table(sabotage.spoiled(tmp_path / "tables", sabotage.FEATURE), "items")
    mean = pc.mean(read_table(tmp_path / "tables", "items")["price"]).as_py()
    assert pc.mean(priced["price"]).as_py() == pytest.approx(100 * mean)
    assert read_table(tmp_path / "tables", "events").equals(before)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_days_of_the_loop(tmp_path: Path) -> None:
    """The real Bento over HTTP and one real night; the working tree must be committed, as for any retrain."""
    command = [sys.executable, "-m", "flows.cli", "simulate", "--days", "2", "--sessions", "200", "--json"]
    done = subprocess.run(
        command, env={**os.environ, "HOMERANKER_HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert len(told["days"]) == 2 and len(told["nights"]) == 2
    assert told["days"][-1]["value"]["ours"] > told["days"][-1]["value"]["random"]
