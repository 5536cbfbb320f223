"""Every encoder keeps one contract; every option of the network acts; cold items are found by what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from features.errors import UsageError
from models.als import AlsModel, AlsParams
from models.baselines import ItemKnn, OwnCounts, Popular, recent_counts
from models.cold import AttributeTransitions, ColdOnly, ContentModel
from models.encoders import ENCODERS
from models.fusion import Clock, FusionModel, FusionParams, Sources, fit_trees, labelled
from models.interactions import DAY_S, Interactions
from models.next_item import LOSSES, Batches, NextItemNet, NextItemParams, loss_of, train
from models.training import LoopParams
from models.transitions import TransitionModel, TransitionParams, climb, directed

DAY = 86_400
N_ITEMS = 30
SMALL = NextItemParams(
    dim=16, steps=8, negatives=16, batch=32, dropout=0.1, loop=LoopParams(epochs=8, learning_rate=1e-2)
)


def shop(users: int = 150, seed: int = 0, lag: int = 0) -> Interactions:
    """Item n + 1 follows item n; histories end `lag` rows before their last."""
    rng = np.random.default_rng(seed)
    start, length = rng.integers(0, N_ITEMS, users), rng.integers(4, 8, users) - lag
    owner = np.repeat(np.arange(users), length)
    place = np.concatenate([np.arange(n) for n in length])
    return Interactions.of_rows(owner, (start[owner] + place) % N_ITEMS, place * DAY, N_ITEMS)


def next_of(data: Interactions) -> np.ndarray:
    """(U,) the item that the shop's law puts next."""
    return (data.item_R[data.indptr_U[1:] - 1] + 1) % N_ITEMS


def hit_rate(model: object, data: Interactions) -> float:
    """Share of users whose next item is ranked first."""
    return float((model.scores(data).argmax(1) == next_of(data)).mean())  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_no_encoder_sees_a_later_step(name: str) -> None:
    torch.manual_seed(0)
    net = NextItemNet(N_ITEMS, replace(SMALL, encoder=name)).eval()
    one = torch.tensor([[1, 2, 3, 4, 5]])
    other = torch.tensor([[1, 2, 3, 9, N_ITEMS]])
    with torch.no_grad():
        first, second = net(one, net.table()), net(other, net.table())
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3], second[:, 3])


@pytest.mark.parametrize("name", list(ENCODERS))
def test_every_encoder_learns_what_comes_next_and_gives_the_same_weights_twice(name: str) -> None:
    params = replace(SMALL, encoder=name, loop=replace(SMALL.loop, epochs=12))
    model, curves = train(shop(), params)
    assert curves.train_loss[-1] < curves.train_loss[0]
    scores = model.scores(shop(seed=1))
    rank = (scores > scores[np.arange(len(scores)), next_of(shop(seed=1))][:, None]).sum(1)
    assert np.median(rank) < 4  # of 30; chance is 15
    again, _ = train(shop(), params)
    np.testing.assert_array_equal(again.table_ID, model.table_ID)


@pytest.mark.parametrize("name", list(ENCODERS))
def test_the_padding_of_a_batch_changes_no_score(name: str) -> None:
    model, _ = train(shop(), replace(SMALL, encoder=name, loop=replace(SMALL.loop, epochs=1)))
    data = shop(users=20, seed=3)
    alone = np.concatenate([model.scores(data.users(np.array([user]))) for user in range(20)])
    np.testing.assert_allclose(model.scores(data), alone, atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns(loss: str) -> None:
    params = replace(SMALL, loss=loss, negatives=8, loop=replace(SMALL.loop, epochs=40))
    asked = shop(seed=1)
    scores = train(shop(), params)[0].scores(asked)
    rank = (scores > scores[np.arange(len(scores)), next_of(asked)][:, None]).sum(1)
    assert np.median(rank) < 9  # of 30; chance is 15


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "bce"}, {"loss": "gbce"}, {"log_q": False, "negative_power": 1.0}, {"negative_power": 0.5},
        {"negatives": 4}, {"l1": 1.0}, {"target_half_life_days": 1.0}, {"dropout": 0.5},
        {"crop": 1.0}, {"mask": 0.5}, {"reorder": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_every_option_acts_on_the_loss(change: dict[str, object]) -> None:
    def first_loss(params: NextItemParams) -> float:
        torch.manual_seed(0)
        net = NextItemNet(N_ITEMS, params)
        return float(loss_of(net, next(Batches(shop(), params)(1))).detach())

    assert first_loss(SMALL) != pytest.approx(first_loss(replace(SMALL, **change)), abs=1e-6)  # type: ignore[arg-type]


def test_augmentations_keep_the_items_and_change_with_the_epoch() -> None:
    data = shop()
    whole = Batches(data, SMALL)
    for name in ("crop", "reorder"):
        changed = Batches(data, replace(SMALL, **{name: 1.0}))  # type: ignore[arg-type]
        first, second = (next(changed(epoch)).target_BT for epoch in (1, 2))
        assert first.shape != second.shape or not torch.equal(first, second)
        assert sum(int((batch.target_BT != N_ITEMS).sum()) for batch in changed(1)) <= sum(
            int((batch.target_BT != N_ITEMS).sum()) for batch in whole(1)
        )
    hidden = next(Batches(data, replace(SMALL, mask=0.5))(1))
    real = hidden.target_BT != N_ITEMS
    assert 0.3 < float((hidden.input_BT[real] == N_ITEMS).float().mean()) < 0.7


def test_a_long_history_teaches_in_windows() -> None:
    rows = np.arange(20, dtype=np.int64) % N_ITEMS
    data = Interactions.of_rows(np.zeros(20, dtype=np.int64), rows, rows * DAY, N_ITEMS)
    batches = Batches(data, replace(SMALL, steps=8))
    assert [row.size for row in batches.rows] == [9, 9, 4]
    assert sum(row.size - 1 for row in batches.rows) == 19  # every step but the first is a target once


def test_sparse_gradients_learn_the_same_law_and_refuse_what_touches_every_item() -> None:
    model, curves = train(shop(), replace(SMALL, sparse=True, loop=replace(SMALL.loop, epochs=12)))
    assert model.net.item.sparse
    assert curves.train_loss[-1] < 0.6 * curves.train_loss[0]
    assert hit_rate(model, shop(seed=1)) > 0.2  # chance is 0.03
    with pytest.raises(UsageError, match="sparse gradients do not go with"):
        NextItemNet(N_ITEMS, replace(SMALL, sparse=True, l1=0.1))


def test_weight_decay_shrinks_the_weights_and_early_stopping_keeps_the_best_epoch() -> None:
    loose, _ = train(shop(), replace(SMALL, loop=replace(SMALL.loop, weight_decay=0.0)))
    tight, _ = train(shop(), replace(SMALL, loop=replace(SMALL.loop, weight_decay=1.0)))
    assert np.abs(tight.table_ID).sum() < np.abs(loose.table_ID).sum()
    values = iter([1.0, 5.0, 2.0, 1.0, 0.5, 0.4, 0.3, 0.2])
    _, curves = train(shop(), replace(SMALL, loop=replace(SMALL.loop, patience=2)), validate=lambda _: next(values))
    assert curves.best_epoch == 2
    assert curves.stopped_early


def test_a_wrong_name_is_told() -> None:
    with pytest.raises(UsageError, match="encoder 'magic' is unknown; one of mlp"):
        NextItemNet(N_ITEMS, replace(SMALL, encoder="magic"))
    with pytest.raises(UsageError, match="loss 'hinge' is unknown"):
        NextItemNet(N_ITEMS, replace(SMALL, loss="hinge"))


def attributes() -> sp.csr_matrix:
    """Items of one attribute stand side by side: 0-4, 5-9 ..."""
    return sp.csr_matrix((np.ones(N_ITEMS), (np.arange(N_ITEMS), np.arange(N_ITEMS) // 5)), shape=(N_ITEMS, 6))


def test_a_cold_item_is_found_by_what_it_is() -> None:
    everything = shop()
    warm = everything.item_R != 7  # nobody ever took item 7, of kind 1
    data = Interactions.of_rows(everything.owner_R[warm], everything.item_R[warm], everything.ts_R[warm], N_ITEMS)
    asked = Interactions.of_rows(np.zeros(2, dtype=np.int64), np.array([5, 6]), np.array([0, DAY]), N_ITEMS)
    assert ContentModel.fit(attributes(), 0.5).scores(asked)[0, 7] > 0
    kinds = AttributeTransitions.fit(data, attributes(), 0.5)
    assert kinds.scores(asked)[0, 7] > kinds.scores(asked)[0, 20]
    cold = ColdOnly.over(kinds, data).scores(asked)[0]
    assert cold.argmax() == 7
    assert (np.delete(cold, 7) == -1).all()
    net, _ = train(data, replace(SMALL, id_dropout=0.3, loop=replace(SMALL.loop, epochs=12)), attributes=attributes())
    scores = net.scores(asked)[0]
    assert scores[7] > np.median(scores)


def test_counting_follows_the_order_and_the_simple_rankers_do_what_they_say() -> None:
    data, asked = shop(), shop(seed=1)
    assert hit_rate(TransitionModel.fit(data, TransitionParams(backward=0.0, decay=0.3)), asked) > 0.95
    forward = directed(data, 1)
    assert forward[3, 4] > 0
    assert forward[4, 3] == 0
    assert ItemKnn.fit(data, 0.5).scores(asked).shape == (len(asked), N_ITEMS)
    own = OwnCounts(data.counts_I()).scores(asked)
    assert own[0].argmax() in asked.users(np.array([0])).item_R
    old = Popular(recent_counts(data, 0.01)).scores(asked)[0]
    assert old.argmax() in data.item_R[data.ts_R == data.ts_R.max()]


def test_als_puts_neighbours_above_strangers() -> None:
    data = shop(users=300)
    scores = AlsModel.fit(data, AlsParams(factors=8, rounds=4)).scores(shop(seed=1))
    near = scores[np.arange(len(scores)), next_of(shop(seed=1))]
    assert (near > np.median(scores, axis=1)).mean() > 0.9


def test_the_clock_counts_what_brute_force_counts() -> None:
    data = shop()
    clock = Clock.fit(data)
    item, moment = np.array([0, 3, 9]), np.array([0, 2 * DAY, 5 * DAY])
    expected = [((data.item_R == one) & (data.ts_R <= at)).sum() for one, at in zip(item, moment, strict=True)]
    np.testing.assert_array_equal(clock.until(item, moment), expected)


def test_the_fusion_ranks_the_next_item_and_leaves_own_items_out() -> None:
    earlier, data, asked = shop(lag=1), shop(), shop(seed=1)

    def fitted(rows: Interactions) -> Sources:
        first = TransitionModel.fit(rows, TransitionParams(backward=0.0))
        return Sources({"next": first, "people": ItemKnn.fit(rows, 0.5)}, Clock.fit(rows))

    params = FusionParams(depth=10, least_leaf=5, max_trees=30)
    wanted = [np.array([item]) for item in next_of(earlier)]
    trees = fit_trees(*labelled(fitted(earlier), earlier, wanted, True, params), params)
    model = FusionModel(fitted(data), trees, params, True)
    scores = model.scores(asked)
    scores[asked.owner_R, asked.item_R] = -np.inf
    assert (scores.argmax(1) == next_of(asked)).mean() > 0.8


def test_the_numbers_of_the_items_are_no_feature() -> None:
    data, asked = shop(), shop(users=20, seed=1)
    new = np.random.default_rng(2).permutation(N_ITEMS)

    def read(rows: Interactions, asked: Interactions) -> dict[tuple[int, int], np.ndarray]:
        parts = {"next": TransitionModel.fit(rows, TransitionParams(backward=0.0)), "people": ItemKnn.fit(rows, 0.5)}
        found, _ = Sources(parts, Clock.fit(rows)).candidates(asked, 10, True)
        keys = zip(found.user_N.tolist(), found.item_N.tolist(), strict=True)
        return dict(zip(keys, found.x_NF, strict=True))

    def renamed(rows: Interactions) -> Interactions:
        return replace(rows, item_R=new[rows.item_R])

    told, again = read(data, asked), read(renamed(data), renamed(asked))
    assert {(user, int(new[item])) for user, item in told} == set(again)
    for (user, item), x_F in told.items():
        np.testing.assert_allclose(again[(user, int(new[item]))], x_F, rtol=1e-3, atol=1e-3)


def test_a_coordinate_search_finds_the_top_and_keeps_what_ties() -> None:
    best, value, _ = climb(
        TransitionParams(), {"decay": (0.1, 0.9), "cosine": (7.0,)}, lambda params: -abs(params.decay - 0.9)
    )
    assert (best.decay, best.cosine) == (0.9, TransitionParams().cosine)
    assert value == 0.0


def test_the_trees_are_told_what_is_due() -> None:
    """User 0 took item 1 every ten days, last five days ago, and item 2 once."""
    days = np.array([0, 10, 20, 12], dtype=np.int64)
    rows = Interactions.of_rows(np.zeros(4, np.int64), np.array([1, 1, 1, 2]), days * DAY_S, 4, 25 * DAY_S)
    own = OwnCounts(rows.counts_I())
    found, _ = Sources({"own": own}, Clock.fit(rows)).candidates(rows, 3, False)
    told = {name: found.x_NF[:, at] for at, name in enumerate(found.names)}
    at = {int(item): row for row, item in enumerate(found.item_N)}
    assert [told[name][at[1]] for name in ("own_times", "own_ago", "own_gap")] == [3, 5, 10]
    assert told["own_due"][at[1]] == pytest.approx(6 / 11) and told["own_due"][at[2]] == -1
