"""The auction of ad slots: p(click in that slot) x bid, generalised second price.

Choices. The click chance in slot s is the item's own chance times an attention that only depends on the slot
((1 + s) / 2) ** -attention, so the order is the same in every slot and a price needs no more than the ratio of two
chances. The next ad is the best of those that the winner keeps out of its slot; a second ad of the winner's item is
one of them. An item is placed at most once.
Pacing is asked for ad by ad: one that names its `daily_budget` waits while it has spent more than the day's share, and
never bids more than it has left. What was spent is the budget less `budget_left`, so pacing keeps no state, and all
workers agree. Even spending was preferred to shaded bids, which would also change what others pay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serving.contract import Ad
from serving.params import AdsParams


@dataclass(frozen=True)
class Placement:
    """One ad in one slot; price a click."""

    position: int
    ad_id: str
    item_id: str
    p_click: float
    price: float


def attention(position: int, params: AdsParams) -> float:
    """Click chance of a slot as a share of slot 1's."""
    return float(((1 + position) / 2) ** -params.attention)


def paced(ad: Ad, day: float, params: AdsParams) -> Ad | None:
    """The ad as it may bid when this share of the day is over (0 to 1); None while it is ahead of the day."""
    if ad.daily_budget is None:
        return ad
    if ad.daily_budget - ad.budget_left > min(1.0, day + params.head_start) * ad.daily_budget:
        return None
    return ad.model_copy(update={"bid": min(ad.bid, ad.budget_left)})


def auction(
    ads: Sequence[Ad], p_click: Mapping[str, float], slots: int, params: AdsParams, day: float = 1.0
) -> list[Placement]:
    """Place at most `slots` ads; `p_click` (item -> chance in slot 1) holds the items that may be shown.

    `day` is the share of the day that is over; it only concerns ads with a `daily_budget`.
    """
    running = [
        ad
        for ad in (paced(one, day, params) for one in ads if one.budget_left > 0)
        if ad is not None
        and ad.bid >= params.reserve
        and p_click.get(ad.item_id, 0.0) > 0
        and p_click[ad.item_id] >= params.relevance_floor
    ]
    running.sort(key=lambda ad: -p_click[ad.item_id] * ad.bid)  # stable: ties keep the order given
    placements: list[Placement] = []
    shown: set[str] = set()
    for place, ad in enumerate(running):
        if len(placements) == slots:
            break
        if ad.item_id in shown:
            continue
        rivals = (other for other in running[place + 1 :] if other.item_id not in shown)
        rival = next(rivals, None)
        own = p_click[ad.item_id]
        needed = p_click[rival.item_id] * rival.bid / own if rival else params.reserve
        position = len(placements) + 1
        chance = own * attention(position, params)
        price = min(ad.bid, max(params.reserve, needed))
        placements.append(Placement(position, ad.ad_id, ad.item_id, chance, price))
        shown.add(ad.item_id)
    return placements
