"""The simulated log as canonical tables, and the simulated shop as a Gymnasium environment."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from gymnasium.utils.env_checker import check_env

from features.expectations import validate
from features.schema import Events, Items, ItemVectors, Slates, Users
from features.tables import read_table
from features.validation import ValidationParams, raise_if_critical
from models.simulator import Shop, SimulatorParams, Truth, generate, simulate_log
from models.simulator.draws import codes
from models.simulator.env import PageEnv
from models.simulator.logs import without_pages
from models.simulator.pages import PlackettLucePages, explored_slots, slot_propensities

PARAMS = SimulatorParams(users=300, items=240, sessions_per_day=250, days=5, page_size=12, click_bias=-2.6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated")
    generate(PARAMS, path)
    return path


@pytest.fixture(scope="module")
def tables(folder: Path) -> dict[str, pd.DataFrame]:
    kinds = (Events, Slates, Items, Users)
    return {kind.TABLE: read_table(folder, kind.TABLE).to_pandas() for kind in kinds}


def _digest(folder: Path) -> dict[str, str]:
    files = sorted(folder.rglob("*.parquet"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_shop(folder: Path, tmp_path: Path) -> None:
    generate(PARAMS, tmp_path / "again")
    assert _digest(tmp_path / "again") == _digest(folder)
    generate(replace(PARAMS, seed=8), tmp_path / "other")
    other, first = _digest(tmp_path / "other"), _digest(folder)
    assert all(other[name] != first[name] for name in first.keys() & other.keys())


def test_the_tables_pass_validation_and_open_all_tiers(folder: Path) -> None:
    easy = ValidationParams(tier_purchases=20, tier_users=20, tier_views=1000, tier_impressions=1000)
    report = validate(folder, easy)
    raise_if_critical(report)
    assert [tier.open for tier in report.tiers] == [True] * 4
    failed = [check.rule for check in report.checks if not check.passed and check.severity == "warning"]
    assert all(rule.startswith("bots:") for rule in failed), failed


def test_every_answer_names_the_slot_that_it_answers(tables: dict[str, pd.DataFrame]) -> None:
    events, slates = tables["events"], tables["slates"]
    answers = events[events[Events.REQUEST_ID].notna()]
    key = [Slates.REQUEST_ID, Slates.ITEM_ID, Slates.POSITION, Slates.SESSION_ID]
    joined = answers.merge(slates[[*key, Slates.SERVED_AT]], on=key, how="left")
    assert len(joined) == len(answers) and joined[Slates.SERVED_AT].notna().all()
    assert (joined[Events.EVENT_TIME] > joined[Slates.SERVED_AT]).all()
    clicked = answers[answers[Events.EVENT_TYPE] == "click"][[Events.REQUEST_ID, Events.ITEM_ID]]
    for kind in ("view", "add_to_cart", "purchase"):
        later = answers[answers[Events.EVENT_TYPE] == kind][[Events.REQUEST_ID, Events.ITEM_ID]]
        assert len(later.merge(clicked)) == len(later) > 0
    assert events[Events.EVENT_ID].is_unique and {"search", "return"} <= set(events[Events.EVENT_TYPE])
    sales = events[events[Events.EVENT_TYPE].isin(["purchase", "return"])]
    assert (sales[Events.CURRENCY] == "GBP").all() and sales[Events.PRICE].gt(0).all()


def test_pages_of_a_session_follow_each_other(tables: dict[str, pd.DataFrame]) -> None:
    pages = tables["slates"].groupby([Slates.SESSION_ID, Slates.REQUEST_ID])[Slates.SERVED_AT].first().reset_index()
    pages["page"] = pages[Slates.REQUEST_ID].str.rsplit("-").str[-1].astype(int)
    pages = pages.sort_values([Slates.SESSION_ID, "page"])
    gap = pages.groupby(Slates.SESSION_ID)[Slates.SERVED_AT].diff().dropna()
    assert (gap > pd.Timedelta(0)).all() and (gap < pd.Timedelta(minutes=30)).all() and len(gap) > 100
    hours = pages[Slates.SERVED_AT].dt.hour
    assert hours.between(8, 22).mean() > 0.8
    assert pages[Slates.SERVED_AT].dt.date.nunique() == PARAMS.days


def test_nothing_is_shown_before_its_launch_or_while_out_of_stock(tables: dict[str, pd.DataFrame]) -> None:
    catalogue = Truth(PARAMS, PARAMS.seed).catalogue
    slates = tables["slates"]
    day = (slates[Slates.SERVED_AT].dt.date - PARAMS.first_day).map(lambda gap: gap.days)
    shown = pd.DataFrame({"day": day, "item": slates[Slates.ITEM_ID].str[1:].astype(int)}).drop_duplicates()
    shelf = np.stack([catalogue.available(at) for at in range(PARAMS.days)])
    assert shelf[shown["day"], shown["item"]].all()
    assert not shelf.all() and (catalogue.launch_day_I > 0).any()
    out = (~shelf & (catalogue.launch_day_I <= np.arange(PARAMS.days)[:, None])).mean()
    assert 0.01 < out < 0.09
    assert tables["items"][Items.AVAILABLE].mean() < 1


def test_bots_guests_platforms_and_missing_consent_are_there(tables: dict[str, pd.DataFrame]) -> None:
    slates, users = tables["slates"], tables["users"]
    people = Truth(PARAMS, PARAMS.seed).people
    bots = {people.user_ids[at] for at in np.flatnonzero(people.bot_U)}
    assert bots & set(slates[Slates.USER_ID].dropna())
    assert 0.02 < slates[Slates.USER_ID].isna().mean() < 0.2
    assert set(slates[Slates.PLATFORM]) == {"web", "ios", "android"}
    assert 0 < (~users[Users.PERSONALIZATION_CONSENT].astype(bool)).mean() < 0.1
    two = slates.groupby(Slates.USER_ID)[Slates.PLATFORM].nunique()
    assert (two > 1).mean() > 0.1
    assert not any(word in "".join(users.columns) for word in ("bot", "taste", "intent"))


def test_an_image_says_what_an_item_is_and_noise_does_not(tmp_path: Path) -> None:
    params = replace(PARAMS, modalities=True, days=1)
    truth = Truth(params, params.seed)
    generate(params, tmp_path)
    vectors = read_table(tmp_path, ItemVectors.TABLE).to_pandas()
    for modality, low, high in (("image", 0.7, 1.0), ("noise", -0.1, 0.1)):
        mine = vectors[vectors[ItemVectors.MODALITY] == modality]
        found = np.stack(mine[ItemVectors.VECTOR].to_list())
        true = truth.catalogue.vector_ID[mine[ItemVectors.ITEM_ID].str[1:].astype(int)]
        assert low < np.corrcoef(found.ravel(), true.ravel())[0, 1] < high


def test_words_may_say_nothing_of_an_item(tmp_path: Path) -> None:
    generate(replace(PARAMS, words=False, days=1), tmp_path)
    items = read_table(tmp_path, Items.TABLE).to_pandas()
    assert set(items[Items.TITLE]) == {"article"} and items[[Items.BRAND, Items.CATEGORY]].isna().all(axis=None)
    assert items[Items.PRICE].nunique() > 1


def test_logged_propensities_are_the_frequencies_of_the_draw() -> None:
    """120,000 pages of 3 from 6 items: first slots against their propensity, later ones given the slots above."""
    shop = Shop(SimulatorParams(users=60, items=60, sessions_per_day=50, page_size=3))
    policy, rng = PlackettLucePages(60), np.random.default_rng(5)
    policy.utility_I[:6] = [2.0, 1.0, 0.5, 0.0, -0.5, -1.0]
    shelf = np.arange(60) < 6
    pages = policy.pages(shop, shop.open(0), np.zeros(120_000, np.int64), shelf, rng)
    assert all(len(set(row)) == 3 for row in pages.item_RK[:100].tolist())
    for slot in range(3):
        above = pages.item_RK[:, :slot] @ np.array([6, 1])[:slot]
        for code in np.unique(above):
            here = above == code
            for item in range(6):
                hit = here & (pages.item_RK[:, slot] == item)
                if not hit.any():
                    continue
                told = pages.propensity_RK[hit, slot]
                assert np.allclose(told, told[0])
                noise = np.sqrt(told[0] * (1 - told[0]) / here.sum())
                assert abs(hit.sum() / here.sum() - told[0]) < 4.5 * noise
    assert np.allclose(pages.explored_RK[:, 0], pages.item_RK[:, 0] != 0)


def test_propensities_by_hand() -> None:
    told = slot_propensities(np.array([4.0, 3.0, 2.0, 1.0]), np.array([[2, 0, 1]]))
    assert np.allclose(told, [[2 / 10, 4 / 8, 3 / 4]])
    assert explored_slots(np.array([[0, 1, 2], [1, 0, 2], [0, 5, 1]])).tolist() == [
        [False, False, False],
        [True, False, False],
        [False, True, False],
    ]


def test_ids_of_sessions_do_not_tell_the_user() -> None:
    ids = codes(7, "session", np.arange(100_000))
    assert np.unique(ids).size == ids.size


def test_the_environment_passes_gymnasiums_checker_and_repeats_itself() -> None:
    env = PageEnv(SimulatorParams(users=120, items=120, sessions_per_day=60, days=4), candidates=20, page_size=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)
    runs = [_episode(env, seed=4), _episode(env, seed=4)]
    assert runs[0] == runs[1] and runs[0][-1] <= 1 + 1e-9


def _episode(env: PageEnv, seed: int) -> list[float]:
    """Rewards of a session in which slot after slot is filled with the most popular free candidate."""
    seen, _ = env.reset(seed=seed)
    rewards, done, info = [], False, {}
    while not done:
        action = int(np.argmax(np.where(seen["free"] > 0, seen["popularity"], -1.0)))
        seen, reward, done, _, info = env.step(np.int64(action))
        assert env.observation_space.contains(seen)
        rewards.append(reward)
    assert info["oracle"] >= info["value"] > 0
    return [*rewards, info["value"] / info["oracle"]]


def test_a_shop_that_logged_no_page_is_simulated_with_its_events_alone() -> None:
    shop = replace(PARAMS, users=30, sessions_per_day=40.0, days=1)
    logged = list(simulate_log(shop))
    left = list(without_pages(logged))
    assert {name for name, _ in logged} - {name for name, _ in left} == {"slates"}
    before, after = (pa.concat_tables(rows for name, rows in told if name == "events") for told in (logged, left))
    assert before["request_id"].null_count < before.num_rows == after["request_id"].null_count
    assert after.schema == before.schema and after.drop(["request_id", "position"]) == before.drop(
        ["request_id", "position"]
    )
