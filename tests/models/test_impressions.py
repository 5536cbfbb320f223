"""Impressions: labels join by request, no column knows the future, a look is told apart from a wish. SIMULATED data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from features.errors import TrainingError
from features.schema import Events, Slates
from models.impressions.columns import Catalogue, columns
from models.impressions.model import ImpressionModel, ValueParams, batch_of, logits, platt, train
from models.impressions.network import ImpressionNet, ImpressionParams, log_chances, loss_of
from models.impressions.pages import BUY, CLICK, Pages
from models.items import ContentSpace, ItemTable
from models.simulator import SimulatorParams, simulate_log
from models.training import LoopParams

SHOP = SimulatorParams(
    days=6, users=150, items=120, sessions_per_day=220, page_size=8, bots=0, click_bias=-2.2, guest_share=0.1
)
SMALL = ImpressionParams(dim=8, hidden=(16,), cross_rank=4, batch=64, loop=LoopParams(epochs=3, learning_rate=5e-3))


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    parts: dict[str, list[pa.Table]] = {}
    for name, rows in simulate_log(SHOP):
        parts.setdefault(name, []).append(rows)
    return {name: pa.concat_tables(rows) for name, rows in parts.items()}


@pytest.fixture(scope="module")
def items(tables: dict[str, pa.Table]) -> ItemTable:
    return ItemTable.from_arrow(tables["items"])


@pytest.fixture(scope="module")
def catalogue(items: ItemTable) -> Catalogue:
    return Catalogue.of(items, ContentSpace.fit(items).vectors(items))


@pytest.fixture(scope="module")
def pages(tables: dict[str, pa.Table], items: ItemTable) -> Pages:
    return Pages.from_tables(tables["slates"], tables["events"], items.index)


@pytest.fixture(scope="module")
def trained(pages: Pages, catalogue: Catalogue) -> ImpressionModel:
    torch.set_num_threads(1)
    x_RKF, _ = columns(pages, catalogue)
    return train(pages, x_RKF, catalogue, SMALL, newest_days=1)[0]


def test_every_click_cart_and_purchase_finds_its_slot(tables: dict[str, pa.Table], pages: Pages) -> None:
    kinds = np.array(tables["events"][Events.EVENT_TYPE].to_pylist())
    asked = np.array([name is not None for name in tables["events"][Events.REQUEST_ID].to_pylist()])
    assert pages.clicked_RK.sum() == (asked & (kinds == "click")).sum() > 100
    assert pages.carted_RK.sum() == (asked & (kinds == "add_to_cart")).sum()
    assert pages.bought_RK.sum() == (asked & (kinds == "purchase")).sum()
    assert not (pages.bought_RK & ~pages.clicked_RK).any()
    assert len(pages) == len(set(tables["slates"][Slates.REQUEST_ID].to_pylist()))
    assert pages.real_RK.all() and (pages.position_RK == np.arange(1, 9)).all()


def test_a_history_holds_only_the_shoppers_own_past_and_a_view_after_its_click_is_no_second_act(pages: Pages) -> None:
    place_RH, real_RH = pages.history(np.arange(len(pages)))
    actions = pages.actions
    assert (actions.time_us[place_RH] < pages.time_us_R[:, None])[real_RH].all()
    assert (actions.shopper[place_RH] == pages.shopper_R[:, None])[real_RH].all()
    assert real_RH.sum(1).max() > 5
    key = np.stack([actions.shopper, actions.session, actions.item, actions.kind], axis=1)
    assert np.unique(key, axis=0).shape == key.shape
    assert set(actions.kind.tolist()) <= {CLICK, 1, BUY}


def test_what_was_done_on_the_web_stands_in_the_apps_history(pages: Pages) -> None:
    row = next(
        at
        for at in np.flatnonzero((pages.platform_R > 0) & (pages.end_R > pages.start_R) & ~pages.guest_R).tolist()
        if (pages.platform_R[(pages.shopper_R == pages.shopper_R[at]) & (np.arange(len(pages)) < at)] == 0).any()
    )
    sessions = {
        int(one)
        for one, platform in zip(pages.session_R.tolist(), pages.platform_R.tolist(), strict=True)
        if platform == 0
    }
    done = pages.actions.session[pages.start_R[row] : pages.end_R[row]].tolist()
    assert any(session in sessions for session in done)


def test_no_column_knows_what_comes_later(tables: dict[str, pa.Table], pages: Pages, catalogue: Catalogue) -> None:
    index = {name: at for at, name in enumerate(ItemTable.from_arrow(tables["items"]).item_ids)}
    half = int(np.median(pages.time_us_R)) // 86_400_000_000 * 86_400_000_000
    cut = [
        tables[name].filter(pa.array(tables[name][column].cast(pa.int64()).to_numpy() < half))
        for name, column in (("slates", Slates.SERVED_AT), ("events", Events.EVENT_TIME))
    ]
    before = Pages.from_tables(*cut, index)
    x_all, names = columns(pages, catalogue)
    x_before, _ = columns(before, catalogue)
    assert before.request_ids == pages.request_ids[: len(before)]
    # How a place draws clicks is read from the whole log: a scale, the same for every item.
    steady = [at for at, name in enumerate(names) if name not in ("click_lift", "click_lift_3d", "log_expected")]
    np.testing.assert_allclose(x_all[: len(before)][..., steady], x_before[..., steady], atol=1e-5)
    assert np.isfinite(x_all).all()


def test_with_the_tower_off_every_slot_is_judged_as_the_first(
    trained: ImpressionModel, pages: Pages, catalogue: Catalogue
) -> None:
    some = pages.rows(np.arange(20))
    x_RKF, _ = columns(some, catalogue)
    off, on = trained.chances(some, x_RKF, position=False), trained.chances(some, x_RKF)
    assert (off.look == 1).all()
    np.testing.assert_allclose(on.click, off.click * on.look)
    first = replace(some, position_RK=np.ones_like(some.position_RK))
    np.testing.assert_allclose(trained.chances(first, x_RKF).click, off.click, rtol=1e-6)
    assert (on.purchase <= on.click).all() and (on.cart <= on.click).all()
    look = trained.examination(np.arange(1, 200))
    assert look[0] == 1 and (np.diff(look) <= 1e-12).all()


def test_learning_beats_a_constant_on_days_that_it_never_saw(pages: Pages, catalogue: Catalogue) -> None:
    last = pages.time_us_R >= pages.time_us_R.max() // 86_400_000_000 * 86_400_000_000
    x_RKF, _ = columns(pages, catalogue)
    model, curves = train(pages.rows(~last), x_RKF[~last], catalogue, SMALL, newest_days=1)
    p_N = model.chances(pages.rows(last), x_RKF[last]).click.ravel()
    y_N = pages.clicked_RK[last].ravel()
    rate = pages.clicked_RK[~last].mean()

    def loss(p: np.ndarray) -> float:
        return float(-np.log(np.where(y_N, p, 1 - p)).mean())

    assert loss(p_N) < loss(np.full(y_N.size, rate))
    assert curves.best_epoch >= 1
    again, _ = train(pages.rows(~last), x_RKF[~last], catalogue, SMALL, newest_days=1)
    np.testing.assert_array_equal(again.chances(pages.rows(last), x_RKF[last]).click.ravel(), p_N)


def test_a_look_is_told_from_a_wish_by_the_randomised_log() -> None:
    """Slots that are looked at half as often, items that are liked ten times as much: both come out."""
    rng = np.random.default_rng(0)
    pages_R, slots, n_items = 6000, 4, 6
    like_I = np.array([0.5, 0.05, 0.5, 0.05, 0.5, 0.05])
    item_RK = rng.permuted(np.tile(np.arange(n_items), (pages_R, 1)), axis=1)[:, :slots]
    position_RK = np.tile([1, 2, 4, 8], (pages_R, 1))
    look_K = np.array([1.0, 0.7, 0.5, 0.3])
    clicked = rng.random(item_RK.shape) < like_I[item_RK] * look_K
    none = np.zeros(pages_R, dtype=np.int64)
    from models.impressions.pages import Actions

    empty = np.zeros(0, dtype=np.int64)
    pages = Pages(
        tuple(map(str, range(pages_R))), none, none, np.arange(pages_R) * 10**8, none, none > 0, item_RK, position_RK,
        clicked, clicked & False, clicked & False, none, none, Actions(*[empty] * 5), n_items,
    )  # fmt: skip
    pages = replace(pages, actions=Actions(*[np.zeros(1, dtype=np.int64)] * 5))
    content = Catalogue(np.eye(n_items, dtype=np.float32), none[:6], none[:6], none[:6], np.zeros(6), none[:6])
    x_RKF = np.zeros((pages_R, slots, 1), dtype=np.float32)
    params = replace(SMALL, id_dropout=0.0, dropout=0.0, loop=LoopParams(epochs=6, learning_rate=2e-2))
    model, _ = train(pages, x_RKF, content, params, newest_days=1)
    np.testing.assert_allclose(model.examination(np.array([1, 2, 4, 8])), look_K, rtol=0.12)
    asked = pages.rows(np.arange(3))
    wish = model.chances(asked, x_RKF[:3], position=False).click
    np.testing.assert_allclose(wish, like_I[asked.item_RK], atol=0.06)


def test_calibration_undoes_a_wrong_scale_and_leaves_the_look_alone() -> None:
    rng = np.random.default_rng(1)
    z, look = rng.normal(-1, 1, 40_000), rng.choice([1.0, 0.3], 40_000)
    label = rng.random(z.size) < look / (1 + np.exp(-z))
    slope, offset = platt(2 * z + 1, label, look)
    assert slope == pytest.approx(0.5, abs=0.03)
    assert offset == pytest.approx(-0.5, abs=0.06)
    assert platt(z, np.zeros(z.size)) == (1.0, 0.0)


def test_the_loss_counts_real_slots_only_and_each_task_teaches(pages: Pages, catalogue: Catalogue) -> None:
    x_RKF, _ = columns(pages, catalogue)
    torch.manual_seed(0)
    net = ImpressionNet(pages.n_items, catalogue.content_IE.shape[1], x_RKF.shape[2], SMALL).eval()
    batch = batch_of(net, pages, x_RKF, np.arange(40))
    value = loss_of(net, batch)
    value.backward()
    assert net.heads.weight.grad is not None and (net.heads.weight.grad.abs().sum(1) > 0).all()
    hidden = batch._replace(label_BK3=batch.label_BK3.clone(), position_BK=batch.position_BK.clone())
    hidden.position_BK[:, 5:] = 0
    before = float(loss_of(net, hidden).detach())
    hidden.label_BK3[:, 5:] = 1.0
    assert float(loss_of(net, hidden).detach()) == pytest.approx(before)
    log_p, log_not = log_chances(net(batch))
    torch.testing.assert_close(log_p.exp() + log_not.exp(), torch.ones_like(log_p))


def test_the_value_of_a_slot_is_money(trained: ImpressionModel, pages: Pages, catalogue: Catalogue) -> None:
    some = pages.rows(np.arange(5))
    chances = trained.chances(some, columns(some, catalogue)[0])
    price = np.full(chances.click.shape, 10.0)
    only_clicks = chances.value(price, ValueParams(click=1.0, cart=0.0, margin=0.0))
    np.testing.assert_allclose(only_clicks, chances.click)
    both = chances.value(price, ValueParams(click=0.0, cart=0.0, margin=0.5))
    np.testing.assert_allclose(both, chances.purchase * 5.0)


def test_nothing_to_learn_from_is_told(tables: dict[str, pa.Table]) -> None:
    with pytest.raises(TrainingError, match="no slot of a known item"):
        Pages.from_tables(tables["slates"], tables["events"], {})


def test_a_padded_history_changes_nothing(trained: ImpressionModel, pages: Pages, catalogue: Catalogue) -> None:
    x_RKF, _ = columns(pages, catalogue)
    at = np.argsort(pages.end_R - pages.start_R)[[0, len(pages) // 2, -1]]
    together = logits(trained.net, pages.rows(at), x_RKF[at])[0]
    alone = [logits(trained.net, pages.rows(at[[one]]), x_RKF[at[[one]]])[0] for one in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-4)
