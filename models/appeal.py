"""How an item is liked when it is shown: clicks against what its positions would have brought, from impressions.

Choices. Counts of clicks follow what was shown, so that a page which shows an item proves it popular; here a click
counts against the expected clicks of the slots in which the item stood. What is shown was chosen because it sells, so
the places' rates and the items' likings are fitted together: an item that pages rarely show is pulled towards what
items of its price, category and brand are liked, each item counting once, and not towards what pages are full of. How
hard it is pulled is read from the log (empirical Bayes). Clicks fade with a half-life. A page that was filled for a
person gets more clicks than its items deserve, so each shopper's own taste (taste.py) is fitted in turn with it. A shop
without impressions has no such statistic.
Source: gamma-Poisson shrinkage (DuMouchel, 1999) with a log-linear prior mean.
Shapes: I items, N impressions, M distinct pairs of shopper and item, P positions, Z properties of an item.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import gammaln

from features.schema import Events, Slates
from models.items import ItemTable
from models.taste import Pairs, TastePrior, Tastes

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HALF_LIFE_US = 30.0 * 86_400_000_000
STRENGTHS = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0)  # expected clicks that the prior may weigh
ROUNDS, STEPS = 8, 3
TURNS = 2  # of appeal and taste
FEWEST, MORE = 512, 4  # impressions that a prior of tastes is learned from, anew when there are so many times more
PRICE_PENALTY, KIND_PENALTY = 0.1, 10.0  # ridge of the prior's mean
MOST_KINDS = 300  # categories (and brands) that the prior tells apart
LONGEST_PAGE = 101
KEPT = 4  # cuts that are remembered: a day's knowledge and its people ask for the same
FOLLOWED = ("click", "view", "add_to_cart", "purchase")  # of what a slot led to: each says that it was clicked


@dataclass(frozen=True, eq=False)
class Liking:
    """As of a cut. (I,) logarithm of how much more an item is clicked than its places would bring, and how unsure.

    0 is the catalogue's average item, the doubt is a standard deviation; `tastes` of whoever saw pages by name.
    """

    appeal_I: Floats
    doubt_I: Floats
    tastes: Tastes


@dataclass(frozen=True, eq=False)
class Shown:
    """N impressions sorted by time; `who` is a place in `who_ids`, -1 for a guest."""

    time_us: Ints
    item: Ints
    position: Ints
    clicked: npt.NDArray[np.bool_]
    who: Ints
    who_ids: tuple[str, ...]
    _kept: dict[tuple[int, int], Liking] = field(default_factory=dict, repr=False)
    _priors: dict[int, TastePrior] = field(default_factory=dict, repr=False)

    @classmethod
    def from_arrow(cls, slates: pa.Table, events: pa.Table, index: dict[str, int]) -> Shown:
        """Slots of known items; a slot was clicked where an event of its request and item says so."""
        followed = pc.is_in(events[Events.EVENT_TYPE], pa.array(FOLLOWED))
        clicks = events.filter(pc.and_(followed, pc.is_valid(events[Events.REQUEST_ID])))
        clicked = set(_keys(clicks, Events.REQUEST_ID, Events.ITEM_ID))
        item = np.array([index.get(one, -1) for one in slates[Slates.ITEM_ID].to_pylist()], np.int64)
        hit = np.array([key in clicked for key in _keys(slates, Slates.REQUEST_ID, Slates.ITEM_ID)], np.bool_)
        time_us = slates[Slates.SERVED_AT].cast(pa.int64()).to_numpy()
        position = np.clip(slates[Slates.POSITION].to_numpy().astype(np.int64), 0, LONGEST_PAGE - 1)
        users = slates[Slates.USER_ID].to_pylist()
        who_ids = tuple(sorted({user for user in users if user is not None}))
        place = {user: at for at, user in enumerate(who_ids)}
        who = np.array([-1 if user is None else place[user] for user in users], np.int64)
        rows = np.flatnonzero(item >= 0)
        rows = rows[np.argsort(time_us[rows], kind="stable")]
        return cls(time_us[rows], item[rows], position[rows], hit[rows], who[rows], who_ids)

    def liking(self, items: ItemTable, cut_us: int) -> Liking:
        """What was liked before the cut; the last few cuts are remembered."""
        key = (cut_us, id(items))
        if key not in self._kept:
            while len(self._kept) >= KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = self._fit(items, cut_us)
        return self._kept[key]

    def last_seen(self, cut_us: int) -> dict[str, int]:
        """By name, the time of the newest page that a shopper saw before the cut."""
        n = int(np.searchsorted(self.time_us, cut_us, "left"))
        known_N = np.flatnonzero(self.who[:n] >= 0)
        last_U = np.zeros(len(self.who_ids), np.int64)
        last_U[self.who[known_N]] = self.time_us[known_N]  # sorted by time, so the newest is written last
        return {user: at for user, at in zip(self.who_ids, last_U.tolist(), strict=True) if at}

    def _fit(self, items: ItemTable, cut_us: int) -> Liking:
        n = int(np.searchsorted(self.time_us, cut_us, "left"))
        weight_N = np.exp2((self.time_us[:n] - cut_us) / HALF_LIFE_US)
        prior = self._prior(items, n)
        along_IR = prior.along(items)
        pairs = Pairs.of(self.who[:n], self.item[:n], len(items))
        click_M = pairs.sums(weight_N * self.clicked[:n])
        told_N, factor_UR = np.zeros(n), None
        for _ in range(TURNS):
            _, _, rate_N = self._appeal(items, n, weight_N, told_N)
            expected_M = pairs.sums(weight_N * rate_N)
            tastes, told_M, factor_UR = Tastes.fit(prior, along_IR, self.who_ids, pairs, expected_M, click_M, factor_UR)
            told_N[pairs.row_R] = told_M[pairs.place_R]
        liked_I, doubt_I, _ = self._appeal(items, n, weight_N, told_N)
        return Liking(np.log(liked_I / liked_I.mean()), doubt_I, tastes)

    def _prior(self, items: ItemTable, n: int) -> TastePrior:
        """What shoppers have in common, by the first of n impressions: a quarter or more, so that few cuts learn anew.

        After the last impression, which is what serves, it is learned on to the end.
        """
        first = FEWEST
        while first * MORE <= n:
            first *= MORE
        prior = self._learned(items, min(first, n), None)
        return prior if n < self.time_us.size else self._learned(items, n, prior)

    def _learned(self, items: ItemTable, n: int, start: TastePrior | None) -> TastePrior:
        if n not in self._priors:
            weight_N = np.exp2((self.time_us[:n] - self.time_us[n - 1]) / HALF_LIFE_US) if n else np.zeros(0)
            pairs = Pairs.of(self.who[:n], self.item[:n], len(items))
            _, _, rate_N = self._appeal(items, n, weight_N, np.zeros(n))
            click_M = pairs.sums(weight_N * self.clicked[:n])
            self._priors[n] = TastePrior.learn(items, pairs, pairs.sums(weight_N * rate_N), click_M, start)
        return self._priors[n]

    def _appeal(self, items: ItemTable, n: int, weight_N: Floats, told_N: Floats) -> tuple[Floats, Floats, Floats]:
        """(I,) liking and (I,) doubt beside tastes of (N,), and (N,) the clicks that the average shopper would make."""
        cell_N, shape = self.item[:n] * LONGEST_PAGE + self.position[:n], (len(items), LONGEST_PAGE)
        shown_IP = np.bincount(cell_N, weight_N * np.exp(told_N), len(items) * LONGEST_PAGE).reshape(shape)
        click_IP = np.bincount(cell_N, weight_N * self.clicked[:n], len(items) * LONGEST_PAGE).reshape(shape)
        click_I, click_P = click_IP.sum(axis=1), click_IP.sum(axis=0)
        property_IZ, penalty_Z = _properties(items)
        weight_Z, strength, liked_I = np.zeros(penalty_Z.size), 1.0, np.ones(len(items))
        for _ in range(ROUNDS):
            expected_I = shown_IP @ (click_P / np.maximum(liked_I @ shown_IP, 1e-9))
            for _ in range(STEPS):
                weight_Z = _step(weight_Z, property_IZ, penalty_Z, click_I, expected_I, strength)
            mean_I = np.exp(np.clip(property_IZ @ weight_Z, -6.0, 6.0))
            strength = max(STRENGTHS, key=lambda one: _evidence(one, mean_I, click_I, expected_I))
            liked_I = (click_I + strength) / (expected_I + strength / mean_I)
        rate_P = click_P / np.maximum(liked_I @ shown_IP, 1e-9)
        return liked_I, 1.0 / np.sqrt(click_I + strength), rate_P[self.position[:n]] * liked_I[self.item[:n]]


def _properties(items: ItemTable) -> tuple[Floats, Floats]:
    """(I, Z) what an item's prior may depend on, and the (Z,) ridge penalties."""
    price_I = items.standard_price_I
    columns = [np.ones(len(items)), price_I, price_I**2]
    penalties = [1e-6, PRICE_PENALTY, PRICE_PENALTY]
    for code_I in items.codes.values():
        kinds = range(min(int(code_I.max(initial=-1)) + 1, MOST_KINDS))
        columns += [(code_I == kind).astype(np.float64) for kind in kinds]
        penalties += [KIND_PENALTY] * len(kinds)
    return np.stack(columns, axis=1), np.array(penalties)


def _step(weight_Z: Floats, x_IZ: Floats, penalty_Z: Floats, click_I: Floats, expected_I: Floats, k: float) -> Floats:
    """One Newton step of the prior's mean: ridge regression of the negative binomial, log link."""
    mean_I = expected_I * np.exp(np.clip(x_IZ @ weight_Z, -6.0, 6.0))
    trust_I = k / (k + mean_I)
    gradient_Z = x_IZ.T @ ((click_I - mean_I) * trust_I) - penalty_Z * weight_Z
    hessian_ZZ = (x_IZ * (mean_I * trust_I)[:, None]).T @ x_IZ + np.diag(penalty_Z)
    step_Z = np.linalg.solve(hessian_ZZ, gradient_Z)
    result: Floats = weight_Z + step_Z * min(1.0, 2.0 / max(float(np.abs(step_Z).max()), 1e-9))
    return result


def _evidence(k: float, mean_I: Floats, click_I: Floats, expected_I: Floats) -> float:
    """Logarithm of the marginal likelihood of the clicks where the prior weighs k expected clicks."""
    rate_I = k / mean_I
    told_I = gammaln(click_I + k) - gammaln(k) + k * np.log(rate_I) - (click_I + k) * np.log(expected_I + rate_I)
    return float(told_I.sum())


def _keys(table: pa.Table, *names: str) -> list[tuple[str, ...]]:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))
