"""The shop with known truth: what it says about its shoppers is what they do. All of it is simulated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import UsageError
from models.simulator import Shop, SimulatorParams, Truth
from models.simulator.draws import uniform
from models.simulator.logs import play
from models.simulator.pages import OraclePages, PlackettLucePages, PopularPages
from models.simulator.sessions import sessions_at
from models.simulator.truth import MAX_VISITS

SMALL = SimulatorParams(users=300, items=240, sessions_per_day=300, days=6)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(SMALL, 11)


@pytest.fixture
def shop(truth: Truth) -> Shop:
    return Shop(truth=truth)


def test_events_are_as_frequent_as_the_readable_probabilities_say(truth: Truth) -> None:
    """40,000 sessions see one page; clicks, carts, purchases and returns by slot against the exact means."""
    eager = Truth(replace(SMALL, cart_bias=0.0, buy_bias=0.0, return_bias=0.0), 11)
    shop = Shop(truth=eager)
    user = np.flatnonzero(~eager.people.bot_U & (eager.people.arrival_U <= 5))
    item_K = np.flatnonzero(eager.catalogue.available(5))[:12]
    counts, exact, variance = np.zeros((4, 12)), np.zeros((4, 12)), np.zeros((4, 12))
    for day in range(5, 45):
        batch = sessions_at(eager, day, np.repeat(user, MAX_VISITS), np.tile(np.arange(MAX_VISITS), user.size))
        rows = np.arange(len(batch))
        item_RK = np.broadcast_to(item_K, (rows.size, 12))
        chances = shop.probabilities(batch, rows, item_RK, np.broadcast_to(np.arange(1, 13), item_RK.shape))
        told = [chances.click, chances.click * chances.cart, chances.purchase, chances.purchase * chances.give_back]
        answers = shop.answer(batch, rows, item_RK, remember=False)
        done = [answers.clicked_RK, answers.carted_RK, answers.bought_RK, answers.returned_on_RK >= 0]
        for at in range(4):
            counts[at] += done[at].sum(axis=0)
            exact[at] += told[at].sum(axis=0)
            variance[at] += (told[at] * (1 - told[at])).sum(axis=0)
    z = (counts - exact) / np.sqrt(variance)
    assert counts.sum(axis=1).min() > 400
    assert np.abs(z).max() < 4.0 and abs(float((z**2).mean()) - 1) < 0.6


def test_the_value_of_a_page_is_the_mean_of_what_happens(shop: Shop) -> None:
    eager = Shop(replace(SMALL, click_bias=-1.0, cart_bias=0.0, buy_bias=0.0), 11)
    user = np.flatnonzero(~eager.truth.people.bot_U)
    told, got = [], []
    item_K = np.arange(8)
    for day in range(10):
        batch = sessions_at(eager.truth, day, user, np.zeros_like(user))
        rows, item_RK = np.arange(len(batch)), np.broadcast_to(item_K, (user.size, 8))
        chances = eager.probabilities(batch, rows, item_RK, np.broadcast_to(item_K + 1, item_RK.shape))
        answers = eager.answer(batch, rows, item_RK, remember=False)
        assert np.allclose(answers.expected_R, eager.truth.value(chances).sum(axis=1))
        told.append(answers.expected_R)
        got.append(answers.value(eager.truth).sum(axis=1))
    difference = np.concatenate(got) - np.concatenate(told)
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(difference.size)


def test_no_page_beats_the_oracle(shop: Shop) -> None:
    session = next(iter(shop.sessions(0)))
    best = shop.oracle_page(session, 6)
    shelf = np.flatnonzero(shop.truth.catalogue.available(0))
    rng = np.random.default_rng(0)
    for _ in range(100):
        items = rng.choice(shelf, 6, replace=False)
        page = [(at, shop.truth.catalogue.item_ids[item]) for at, item in enumerate(items, 1)]
        assert shop.regret(session, page) >= 0
    shuffled = [(at, item) for (at, _), (_, item) in zip(best, reversed(best), strict=True)]
    assert shop.regret(session, best) == 0 and shop.regret(session, shuffled) > 0
    few = shop.oracle_page(session, 6, available=["i00001", "i00002"])
    assert {item for _, item in few} == {"i00001", "i00002"}


def test_attention_falls_with_the_position_on_the_known_curve(truth: Truth) -> None:
    curve = truth.examination(np.arange(1, 25))
    assert curve[0] == 1 and (np.diff(curve) < 0).all()
    assert np.allclose(curve, (1 + np.arange(24) / SMALL.examination_scale) ** -SMALL.examination_power)


def test_tastes_drift_and_stay_tastes(truth: Truth) -> None:
    users = np.arange(300)
    today, later = truth.taste(users, 0), truth.taste(users, 28)
    cosine = (today * later).sum(axis=1)
    assert np.allclose(cosine, np.cos(np.radians(28 * SMALL.drift_degrees)))
    assert np.allclose(np.linalg.norm(later, axis=1), 1)
    best_now = (today @ truth.catalogue.vector_ID.T).argmax(axis=1)
    best_later = (later @ truth.catalogue.vector_ID.T).argmax(axis=1)
    assert (best_now != best_later).mean() > 0.3


def test_an_intent_shows_in_the_session_and_not_in_the_history(truth: Truth) -> None:
    """Between a user's sessions intents agree no more than by chance; within a session clicks tell the intent."""
    shop = Shop(replace(SMALL, click_bias=-2.0), 11)
    user = np.flatnonzero(~truth.people.bot_U)
    intent_DU = np.stack([_by_user(truth, day, user) for day in range(60)])
    share_L = truth.catalogue.leaf_share_L * (1 - SMALL.browse_share)
    chance = float((share_L**2).sum())
    same = np.mean([(intent_DU[a] == intent_DU[a + 1]) & (intent_DU[a] >= 0) for a in range(59)])
    assert abs(same - chance) < 0.01
    batch = sessions_at(truth, 0, user, np.zeros_like(user))
    item_RK = np.broadcast_to(np.flatnonzero(truth.catalogue.available(0)), (len(batch), 0 + _shelf(truth)))
    answers = shop.answer(batch, np.arange(len(batch)), item_RK, np.ones_like(item_RK), remember=False)
    leaf_RK, wish_R1 = truth.catalogue.leaf_I[item_RK], batch.intent_B[:, None]
    in_intent = (leaf_RK == wish_R1)[answers.clicked_RK & (wish_R1 >= 0)].mean()
    by_chance = (leaf_RK == wish_R1)[np.broadcast_to(wish_R1 >= 0, item_RK.shape)].mean()
    assert in_intent > 2 * by_chance


def _by_user(truth: Truth, day: int, user: np.ndarray) -> np.ndarray:
    batch = sessions_at(truth, day, user, np.zeros_like(user))
    return batch.intent_B[np.argsort(batch.user_B)]


def _shelf(truth: Truth) -> int:
    return int(truth.catalogue.available(0).sum())


def test_bored_shoppers_leave_and_well_served_ones_come_back(truth: Truth) -> None:
    stay = truth.stay(np.array([0, 1, 2, 0]), np.array([0, 0, 0, SMALL.max_pages - 1]))
    assert stay[0] < stay[1] < stay[2] and stay[3] == 0
    human = ~truth.people.bot_U & (truth.people.arrival_U <= 0)
    low, high = (truth.visit_rate(np.full(human.size, s), 0)[human] for s in (0.1, 0.9))
    assert np.allclose(high / low, np.exp(0.8 * SMALL.return_gain))


def test_visits_are_as_frequent_as_told(truth: Truth) -> None:
    shop = Shop(truth=truth)
    days = 200
    count = sum(len(shop.open(day)) for day in range(10, 10 + days))  # no page is shown: satisfaction stays
    chance = truth.visit_probabilities(truth.visit_rate(shop.satisfaction_U, 10))
    expected = float(chance.sum()) * days
    assert abs(count - expected) < 4 * np.sqrt(expected)


def test_who_is_served_well_comes_more_often(truth: Truth) -> None:
    served, bored = Shop(truth=truth), Shop(truth=truth)
    well = sum(int((~day.batch.bot_B).sum()) for day in play(served, OraclePages(), 6, 1))
    badly = sum(int((~day.batch.bot_B).sum()) for day in play(bored, PlackettLucePages(240, 0.0, 0.0), 6, 1))
    assert well > badly and served.satisfaction_U.mean() > bored.satisfaction_U.mean()


def test_two_policies_meet_the_same_shoppers_with_the_same_luck(truth: Truth) -> None:
    one, other = Shop(truth=truth), Shop(truth=truth)
    a, b = next(play(one, OraclePages(), 1, 1)), next(play(other, PopularPages(other), 1, 99))
    assert (a.batch.key_B == b.batch.key_B).all() and (a.batch.intent_B == b.batch.intent_B).all()
    assert a.batch.session_ids == b.batch.session_ids and (a.batch.start_us_B == b.batch.start_us_B).all()
    same = a.waves[0].pages.item_RK == b.waves[0].pages.item_RK  # the same item in the same slot: the same answer
    assert same.any()
    assert (a.waves[0].answers.clicked_RK[same] == b.waves[0].answers.clicked_RK[same]).all()


def test_one_session_at_a_time_equals_the_whole_day(truth: Truth) -> None:
    whole, single = Shop(truth=truth), Shop(truth=truth)
    items = [f"i{at:05d}" for at in range(24)]
    batch = whole.open(0)
    rows = np.arange(len(batch))
    answers = whole.answer(batch, rows, np.broadcast_to(np.arange(24), (rows.size, 24)))
    table = whole.events(batch, rows, answers, [f"r-{name}" for name in batch.session_ids])
    sessions = sorted(single.sessions(0), key=lambda one: one.session_id)  # the order does not matter
    events = []
    for session in sessions:
        found, stays = single.respond(session, list(enumerate(items, 1)), f"r-{session.session_id}")
        assert stays == bool(answers.stays_R[session.row]) and session.now > session.started_at
        events += found
    key = lambda row: row["event_id"]  # noqa: E731
    assert sorted(events, key=key) == sorted(table.to_pylist(), key=key) and len(events) > 50
    assert len(whole.open(1)) == len(list(single.sessions(1)))


def test_what_was_bought_is_remembered_from_the_next_day_on(truth: Truth) -> None:
    shop = Shop(truth=truth)
    user = int(np.flatnonzero(~truth.people.bot_U)[0])
    consumable = int(np.flatnonzero(truth.catalogue.consumable_I)[0])
    lasting = int(np.flatnonzero(~truth.catalogue.consumable_I)[0])

    def attraction(item: int, day: int) -> float:
        batch = sessions_at(truth, day, np.array([user]), np.array([0]))
        chances = shop.probabilities(batch, np.array([0]), np.array([[item]]), np.array([[1]]))
        return float(chances.attract[0, 0])

    before = [attraction(consumable, 10), attraction(lasting, 10)]
    shop.bought_UI[user, [consumable, lasting]] = 2
    after = [attraction(consumable, 10), attraction(lasting, 10)]
    assert after[0] > before[0] and after[1] < before[1]
    shop.bought_UI[user, consumable] = 9  # yesterday: not yet used up
    assert attraction(consumable, 10) < before[0]


def test_sessions_that_came_to_buy_fill_baskets(truth: Truth) -> None:
    shop = Shop(truth=truth)
    batch = shop.open(0)
    rows, item = np.arange(len(batch)), np.zeros((len(batch), 1), np.int64)
    sale = shop.probabilities(batch, rows, item, item + 1).purchase[:, 0]
    human = ~batch.bot_B
    assert 0.05 < batch.mission_B[human].mean() < 0.2
    assert sale[human & batch.mission_B].mean() > 5 * sale[human & ~batch.mission_B].mean()


def test_bots_click_whatever_stands_there_and_buy_nothing(truth: Truth) -> None:
    shop = Shop(truth=truth)
    bot = np.flatnonzero(truth.people.bot_U)[:1]
    batch = sessions_at(truth, 3, bot, np.array([0]))
    pages, clicks = 0, 0
    while True:
        answers = shop.answer(batch, np.array([0]), np.arange(24)[None])
        pages, clicks = pages + 1, clicks + int(answers.clicked_RK.sum())
        assert not answers.carted_RK.any() and not answers.bought_RK.any()
        if not answers.stays_R[0]:
            break
    assert pages == SMALL.bot_pages and abs(clicks / (24 * pages) - SMALL.bot_click) < 0.06


def test_a_wrong_question_is_refused_by_name(shop: Shop) -> None:
    session = next(iter(shop.sessions(3)))
    with pytest.raises(UsageError, match="'i99999' is not in the simulated catalogue"):
        shop.respond(session, [(1, "i99999")], "r1")
    with pytest.raises(UsageError, match="at least one slot"):
        shop.value_of(session, [])
    with pytest.raises(UsageError, match="days only ascend"):
        shop.open(3)
    with pytest.raises(UsageError, match="guest_share is a share"):
        SimulatorParams(guest_share=1.5)
    with pytest.raises(UsageError, match="page_size 24 needs at least 48 items"):
        SimulatorParams(items=30)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 1000))
def test_a_number_has_an_address(one: int, two: int, seed: int) -> None:
    both = uniform(seed, "a", np.array([one, two]), 3)
    assert both[0] == uniform(seed, "a", one, 3)[0] and both[1] == uniform(seed, "a", two, 3)[0]
    assert ((both > 0) & (both < 1)).all() and uniform(seed, "b", one, 3)[0] != both[0]


def test_addressed_numbers_are_uniform_and_not_correlated() -> None:
    u = uniform(3, "test", np.arange(300)[:, None], np.arange(300)[None, :])
    assert np.abs(np.histogram(u, 20, (0, 1))[0] / 4500 - 1).max() < 0.07
    for a, b in ((u[1:], u[:-1]), (u[:, 1:], u[:, :-1]), (u[1:, 1:], u[:-1, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.015
