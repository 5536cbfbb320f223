"""A policy that learns from pages which a ranker chose keeps what that ranker knows of what it never showed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.examples import states_from_log
from models.gate import CANNOT_TELL, PASS
from models.homepage import HomepageModel
from models.ope import OpeParams, compare
from models.ope.log import SlotLog
from models.policy.impressions import Impressions, organic_share
from models.policy.value import ValueParams, believe_less, learn
from models.ranker import RankerNet, RankerParams, scores

QUALITY, PRICE = 0, 1


def ranker_of_quality() -> RankerNet:
    """Says of an item what its first column says."""
    net = RankerNet(2, RankerParams())
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
        net.scale_F.fill_(1.0)
        net.linear.weight[0, QUALITY] = 1.0
    return net.eval()


def chosen_pages(n: int = 1_500, places: int = 8) -> Impressions:
    """Pages of the best items only: among these a click depends on the price alone."""
    rng = np.random.default_rng(0)
    x_NKF = np.stack([rng.normal(3.0, 0.3, (n, places)), rng.normal(0.0, 1.0, (n, places))], axis=2).astype(np.float32)
    clicked_NK = rng.random((n, places)) < 1 / (1 + np.exp(-(0.8 * x_NKF[..., PRICE] - 2.0)))
    position_NK = np.broadcast_to(np.arange(1, places + 1), (n, places))
    nothing_NK = np.zeros((n, places))
    return Impressions(
        x_NKF, position_NK, np.full((n, places), 0.5), clicked_NK, clicked_NK & False, nothing_NK, nothing_NK + 1,
        np.ones((n, places), np.bool_),
    )  # fmt: skip


def test_what_no_page_ever_showed_stays_where_the_ranker_puts_it() -> None:
    """Fitted to the pages alone, a network thinks of a bad, dear item what it thinks of a good, dear one."""
    seen, bad_dear, good = chosen_pages(), np.float32([[-3.0, 2.0]]), np.float32([[3.0, 0.0]])
    alone = learn(seen, ValueParams())[0].ranker.eval()
    assert scores(alone, bad_dear) > scores(alone, good)
    kept = learn(seen, ValueParams(), offset=(ranker_of_quality(), 1.0))[0].ranker.eval()
    assert scores(kept, bad_dear) < scores(kept, good) - 2.0
    good_dear = np.float32([[3.0, 2.0]])
    assert scores(kept, good_dear) > scores(kept, good) + 0.5  # and what the clicks say is learned all the same


def test_what_pages_hardly_showed_is_believed_less_and_nothing_else_changes() -> None:
    net = RankerNet(3, RankerParams())
    x_CF = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    net.scale_F[:2] = 1.0  # the third column is off, as the doubt is while the network learns
    before_C = scores(net.eval(), x_CF)
    believe_less(net, 2, 4.0)
    np.testing.assert_allclose(scores(net, x_CF), before_C - 4.0 * x_CF[:, 2], atol=1e-5)


def test_the_offset_learns_nothing_more() -> None:
    ranker = ranker_of_quality()
    net, _ = learn(chosen_pages(400), ValueParams(), offset=(ranker, 0.5))
    assert net.ranker.offset is not None and net.ranker.offset_weight == 0.5
    for name, value in net.ranker.offset.state_dict().items():
        assert torch.equal(value, ranker.state_dict()[name])


def test_how_much_people_find_by_themselves() -> None:
    day = 86_400_000_000
    events = pa.table(
        {
            "event_type": ["view", "view", "click", "purchase", "search", "click", "view"],
            "request_id": [None, "r1", "r2", "of another system", "r1", "r1", None],
            "event_time": pa.array([day, day, day, day, day, day, 3 * day], pa.timestamp("us", "UTC")),
        }
    )
    slates = pa.table({"request_id": ["r1", "r1", "r2"]})
    assert organic_share(slates, events, 2 * day) == pytest.approx(2 / 5)
    assert organic_share(slates, events, 4 * day) == pytest.approx(3 / 6)
    assert organic_share(slates, events, 0) == 0.0


def test_a_model_on_an_offset_is_saved_and_explained_whole(shop: Any, model: HomepageModel, tmp_path: Path) -> None:
    names = model.ranker.mean_F.numel()
    net = RankerNet(names, RankerParams(hidden=(8,), cross_rank=4))
    net.mean_F.copy_(model.ranker.mean_F)
    net.scale_F.copy_(model.ranker.scale_F)
    net.stand_on(model.ranker, 0.7)
    replace(model, ranker=net.eval()).save(tmp_path / "model")
    again = HomepageModel.load(tmp_path / "model")
    user, state = next(iter(states_from_log(shop.log)(shop.end_us, [0, 1, 2]).items()))
    item = int(state.item_P[0])
    index_C = np.array([item], np.int64)
    score = again.score_items(state, shop.end_us, index_C).score_C[0]
    assert score != pytest.approx(model.score_items(state, shop.end_us, index_C).score_C[0], abs=1e-3), user
    told = again.contributions(state, item, shop.end_us)
    assert sum(one.contribution for one in told) == pytest.approx(score, abs=2e-3)


def test_the_order_of_what_was_shown_does_not_let_in_what_would_show_something_else() -> None:
    """Surely the better order of these pages; but of its own picks hardly any were ever shown."""
    rng, pages, places = np.random.default_rng(1), 2_000, 4
    page_N = np.repeat(np.arange(pages), places)
    worth_N = rng.random(page_N.size)
    position_N = np.tile(np.arange(1, places + 1), pages)
    look_S = np.array([1.0, 1.0, 0.6, 0.3, 0.2])
    reward_N = (rng.random(page_N.size) < worth_N * look_S[position_N]).astype(np.float64)
    none_N = np.zeros(page_N.size, np.bool_)
    ids = tuple(f"r{page}" for page in range(pages))
    log = SlotLog(
        page_N, position_N, page_N, np.full(page_N.size, 0.5), none_N, reward_N, page_N, ids, ids, ids, 0, 0
    )  # fmt: skip
    told = compare(log, worth_N, rng.random(page_N.size), look_S)
    assert told.verdict == PASS
    assert told.supported(0.3, OpeParams().min_support) is told
    doubted = told.supported(0.02, OpeParams().min_support)
    assert doubted.verdict == CANNOT_TELL
    assert "the log shows 2% of what it would show" in doubted.reasons[-1]
