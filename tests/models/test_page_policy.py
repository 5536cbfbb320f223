"""A page policy from impressions: what it reads is what was shown, what it learns beats the position alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.cleaning import clean
from flows.sabotage import shuffled
from models.appeal import Shown
from models.blank import unlearned, unranked
from models.calibration import Calibration
from models.columns import feature_names
from models.gate import CHAMPION, SERVED
from models.history import Action, UserState
from models.homepage import HomepageModel
from models.items import ItemTable
from models.live_signals import SIGNALS, knows_clicks, prior
from models.log import ActionLog
from models.ope import OpeParams, judge
from models.ope.log import Bools, SlotLog
from models.policy.caution import ENOUGH, least_caution, shown_shares
from models.policy.impressions import Floats, Impressions, Page, People, impressions, pages_of
from models.policy.plackett_luce import PlackettLuce, PlackettLuceParams, utilities
from models.policy.proof import place_probabilities, scores_of_shown, target_probabilities
from models.policy.recipe import PolicyParams, _calibrated, learn_policy
from models.policy.value import PositionNet, ValueParams, before_clicks, held_out, learn, linear_clicks, worth_of_clicks
from models.signals import Knowledge
from models.simulator import SimulatorParams, generate
from models.simulator.pages import PlackettLucePages

SHOP = SimulatorParams(users=150, items=120, sessions_per_day=300, days=5, page_size=12, click_bias=-2.6, bots=0)


@dataclass(frozen=True)
class Data:
    """Clean tables of a small simulated shop."""

    slates: pa.Table
    events: pa.Table
    items: ItemTable
    log: ActionLog


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root = tmp_path_factory.mktemp("shop")
    generate(SHOP, root / "tables", PlackettLucePages(SHOP.items, weight=0.6))
    clean(root / "tables", root / "clean")
    tables = {name: pq.read_table(root / "clean" / f"{name}.parquet") for name in ("slates", "events", "items")}
    items = ItemTable.from_arrow(tables["items"])
    log = ActionLog.from_arrow(tables["events"], items.index, len(items), tables["slates"])
    return Data(tables["slates"], tables["events"], items, log)


@pytest.fixture(scope="module")
def pages(data: Data) -> list[Page]:
    return pages_of(data.slates, data.events, data.items)


@pytest.fixture(scope="module")
def seen(data: Data, pages: list[Page]) -> Impressions:
    return impressions(pages, People(data.events, data.log, data.items), data.log, data.items, None)


def test_a_page_holds_what_was_shown_and_done(data: Data, pages: list[Page]) -> None:
    page = next(page for page in pages if page.clicked_K.any())
    rows = [row for row in data.slates.to_pylist() if row["request_id"] == page.request_id]
    assert [data.items.item_ids[item] for item in page.item_K] == [row["item_id"] for row in rows]
    assert page.propensity_K.tolist() == [row["propensity"] for row in rows]
    clicks = {e["item_id"] for e in data.events.to_pylist() if e["request_id"] == page.request_id}
    assert {data.items.item_ids[item] for item in page.item_K[page.clicked_K]} == clicks


def test_a_history_is_what_serving_has_at_that_moment(data: Data, pages: list[Page]) -> None:
    """The day's own acts, the running session marked, nothing of the page itself or later."""
    page = next(p for p in reversed(pages) if p.user_id is not None and _todays(data, p))
    people = People(data.events, data.log, data.items)
    day_us = page.served_us - page.served_us % 86_400_000_000
    people.open_day(day_us, {page.user_id})
    state = people.state(page.user_id, page.session_id, page.served_us)
    assert state.last_us < page.served_us
    acts = _todays(data, page)
    fresh = UserState.build(None, acts, data.items.index, page.session_id)
    touched = set(fresh.item_P[fresh.session_P].tolist())
    assert set(state.item_P[state.session_P].tolist()) == touched


def _todays(data: Data, page: Page) -> list[Action]:
    day_us = page.served_us - page.served_us % 86_400_000_000
    times = data.events["event_time"].cast(pa.int64()).to_pylist()
    return [
        Action(row["item_id"], row["event_type"], at, row["session_id"])
        for row, at in zip(data.events.to_pylist(), times, strict=True)
        if row["user_id"] == page.user_id and day_us <= at < page.served_us
        and row["event_type"] in ("view", "click", "add_to_cart", "purchase")
    ]  # fmt: skip


def test_it_learns_more_than_positions(seen: Impressions) -> None:
    n = len(seen.x_NKF) * 4 // 5
    early, late = (_rows(seen, np.arange(len(seen.x_NKF)) < n), _rows(seen, np.arange(len(seen.x_NKF)) >= n))
    params = ValueParams()
    net, _ = learn(early, params, validate=lambda one: held_out(one, late))
    blank, _ = learn(early, params, np.ones(early.x_NKF.shape[2], np.bool_), stop_after=1)
    linear = PositionNet(early.x_NKF.shape[2], params.net)
    linear.load_state_dict(net.state_dict())
    linear.start(early, params.ridge)
    assert held_out(net, late) >= held_out(linear, late) > held_out(blank, late)
    worth = worth_of_clicks(early, params)
    assert worth.base >= params.click and worth.slope > 0


def test_a_small_log_leaves_the_prior_and_a_large_one_overrules_it() -> None:
    rng = np.random.default_rng(0)
    prior_F, true_F = np.array([1.0, 0.0, 0.0]), np.array([0.4, -0.5, 0.0])
    look_S = np.array([0.0, -2.0, -2.5, -3.0])

    def fitted(n: int) -> tuple[Floats, Floats]:
        z_MF = rng.normal(size=(n, 3)).astype(np.float32)
        place_M = rng.integers(1, 4, n)
        chance_M = 1 / (1 + np.exp(-(z_MF @ true_F + look_S[place_M])))
        return linear_clicks(z_MF, place_M, rng.random(n) < chance_M, 1000.0, prior_F)

    few_F, _ = fitted(50)
    np.testing.assert_allclose(few_F, prior_F, atol=0.02)
    many_F, bias_S = fitted(400_000)
    np.testing.assert_allclose(many_F, true_F, atol=0.05)
    np.testing.assert_allclose(bias_S[1:4] - bias_S[1], look_S[1:] - look_S[1], atol=0.05)


def test_what_is_in_log_odds_already_is_believed_until_clicks_say_otherwise(data: Data, seen: Impressions) -> None:
    """From a day's pages of a shop; on the first day nothing has an appeal yet."""
    at_N = np.arange(len(seen.x_NKF))
    first, second, late = (_rows(seen, part_N) for part_N in (at_N < 150, (at_N >= 300) & (at_N < 500), at_N >= 600))
    names = feature_names(Knowledge.fit(data.log, data.items, data.log.time_us[-1]))
    off_F, prior_F = before_clicks(names, ValueParams())
    for early in (first, second):
        known, ignorant = (learn(early, ValueParams(), off_F, one_F)[0] for one_F in (prior_F, None))
        assert held_out(known, late) > held_out(ignorant, late) + 1e-3


def test_an_item_that_pages_rarely_showed_is_what_its_like_are_and_not_what_pages_are_full_of(data: Data) -> None:
    """The old page shows what sells: its average says nothing of the rest."""
    rng = np.random.default_rng(0)
    truth_I = np.exp(rng.normal(0.0, 0.8, len(data.items)))
    best = np.argsort(-truth_I)
    item = np.concatenate([np.repeat(best[:30], 600), np.repeat(best[30:], 40)])
    clicked = rng.random(item.size) < 0.05 * truth_I[item]
    shown = Shown(np.arange(item.size), item, np.ones_like(item), clicked, np.full_like(item, -1), ())
    liking = shown.liking(data.items, item.size)
    appeal_I, doubt_I = liking.appeal_I, liking.doubt_I
    assert appeal_I[best[:30]].mean() > appeal_I[best[30:]].mean() + 0.4
    assert np.corrcoef(appeal_I[best[:30]], np.log(truth_I[best[:30]]))[0, 1] > 0.8
    assert doubt_I[best[30:]].min() > doubt_I[best[:30]].max()


def _rows(seen: Impressions, keep_N: Bools) -> Impressions:
    return Impressions(**{name: value[keep_N] for name, value in vars(seen).items()})


def test_an_item_is_as_probable_in_a_place_as_the_policys_own_pages_have_it_there() -> None:
    score_C, index_C, params = np.array([2.0, 1.0, 0.5, 0.0]), np.array([7, 3, 9, 1]), PlackettLuceParams(0.5, 0.1)
    rng, policy, utility_C = np.random.default_rng(0), PlackettLuce(params), utilities(score_C)

    def told(*items: int) -> Floats:
        return np.mean(
            [place_probabilities(score_C, index_C, np.array(items), params, rng) for _ in range(150)], axis=0
        )

    counted_CK = np.zeros((4, 3))
    for _ in range(6_000):
        open_C = np.ones(4, np.bool_)
        for place in range(3):
            drawn = policy.choose(utility_C, open_C, rng).place
            counted_CK[drawn, place] += 1 / 6_000
            open_C[drawn] = False
    for at, item in enumerate(index_C.tolist()):
        np.testing.assert_allclose(told(item, item, item), counted_CK[at], atol=0.02)
    assert told(5, 5, 5).tolist() == [0.0, 0.0, 0.0]


def test_a_page_drawn_at_random_does_not_credit_the_favourite_in_every_place() -> None:
    """By the truth of a shop where a reward is that of the item and its place: no lower bound may lie above it."""
    rng, params, pages, places, items = np.random.default_rng(3), PlackettLuceParams(0.03, 0.02), 3_000, 8, 60
    chance_I = np.sort(rng.beta(0.5, 12.0, items))[::-1]
    look_K = 0.9 ** np.arange(places)
    shown_RK = rng.permuted(np.tile(np.arange(items), (pages, 1)), axis=1)[:, :places]
    reward_RK = (rng.random((pages, places)) < chance_I[shown_RK] * look_K).astype(np.float64)
    index_C, score_C = np.arange(items), np.log(chance_I)
    target_RK = np.array([place_probabilities(score_C, index_C, item_K, params, rng) for item_K in shown_RK])
    page_N, ids = np.repeat(np.arange(pages), places), tuple(f"r{page}" for page in range(pages))
    propensity_N = np.tile(1.0 / (items - np.arange(places)), pages)
    log = SlotLog(
        page_N, np.tile(np.arange(1, places + 1), pages), shown_RK.ravel(), propensity_N, page_N < 0,
        reward_RK.ravel(), page_N, ids, tuple(map(str, range(items))), ids, 0, 0,
    )  # fmt: skip
    found = judge(log, target_RK.ravel(), full_support=False)
    own = np.array([[place_probabilities(score_C, index_C, np.full(places, i), params, rng) for i in range(items)]])
    truth = float((own[0].T @ chance_I * look_K).sum())
    assert found.verdict == "pass" and found.lower is not None
    assert found.logging.mean + found.lower < truth < found.target.high
    assert found.target.low < truth


def test_the_recipe_learns_and_proves_or_says_why_not(data: Data) -> None:
    judged = fit_judged(data)
    few = PolicyParams(least_pages=300, least_clicks=100, gate_pages=300, ope=OpeParams(min_pages=300))
    told = learn_policy(data.slates, data.events, data.log, judged, None, few, PlackettLuceParams(), None)
    assert told.model is not None and told.proof is not None and told.proof.verdict in ("pass", "cannot tell")
    assert told.to_json()["table"][0]["estimator"] == "logging policy"
    assert not told.proof.faults
    spoiled = shuffled(data.events, data.slates)
    blind = learn_policy(data.slates, spoiled, data.log, judged, None, few, PlackettLuceParams(), None)
    assert blind.proof is not None and blind.proof.verdict != "pass"
    assert "clicks follow no model's scores" in {fault.name for fault in blind.proof.faults}
    again = learn_policy(None, data.events, data.log, judged, None, few, PlackettLuceParams(), None)
    assert again.model is None and again.why == "the log has no slates"
    unproved = replace(few, ope=replace(few.ope, min_pages=10**5))
    first = learn_policy(data.slates, data.events, data.log, judged, None, unproved, PlackettLuceParams(), None)
    assert first.model is None and "100,000 are wanted to prove a first policy" in first.why
    many = replace(few, least_pages=10**6)
    assert (
        "are wanted"
        in learn_policy(data.slates, data.events, data.log, judged, None, many, PlackettLuceParams(), None).why
    )


def test_a_policy_is_as_cautious_as_the_log_is_narrow(data: Data, pages: list[Page]) -> None:
    """Pages that tried a bit of everything ask for no caution; those that always showed the known few for much."""
    judged, people, sampling = fit_judged(data), People(data.events, data.log, data.items), PlackettLuceParams()
    weights = (0.0, 2.0, 8.0, 30.0)
    places = pages[0].item_K.size
    late = [page for page in pages if page.item_K.size == places][-300:]
    wide = shown_shares(judged, late, people, sampling, weights)
    assert wide[0] > ENOUGH and least_caution(judged, late, people, sampling, 30.0) == 0.0
    known = np.argsort(judged.knowledge.statistics.values["appeal_doubt"], kind="stable")[:places]
    narrow = [replace(page, item_K=known, propensity_K=np.full(places, 0.9)) for page in late]
    shares = shown_shares(judged, narrow, people, sampling, weights)
    assert shares[0] < ENOUGH / 2 < shares[-1] and shares == sorted(shares)
    assert least_caution(judged, narrow, people, sampling, 30.0) > 0.0


def test_two_processes_read_the_same_of_every_page(data: Data, pages: list[Page], seen: Impressions) -> None:
    people = People(data.events, data.log, data.items)
    again = impressions(pages, people, data.log, data.items, None, workers=2)
    assert all(np.array_equal(value, vars(again)[name]) for name, value in vars(seen).items())
    judged, late = fit_judged(data), pages[-200:]
    asked = (judged, late, people, PlackettLuceParams(), 50)
    for one, two in zip(target_probabilities(*asked), target_probabilities(*asked, workers=2), strict=True):
        assert len(one) == len(late)
        np.testing.assert_allclose(np.concatenate(one), np.concatenate(two), rtol=1e-5)
    broken = replace(late[0], item_K=np.array([10**6]))
    with pytest.raises(IndexError):
        target_probabilities(judged, [broken, *late], people, PlackettLuceParams(), workers=2)


def test_a_model_that_nobody_promoted_lends_its_popularity_and_none_of_its_opinions(data: Data) -> None:
    judged = fit_judged(data)
    held = unranked(judged)
    assert not knows_clicks(held) and prior(held) == [weights[0] for weights in SIGNALS.values()]
    everything_I = np.ones(len(data.items), np.bool_)
    first = held.rank(UserState.build(None, [], {}), judged.trained_until_us, everything_I, 20).index_C
    assert held.popular_I[first].tolist() == sorted(judged.popular_I.tolist(), reverse=True)[:20]


def test_a_first_policy_is_compared_with_the_order_that_was_served(data: Data, pages: list[Page]) -> None:
    judged = fit_judged(data)
    few = PolicyParams(least_pages=300, least_clicks=100, gate_pages=300, ope=OpeParams(min_pages=300))
    asked = (data.events, data.log, judged, None, few, PlackettLuceParams(), None)
    told = learn_policy(data.slates, *asked)
    assert told.against is not None and told.model is not None
    after = [page for page in pages if page.served_us >= judged.trained_until_us]
    after = [after[at] for at in np.linspace(0, len(after) - 1, min(len(after), 300)).astype(int)]
    people = People(data.events, data.log, data.items)
    mine_L = scores_of_shown(told.model, after, people)
    _, found_L = target_probabilities(told.model, after, people, PlackettLuceParams(), candidates=200)
    assert 0 < sum(np.isfinite(found_K).all() for found_K in found_L) < len(after)  # some pages need the second look
    again_L = scores_of_shown(told.model, after, people, known_L=found_L)
    assert np.allclose(np.concatenate(again_L), np.concatenate(mine_L), atol=1e-5)
    mine_N = np.concatenate(mine_L)
    at_N = [(page.request_id, position) for page in after for position in page.position_K.tolist()]
    score = dict(zip(at_N, mine_N.tolist(), strict=True))

    def scored(slates: pa.Table, of: dict[tuple[str, int], float]) -> pa.Table:
        keys = zip(slates["request_id"].to_pylist(), slates["position"].to_pylist(), strict=True)
        column = pa.array([of.get(key) for key in keys], slates.schema.field("score").type)
        return slates.set_column(slates.schema.get_field_index("score"), "score", column)

    itself = learn_policy(scored(data.slates, score), *asked)  # served by what is judged: no better than that
    assert itself.against is not None and itself.against.difference.mean == pytest.approx(0.0, abs=1e-9)
    assert itself.against.verdict == "cannot tell"
    upside_down = learn_policy(scored(data.slates, {key: -one for key, one in score.items()}), *asked)
    assert upside_down.against is not None and upside_down.against.difference.low > 0
    unknown = learn_policy(scored(data.slates, {}), *asked)
    assert unknown.against is None and unknown.proof is not None


def test_a_champion_is_judged_on_the_same_pages_whatever_its_catalogue(data: Data, pages: list[Page]) -> None:
    judged = fit_judged(data)
    few = PolicyParams(least_pages=300, least_clicks=100, gate_pages=300, ope=OpeParams(min_pages=300))
    asked = (data.slates, data.events, data.log, judged, None, few, PlackettLuceParams(), None)
    first = learn_policy(*asked)
    assert first.rival == SERVED and first.model is not None
    again = learn_policy(*asked, champion=first.model)
    assert again.rival == CHAMPION and again.against is not None
    assert again.against.difference.mean == 0.0
    assert again.against.logging.mean > 0

    items = ItemTable.from_rows([data.items.row(at) for at in reversed(range(10, len(data.items)))])  # ten less
    log = ActionLog.from_arrow(data.events, items.index, len(items), data.slates)
    other = replace(first.model, knowledge=Knowledge.fit(log, items, judged.trained_until_us))
    people, after = (
        People(data.events, data.log, data.items),
        [p for p in pages if p.served_us >= judged.trained_until_us],
    )
    mine, theirs = (np.concatenate(scores_of_shown(one, after[:50], people)) for one in (first.model, other))
    shown_N = np.concatenate([page.item_K for page in after[:50]])
    assert np.isfinite(mine).all()
    assert (np.isnan(theirs) == (shown_N < 10)).all()  # only what it lacks has no score
    assert np.corrcoef(mine[shown_N >= 10], theirs[shown_N >= 10])[0, 1] > 0.9


def test_the_chance_of_a_click_is_that_of_the_pages_that_judge(pages: list[Page]) -> None:
    """The scores say ten times too much; fitted on the earlier half, they are right on the later one."""
    truth = [np.full(page.item_K.size, 0.12) for page in pages]
    rng = np.random.default_rng(0)
    clicked = [replace(page, clicked_K=rng.random(page.item_K.size) < 0.12) for page in pages]
    said = [np.log(p / (1 - p)) + rng.normal(0.0, 0.5, p.size) for p in truth]
    wrong = Calibration(1.0, 2.3, True)
    scale, error = _calibrated(wrong, clicked, said)
    assert error is not None and error < 0.03
    assert scale.probability(np.array([np.log(0.12 / 0.88)])) == pytest.approx(0.12, abs=0.02)
    few = [np.where(np.arange(score.size) < 1, score, np.nan) for score in said[:400]]
    kept, seen = _calibrated(wrong, clicked[:400], few)
    assert kept is wrong and seen is not None and seen > 0.2
    assert _calibrated(wrong, clicked[:50], said[:50]) == (wrong, None)


def fit_judged(data: Data) -> HomepageModel:
    """An untrained ranker over what was known on the last day but one."""
    cut = int(np.quantile(data.log.time_us, 0.8))
    knowledge = Knowledge.fit(data.log, data.items, cut)
    return unlearned(knowledge, cut)
