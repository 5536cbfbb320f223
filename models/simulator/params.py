"""Every number of the simulated shop: its size, its people, its items, how attention and wishes become events.

Choices. One frozen dataclass, so that a shop is its parameters and a seed. Logits were set so that the log looks like
a shop's (click rate 6 to 8 % in the first slot and 1 % in the last, 4 to 5 % of sessions buy). How much a taste and a
visit's intent weigh is set by two real shops: a person's purchases are of one kind 2.1 (Online Retail) and 3.0 (Amazon
Beauty) times as often as different people's, and those of one visit 1.2 and 1.6 times as often as those of the same
person's visits; the geometric means are 2.5 and 1.4. `python -m benchmarks.simulator --marginals` shows all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from features.errors import UsageError


@dataclass(frozen=True)
class SimulatorParams:
    """SIMULATED shop. Logits are on the natural scale; `*_weight` multiplies what its comment names."""

    seed: int = 7
    first_day: date = date(2026, 1, 5)
    days: int = 28
    sessions_per_day: float = 1500.0  # on average, when all users have arrived with `satisfaction_start`
    users: int = 2000
    items: int = 1500
    page_size: int = 24
    # people
    new_user_share: float = 0.25  # arrive on a random day of the first `days`; the others were there before
    activity_sigma: float = 1.3  # of the logarithm of a user's visits a day
    drift_degrees: float = 1.5  # a day, by which a taste turns
    browse_share: float = 0.15  # sessions without an intent
    mission_share: float = 0.12  # sessions that came to buy: baskets of several items
    guest_share: float = 0.08  # sessions that are not logged in
    main_platform_share: float = 0.75  # of a user's sessions
    no_consent_share: float = 0.03
    bots: int = 3
    bot_sessions_per_day: float = 0.5
    bot_pages: int = 17
    bot_click: float = 0.9  # whatever stands there
    # items
    new_item_share: float = 0.15  # launched on a random day of the first `days`
    stock_out_share: float = 0.04  # of items, at any time
    stock_out_days: int = 3
    consumable_share: float = 0.3  # bought again; the others are not
    modalities: bool = False  # write `item_vectors`: "image" carries signal, "noise" does not
    words: bool = True  # titles, brands and categories say what an item is; without, every title is "article"
    # attention: examined with probability (1 + (position - 1) / examination_scale) ** -examination_power
    examination_scale: float = 4.0
    examination_power: float = 1.0
    # a click on an examined item
    click_bias: float = -4.4
    appeal_sigma: float = 0.8  # of an item, for everybody
    taste_weight: float = 4.2  # of the cosine of taste and item
    intent_weight: float = 2.2  # of the match with the session's intent (1 its category, `intent_near` its department)
    intent_near: float = 0.3
    price_weight: float = 0.4  # of the squared distance to the user's budget, in logarithms
    repeat_weight: float = 1.5  # bought before: plus for a consumable after `repeat_days`, minus for the rest
    repeat_days: int = 4
    seen_penalty: float = 0.6  # shown before in this session
    # after the click; "fit" is the personal part of the click logit
    cart_bias: float = -2.75
    cart_slope: float = 0.2
    buy_bias: float = -1.5
    buy_slope: float = 0.2
    mission_click: float = 1.0  # added to the click in a session that came to buy
    mission_logit: float = 1.6  # added to cart and purchase in a session that came to buy
    buy_app: float = -0.3  # on ios and android
    return_bias: float = -1.5
    return_slope: float = 0.4
    return_after_days: int = 9  # at most
    two_pieces: float = 0.12
    three_pieces: float = 0.04
    # going on and coming back
    max_pages: int = 5
    stay_bias: float = -0.9  # after a page without a click: bored
    stay_click: float = 1.1  # for each click on the page, at most two count
    stay_page: float = -0.2  # for each page before
    search_share: float = 0.12  # of the sessions with a click on their first page and an intent
    satisfaction_rate: float = 0.25  # how fast a session's quality moves a user's satisfaction
    return_gain: float = 1.0  # visits x exp(return_gain x (satisfaction - satisfaction_start))
    satisfaction_start: float = 0.33
    # what an event is worth, in GBP
    value_click: float = 0.02
    value_cart: float = 0.10
    margin: float = 0.35

    def __post_init__(self) -> None:
        if min(self.users, self.items, self.page_size, self.days, self.max_pages, self.stock_out_days) < 1:
            raise UsageError("simulator: users, items, page_size, days, max_pages, stock_out_days must be at least 1")
        if self.page_size > self.items // 2:
            raise UsageError(f"simulator: page_size {self.page_size} needs at least {2 * self.page_size} items")
        shares = {name: getattr(self, name) for name in vars(self) if name.endswith(("_share", "_pieces", "bot_click"))}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise UsageError(f"simulator: {name} is a share between 0 and 1, got {share}")

    @property
    def mean_pieces(self) -> float:
        """Expected quantity of a purchase."""
        return 1 + self.two_pieces + 2 * self.three_pieces
