"""What the data allows, in four tiers, and the check that keeps the next one shut.

1 purchases: retrieval. 2 views and carts: sequence. 3 impressions with positions: click ranker. 4 propensities: policy
and off-policy proof. A tier is open when its own check holds and every lower one is open, because each builds on the
one below; the limits are in `ValidationParams`.
"""

from __future__ import annotations

from typing import Any

from features.schema import Events, Slates
from features.validation import Tier, ValidationParams


def _event_numbers(con: Any, present: tuple[str, ...]) -> tuple[int, int, int]:
    """Purchases, users with a purchase, views and carts."""
    if not {Events.EVENT_TYPE, Events.USER_ID, Events.ITEM_ID} <= set(present):
        return 0, 0, 0
    row = con.execute(
        "SELECT count(*) FILTER (WHERE event_type = 'purchase'),"
        " approx_count_distinct(user_id) FILTER (WHERE event_type = 'purchase'),"
        " count(*) FILTER (WHERE event_type IN ('view', 'click', 'add_to_cart')) FROM events WHERE user_id IS NOT NULL"
    ).fetchone()
    return int(row[0]), int(row[1]), int(row[2])


def _slate_numbers(con: Any, slates: tuple[str, ...], events: tuple[str, ...]) -> tuple[int, int, float, float]:
    """Impressions, clicks on them, share with a propensity, share drawn at random."""
    if not {Slates.REQUEST_ID, Slates.ITEM_ID, Slates.POSITION, Slates.PROPENSITY} <= set(slates):
        return 0, 0, 0.0, 0.0
    n, with_p, drawn = con.execute(
        "SELECT count(*), count(*) FILTER (WHERE propensity > 0 AND propensity <= 1),"
        " count(*) FILTER (WHERE propensity > 0 AND propensity < 1) FROM slates WHERE position >= 1"
    ).fetchone()
    clicks = 0
    if {Events.REQUEST_ID, Events.ITEM_ID, Events.EVENT_TYPE} <= set(events):
        clicks = con.execute(
            "SELECT count(*) FROM events e WHERE event_type IN ('click', 'add_to_cart', 'purchase') AND request_id IS"
            " NOT NULL AND (request_id, item_id) IN (SELECT (request_id, item_id) FROM slates)"
        ).fetchone()[0]
    return int(n), int(clicks), with_p / max(n, 1), drawn / max(n, 1)


def find_tiers(
    con: Any, events: tuple[str, ...], slates: tuple[str, ...], params: ValidationParams
) -> tuple[Tier, Tier, Tier, Tier]:
    """The four tiers of the views `events` and `slates`, of which the named columns are there."""
    purchases, buyers, views = _event_numbers(con, events)
    impressions, clicks, with_p, drawn = _slate_numbers(con, slates, events)
    p = params
    facts = [
        (
            "purchases",
            "retrieval",
            purchases >= p.tier_purchases and buyers >= p.tier_users,
            f"{purchases:,} purchases of about {buyers:,} users (needs {p.tier_purchases:,} of {p.tier_users:,})",
        ),
        (
            "views and carts",
            "sequence",
            views >= p.tier_views,
            f"{views:,} views, clicks and carts of known users (needs {p.tier_views:,})",
        ),
        (
            "impressions with positions",
            "click ranker",
            impressions >= p.tier_impressions and clicks >= p.tier_clicks,
            f"{impressions:,} impressions with a position and {clicks:,} answers to them"
            f" (needs {p.tier_impressions:,} and {p.tier_clicks:,})",
        ),
        (
            "propensities",
            "policy and off-policy proof",
            impressions > 0 and with_p >= p.tier_propensity_share and drawn >= p.tier_random_share,
            f"{with_p:.1%} of impressions carry a propensity, {drawn:.1%} were drawn with one below 1"
            f" (needs {p.tier_propensity_share:.0%} and {p.tier_random_share:.0%})",
        ),
    ]
    tiers: list[Tier] = []
    for number, (name, allows, holds, why) in enumerate(facts, start=1):
        below = next((tier for tier in tiers if not tier.open), None)
        held_by = f"; tier {below.number} is shut" if below and holds else ""
        tiers.append(Tier(number, name, allows, holds and below is None, why + held_by))
    return tiers[0], tiers[1], tiers[2], tiers[3]
