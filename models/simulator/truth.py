"""The truth: who the shoppers are, and the exact probability of everything that they may do.

Choices. A taste turns on a great circle, so that it drifts and yet is known for any day in closed form. A session's
intent is drawn independently of the taste: a long history says nothing of it, the session's own clicks do. Attention
depends on the position alone and clicks on a page are independent given the state (the position-based model of
Richardson et al., 2007), so that the value of a page is a sum and the best page a sort: exact without simulation.
Shapes: B sessions, K slots, I items, U users (the last `bots` of them are bots), D latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, pdtr

from models.simulator.catalogue import Catalogue, unit
from models.simulator.draws import Bools, Floats, Ints
from models.simulator.params import SimulatorParams

PLATFORMS = ("web", "ios", "android")
MAX_VISITS = 4  # of one user on one day


@dataclass(frozen=True, eq=False)
class Who:
    """What the truth knows of B shoppers on a day; `intent_B` is a leaf or -1; `mission_B`: came to buy."""

    user_B: Ints
    day: int
    intent_B: Ints
    platform_B: Ints
    mission_B: Bools


@dataclass(frozen=True, eq=False)
class Probabilities:
    """Of K slots for B shoppers, each (B, K). Only `examine` knows the position; the others are conditional."""

    examine: Floats
    attract: Floats  # click, given that it is examined
    cart: Floats  # given a click
    buy: Floats  # given the cart
    give_back: Floats  # given the purchase
    price: Floats

    @property
    def click(self) -> Floats:
        """(B, K) probability of a click."""
        return self.examine * self.attract

    @property
    def purchase(self) -> Floats:
        """(B, K) probability that the slot ends in a purchase."""
        return self.click * self.cart * self.buy


@dataclass(frozen=True, eq=False)
class People:
    """U users, bots last; ids do not tell which is which."""

    user_ids: tuple[str, ...]
    start_UD: Floats  # taste on day 0
    towards_UD: Floats  # at right angles to it: where it drifts
    log_budget_U: Floats
    visits_U: Floats  # a day, of a user with `satisfaction_start`
    arrival_U: Ints
    platform_U: Ints
    consent_U: Bools
    bot_U: Bools

    @classmethod
    def make(cls, params: SimulatorParams, catalogue: Catalogue, seed: int) -> People:
        """Draw the users of a shop."""
        rng = np.random.default_rng([seed, 2])
        n, bots = params.users, params.bots
        leaves_U2 = rng.integers(len(catalogue.leaf_LD), size=(n + bots, 2))
        start_UD = unit(catalogue.leaf_LD[leaves_U2].sum(axis=1) + 0.25 * rng.standard_normal((n + bots, 12)))
        aside_UD = unit(catalogue.leaf_LD[rng.integers(len(catalogue.leaf_LD), size=n + bots)])
        aside_UD = aside_UD + 0.25 * rng.standard_normal(aside_UD.shape)
        aside_UD = aside_UD - (aside_UD * start_UD).sum(axis=1, keepdims=True) * start_UD
        activity_U = np.exp(rng.normal(0.0, params.activity_sigma, n))
        new_U = rng.random(n + bots) < params.new_user_share
        bot_U = np.arange(n + bots) >= n
        order = rng.permutation(n + bots)
        visits_U = np.concatenate([activity_U / activity_U.sum() * params.sessions_per_day, np.zeros(bots)])
        visits_U[bot_U] = params.bot_sessions_per_day / max(bots, 1)
        return cls(
            tuple(f"u{at:05d}" for at in order),
            start_UD,
            unit(aside_UD),
            rng.normal(np.log(14.0), 0.5, n + bots),
            visits_U,
            np.where(new_U & ~bot_U, rng.integers(1, max(params.days, 2), n + bots), -rng.integers(0, 200, n + bots)),
            rng.choice(3, size=n + bots, p=[0.5, 0.3, 0.2]),
            bot_U | (rng.random(n + bots) >= params.no_consent_share),
            bot_U,
        )


class Truth:
    """A shop's laws, immutable; a method for each probability."""

    def __init__(self, params: SimulatorParams, seed: int) -> None:
        self.params, self.seed = params, seed
        self.catalogue = Catalogue.make(params, seed)
        self.people = People.make(params, self.catalogue, seed)

    def taste(self, user_B: Ints, day: int) -> Floats:
        """(B, D) tastes on a day, of length 1."""
        angle = np.radians(self.params.drift_degrees * day)
        people = self.people
        return np.asarray(np.cos(angle) * people.start_UD[user_B] + np.sin(angle) * people.towards_UD[user_B])

    def examination(self, position: Ints) -> Floats:
        """Probability that a slot is looked at, by its position counted from 1; any shape."""
        p = self.params
        return np.asarray((1 + (position - 1) / p.examination_scale) ** -p.examination_power, dtype=np.float64)

    def fit(self, who: Who, item_BK: Ints) -> Floats:
        """(B, K) the personal part of the click logit: taste, intent, price; without appeal, repeats and fatigue."""
        p, catalogue = self.params, self.catalogue
        cosine_BK = np.einsum("bd,bkd->bk", self.taste(who.user_B, who.day), catalogue.vector_ID[item_BK])
        far_BK = np.log(catalogue.price_I[item_BK]) - self.people.log_budget_U[who.user_B][:, None]
        wish_BK = p.taste_weight * cosine_BK + p.intent_weight * catalogue.match(who.intent_B, item_BK)
        return np.asarray(wish_BK - p.price_weight * far_BK**2, dtype=np.float64)

    def probabilities(
        self, who: Who, item_BK: Ints, position_BK: Ints, bought_BK: Ints, seen_BK: Bools
    ) -> Probabilities:
        """Everything that may happen to items at positions; all arrays (B, K).

        `bought_BK` is the day of the user's last purchase of the item, -1 for never; `seen_BK`: shown earlier in this
        session. Of a bot: it looks at every slot, clicks with `bot_click`, and does nothing else.
        """
        p, catalogue = self.params, self.catalogue
        fit_BK = self.fit(who, item_BK)
        again_BK = catalogue.consumable_I[item_BK] & (who.day - bought_BK >= p.repeat_days)
        repeat_BK = np.where(bought_BK >= 0, np.where(again_BK, 1.0, -1.0), 0.0)
        mission_B1 = who.mission_B[:, None]
        attract_BK = p.click_bias + catalogue.appeal_I[item_BK] + fit_BK + p.repeat_weight * repeat_BK
        attract_BK = attract_BK + p.mission_click * mission_B1 - p.seen_penalty * seen_BK
        buying_B1 = p.mission_logit * mission_B1
        app_B1 = np.where(who.platform_B > 0, p.buy_app, 0.0)[:, None]
        bot_B1 = self.people.bot_U[who.user_B][:, None]
        return Probabilities(
            np.where(bot_B1, 1.0, self.examination(position_BK)),
            np.where(bot_B1, p.bot_click, expit(attract_BK)),
            np.where(bot_B1, 0.0, expit(p.cart_bias + p.cart_slope * fit_BK + buying_B1)),
            expit(p.buy_bias + p.buy_slope * fit_BK + app_B1 + buying_B1),
            expit(p.return_bias - p.return_slope * fit_BK),
            catalogue.price_I[item_BK],
        )

    def fresh(self, who: Who, item: int) -> Probabilities:
        """(B, 1) of one item in the first slot for shoppers who neither bought nor saw it yet."""
        item_B1 = np.full((who.user_B.size, 1), item)
        ones = np.ones_like(item_B1)
        return self.probabilities(who, item_B1, ones, -ones, np.zeros(ones.shape, np.bool_))

    def value(self, chances: Probabilities) -> Floats:
        """(B, K) exact expected value of each slot in GBP: clicks, carts, and the margin of what is kept."""
        p = self.params
        sale = p.margin * p.mean_pieces * chances.price * chances.buy * (1 - chances.give_back)
        return np.asarray(chances.click * (p.value_click + chances.cart * (p.value_cart + sale)), dtype=np.float64)

    def stay(self, clicks_B: Ints, page_B: Ints) -> Floats:
        """(B,) probability to ask for another page after page `page_B` (from 0); 0 after the last that one looks at."""
        p = self.params
        logit_B = p.stay_bias + p.stay_click * np.minimum(clicks_B, 2) + p.stay_page * page_B
        return np.where(page_B + 1 < p.max_pages, expit(logit_B), 0.0)

    def visit_rate(self, satisfaction_U: Floats, day: int) -> Floats:
        """(U,) expected visits on a day (before the cut at `MAX_VISITS`); 0 before the user has arrived."""
        people = self.people
        factor_U = np.where(
            people.bot_U, 1.0, np.exp(self.params.return_gain * (satisfaction_U - self.params.satisfaction_start))
        )
        return np.where(people.arrival_U <= day, people.visits_U * factor_U, 0.0)

    def visit_probabilities(self, rate_U: Floats) -> Floats:
        """(U, MAX_VISITS) probability of at least 1, 2 ... visits: Poisson, cut."""
        return np.asarray(1.0 - pdtr(np.arange(MAX_VISITS)[None, :], rate_U[:, None]), dtype=np.float64)

    def quality(self, clicks_B: Ints) -> Floats:
        """(B,) how well a session served its shopper, 0 to 1: what satisfaction moves towards."""
        return np.asarray(1.0 - 0.5**clicks_B, dtype=np.float64)
