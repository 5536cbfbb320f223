"""What the data allows, in four tiers, and the check that keeps the next one shut.

1 purchases: retrieval. 2 views and carts: sequence. 3 impressions with positions: click ranker. 4 propensities: policy
and off-policy proof. A tier is open when its own check holds and every lower one is open, because each builds on the
one below; the limits are in `ValidationParams`.
"""

# Queries are put together from the predicates of `census.py`, never from the data.
# ruff: noqa: S608

from __future__ import annotations

from features.census import of_the_willing
from features.evidence import Evidence
from features.schema import Events, Slates
from features.validation import Tier


def _event_numbers(run: Evidence) -> tuple[int, int, int]:
    """Purchases, users with a purchase, views and carts."""
    if not {Events.EVENT_TYPE, Events.USER_ID, Events.ITEM_ID} <= set(run.columns(Events.TABLE)):
        return 0, 0, 0
    row = run.con.execute(
        "SELECT count(*) FILTER (WHERE event_type = 'purchase'),"
        " approx_count_distinct(user_id) FILTER (WHERE event_type = 'purchase'),"
        " count(*) FILTER (WHERE event_type IN ('view', 'click', 'add_to_cart')) FROM events"
        f" WHERE user_id IS NOT NULL AND {of_the_willing(run, Events.TABLE)}"
    ).fetchone()
    return int(row[0]), int(row[1]), int(row[2])


def _slate_numbers(run: Evidence) -> tuple[int, int, float, float]:
    """Impressions, answers to them, share with a propensity, share drawn at random."""
    if not {Slates.REQUEST_ID, Slates.ITEM_ID, Slates.POSITION, Slates.PROPENSITY} <= set(run.columns(Slates.TABLE)):
        return 0, 0, 0.0, 0.0
    n, with_p, drawn = run.con.execute(
        "SELECT count(*), count(*) FILTER (WHERE propensity > 0 AND propensity <= 1),"
        " count(*) FILTER (WHERE propensity > 0 AND propensity < 1) FROM slates WHERE position >= 1"
        f" AND {of_the_willing(run, Slates.TABLE)}"
    ).fetchone()
    clicks = 0
    if {Events.REQUEST_ID, Events.ITEM_ID, Events.EVENT_TYPE} <= set(run.columns(Events.TABLE)):
        # A product page that was opened out of a slate is a click on it: the policy learns from both alike.
        clicks = run.con.execute(
            "SELECT count(*) FROM events WHERE event_type IN ('click', 'view', 'add_to_cart', 'purchase')"
            " AND request_id IS NOT NULL AND (request_id, item_id) IN (SELECT (request_id, item_id) FROM slates)"
            f" AND {of_the_willing(run, Events.TABLE)}"
        ).fetchone()[0]
    return int(n), int(clicks), with_p / max(n, 1), drawn / max(n, 1)


def find_tiers(run: Evidence) -> tuple[Tier, Tier, Tier, Tier]:
    """The four tiers of the views `events` and `slates`; who did not agree opens none."""
    purchases, buyers, views = _event_numbers(run)
    impressions, clicks, with_p, drawn = _slate_numbers(run)
    p = run.params
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
