"""What an advertiser pays: what the next ad would have needed, never more than the own bid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.ads import attention, auction
from serving.contract import Ad
from serving.params import AdsParams

PARAMS = AdsParams()


def ad(name: str, bid: float, item: str | None = None, budget: float = 1.0, daily: float | None = None) -> Ad:
    return Ad(ad_id=name, item_id=item or name, bid=bid, budget_left=budget, daily_budget=daily)


def test_the_price_is_the_next_ads_worth_over_the_own_chance() -> None:
    placed = auction([ad("a", 1.0), ad("b", 2.0), ad("c", 0.5)], {"a": 0.3, "b": 0.1, "c": 0.2}, 2, PARAMS)
    assert [one.ad_id for one in placed] == ["a", "b"]
    assert placed[0].price == pytest.approx(0.1 * 2.0 / 0.3)
    assert placed[1].price == pytest.approx(0.2 * 0.5 / 0.1)
    assert placed[0].p_click == pytest.approx(0.3) and placed[1].p_click == pytest.approx(0.1 * attention(2, PARAMS))


def test_without_a_next_ad_the_reserve_is_the_price_and_below_it_nothing_is_placed() -> None:
    reserve = AdsParams(reserve=0.4)
    assert auction([ad("a", 1.0)], {"a": 0.1}, 1, reserve)[0].price == 0.4
    assert auction([ad("a", 0.3)], {"a": 0.1}, 1, reserve) == []
    assert auction([ad("a", 1.0)], {"a": 0.1}, 1, PARAMS)[0].price == 0.0


ADS = st.lists(
    st.tuples(st.integers(0, 6), st.floats(0, 100), st.floats(-1, 5)).map(
        lambda one: ad(f"ad{one}", one[1], f"i{one[0]}", one[2])
    ),
    max_size=25,
)


@given(ADS, st.integers(1, 20))
def test_an_auction_keeps_its_promises(ads: list[Ad], slots: int) -> None:
    chances = {f"i{n}": 0.02 * (n + 1) for n in range(6)}  # i6 may not be shown
    placed = auction(ads, chances, slots, PARAMS)
    bids = {one.ad_id: one for one in ads}
    shown = [one.item_id for one in placed]
    able = {one.item_id for one in ads if one.budget_left > 0 and one.item_id in chances}
    assert len(placed) == min(slots, len(able)) and len(set(shown)) == len(shown) and set(shown) <= able
    assert all(0 <= one.price <= bids[one.ad_id].bid and bids[one.ad_id].budget_left > 0 for one in placed)
    worth = [chances[one.item_id] * bids[one.ad_id].bid for one in placed]
    assert worth == sorted(worth, reverse=True)


SHOP = st.lists(st.tuples(st.floats(0.1, 3), st.floats(0.5, 20)), min_size=1, max_size=5)


@given(SHOP, st.floats(0, 0.5), st.integers(0, 2**32 - 1))
def test_a_paced_day_is_spent_evenly_and_never_beyond_the_budget(
    shop: list[tuple[float, float]], reserve: float, seed: int
) -> None:
    rng, params = np.random.default_rng(seed), AdsParams(reserve=reserve)
    left = [budget for _, budget in shop]
    for page in range(200):
        day = page / 200
        ads = [ad(f"a{n}", bid, budget=left[n], daily=budget) for n, (bid, budget) in enumerate(shop)]
        for placed in auction(ads, {one.ad_id: 0.05 * (n + 1) for n, one in enumerate(ads)}, 2, params, day):
            number = int(placed.ad_id[1:])
            bid, budget = shop[number]
            assert reserve <= placed.price <= min(bid, left[number])
            assert budget - left[number] <= (day + params.head_start) * budget + 1e-9
            if rng.random() < 0.6:
                left[number] -= placed.price
    assert all(one >= 0 for one in left)


def test_pacing_is_asked_for_and_an_ad_behind_the_day_bids_as_ever() -> None:
    spent = [ad("a", 1.0, budget=4.0, daily=10.0), ad("b", 0.5, budget=4.0)]
    chances = {"a": 0.1, "b": 0.1}
    assert [one.ad_id for one in auction(spent, chances, 2, PARAMS, 0.3)] == ["b"]
    assert [one.ad_id for one in auction(spent, chances, 2, PARAMS, 0.6)] == ["a", "b"]
