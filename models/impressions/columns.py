"""What is known of a slot before it is shown: one named column a fact, the position not among them.

Choices. Item statistics are those of the midnight before the page: what a nightly job can know, and no page helps to
predict itself. Clicks count against what their slots would have given an average item, so that a good place is no
merit. Fatigue (shown before, in this visit and ever) and repeats are counted to the page itself.
Shapes: R pages, K slots, H history actions, I items, D days, E content dimensions, F columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.history import DAY_US
from models.impressions.pages import BUY, CART, CLICK, NO_ITEM, PLATFORMS, Bools, Ints, Pages
from models.items import ItemTable

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
CHUNK = 2048
PRIOR = 3.0  # expected clicks that an unknown item brings along


@dataclass(frozen=True)
class Catalogue:
    """What columns need of the items: (I,) and (I, E) arrays."""

    content_IE: Floats32
    category_I: Ints
    top_I: Ints
    brand_I: Ints
    log_price_I: Floats
    listed_us_I: Ints

    @classmethod
    def of(cls, items: ItemTable, content_IE: Floats32) -> Catalogue:
        """An unknown price is the middle one."""
        known = np.isfinite(items.price_I) & (items.price_I > 0)
        middle = float(np.median(np.log(items.price_I[known]))) if known.any() else 0.0
        log_price_I = np.where(known, np.log(np.where(known, items.price_I, 1.0)), middle)
        return cls(
            content_IE, items.category_codes_I, items.top_category_codes_I, items.brand_codes_I,
            log_price_I, items.listed_at_I,
        )  # fmt: skip

    def joined(self, vector_IE: Floats32) -> Catalogue:
        """The same with more dimensions of content."""
        return replace(self, content_IE=np.hstack([self.content_IE, vector_IE]).astype(np.float32))


def columns(pages: Pages, catalogue: Catalogue) -> tuple[Floats32, tuple[str, ...]]:
    """(R, K, F) and the F names; zeros where a slot is empty."""
    told = _of_items(pages, catalogue) | _of_repeats(pages) | _of_shopper(pages)
    parts = [_of_history(pages, catalogue, at) for at in np.array_split(np.arange(len(pages)), len(pages) // CHUNK + 1)]
    told |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    x_RKF = np.stack([np.broadcast_to(column, pages.item_RK.shape) for column in told.values()], axis=2)
    finite_RKF: Floats32 = np.nan_to_num(x_RKF.astype(np.float32))
    finite_RKF[~pages.real_RK] = 0.0
    return finite_RKF, tuple(told)


def _of_items(pages: Pages, catalogue: Catalogue) -> dict[str, Floats]:
    """Statistics up to the midnight before, price, age."""
    item_RK, real_RK = np.where(pages.real_RK, pages.item_RK, 0), pages.real_RK
    first_day = int(pages.time_us_R.min() // DAY_US) if len(pages) else 0
    day_R = (pages.time_us_R // DAY_US - first_day).astype(np.int64)
    days = int(day_R.max()) + 1 if len(pages) else 1
    place_RK = np.minimum(pages.position_RK, 200)
    shown_P = np.bincount(place_RK[real_RK], minlength=201)
    rate_P = np.bincount(place_RK[pages.clicked_RK], minlength=201) / np.maximum(shown_P, 1)
    key_RK = day_R[:, None] * pages.n_items + item_RK

    def before(weight_RK: npt.NDArray[np.floating], window: int | None = None) -> Floats:
        by_day = np.bincount(key_RK[real_RK], weights=weight_RK[real_RK], minlength=days * pages.n_items)
        total_DI = np.vstack([np.zeros(pages.n_items), np.cumsum(by_day.reshape(days, pages.n_items), axis=0)[:-1]])
        if window is not None:
            total_DI[window:] = total_DI[window:] - total_DI[:-window].copy()
        return np.asarray(total_DI[day_R[:, None], item_RK], dtype=np.float64)

    clicked, expected = pages.clicked_RK.astype(float), rate_P[place_RK]
    clicks_RK, expected_RK = before(clicked), before(expected)
    carts_RK, buys_RK = before(pages.carted_RK.astype(float)), before(pages.bought_RK.astype(float))
    age_RK = (pages.time_us_R[:, None] - catalogue.listed_us_I[item_RK]) / DAY_US
    return {
        "click_lift": np.log((clicks_RK + PRIOR) / (expected_RK + PRIOR)),
        "click_lift_3d": np.log((before(clicked, 3) + PRIOR) / (before(expected, 3) + PRIOR)),
        "log_expected": np.log1p(expected_RK),
        "cart_rate": (carts_RK + 0.5) / (clicks_RK + 5.0),
        "buy_rate": (buys_RK + 0.1) / (clicks_RK + 5.0),
        "log_price": catalogue.log_price_I[item_RK],
        "log_age_days": np.log1p(np.clip(age_RK, 0.0, 400.0)),
    }


def average_clicks(pages: Pages, x_RKF: Floats32, names: tuple[str, ...]) -> Floats:
    """(R, K) what the average shopper would click: the slot's rate times the item's lift; 0 where a slot is empty."""
    place_RK = np.minimum(pages.position_RK, 200)
    shown_P = np.bincount(place_RK[pages.real_RK], minlength=201)
    rate_P = np.bincount(place_RK[pages.clicked_RK], minlength=201) / np.maximum(shown_P, 1)
    return np.asarray(rate_P[place_RK] * np.exp(x_RKF[..., names.index("click_lift")]) * pages.real_RK)


def _counted_before(key_N: Ints, weight_N: Floats) -> Floats:
    """(N,) sum of the weights of earlier rows with the same key; rows lie in order of time."""
    order = np.argsort(key_N, kind="stable")
    sorted_key, total = key_N[order], np.cumsum(weight_N[order])
    starts = np.flatnonzero(np.append(True, np.diff(sorted_key) != 0))
    base = np.repeat((total - weight_N[order])[starts], np.diff(np.append(starts, key_N.size)))
    found = np.empty(key_N.size)
    found[order] = total - weight_N[order] - base
    return found


def _of_repeats(pages: Pages) -> dict[str, Floats]:
    """How often the slot's item was shown to this shopper before, in this visit and ever, and not clicked."""
    found: dict[str, Floats] = {}
    real = np.flatnonzero(pages.real_RK.ravel())
    item_N = pages.item_RK.ravel()[real]
    rows_N = real // pages.item_RK.shape[1]
    for name, owner_R in (("shown_in_visit", pages.session_R), ("shown_before", pages.shopper_R)):
        counted = np.zeros(pages.item_RK.size)
        counted[real] = _counted_before(owner_R[rows_N] * pages.n_items + item_N, np.ones(real.size))
        found[name] = np.log1p(counted).reshape(pages.item_RK.shape)
    clicks = pages.clicked_RK.sum(axis=1).astype(float)
    found["visit_pages"] = _counted_before(pages.session_R, np.ones(len(pages)))[:, None]
    found["visit_clicks"] = np.log1p(_counted_before(pages.session_R, clicks))[:, None]
    shown, clicked = (_counted_before(pages.shopper_R, w) for w in (pages.real_RK.sum(axis=1).astype(float), clicks))
    found["shopper_rate"] = np.log((clicked + 2.0) / (shown + 100.0))[:, None]
    return found


def _of_shopper(pages: Pages) -> dict[str, Floats]:
    hour_R = (pages.time_us_R // 3_600_000_000) % 24
    told = {f"on_{name}": (pages.platform_R == code)[:, None].astype(float) for code, name in enumerate(PLATFORMS)}
    return told | {
        "guest": pages.guest_R[:, None].astype(float),
        "evening": np.cos((hour_R - 20) / 24 * 2 * np.pi)[:, None],
        "log_actions": np.log1p(pages.end_R - pages.start_R)[:, None].astype(float),
    }


def _of_history(pages: Pages, catalogue: Catalogue, at: Ints) -> dict[str, Floats]:
    """What the last H actions say of each slot's item: content, category, brand, price, repeats."""
    actions, shown_BK = pages.actions, np.where(pages.item_RK[at] == NO_ITEM, 0, pages.item_RK[at])
    place_BH, real_BH = pages.history(at)
    item_BH, kind_BH = actions.item[place_BH], actions.kind[place_BH]
    age_BH = np.maximum(pages.time_us_R[at][:, None] - actions.time_us[place_BH], 0) / DAY_US
    visit_BH = real_BH & (actions.session[place_BH] == pages.session_R[at][:, None])
    weight_BH = real_BH * np.exp2(-age_BH / 30.0) * (1.0 + kind_BH)
    told: dict[str, Floats] = {}
    for suffix, w_BH in (("", weight_BH), ("_visit", visit_BH.astype(float))):
        total_B1 = np.maximum(w_BH.sum(axis=1, keepdims=True), 1e-9)
        mean_BE = np.einsum("bh,bhe->be", w_BH / total_B1, catalogue.content_IE[item_BH], optimize=True)
        told["content" + suffix] = np.einsum("be,bke->bk", mean_BE, catalogue.content_IE[shown_BK], optimize=True)
        for name, code_I in (
            ("category", catalogue.category_I),
            ("top", catalogue.top_I),
            ("brand", catalogue.brand_I),
        ):
            same = (code_I[shown_BK][:, :, None] == code_I[item_BH][:, None, :]) & (code_I[shown_BK] >= 0)[:, :, None]
            told[name + suffix] = np.einsum("bkh,bh->bk", same, w_BH / total_B1, optimize=True)
            if not suffix and name != "top":
                told[name + "_weight"] = np.log1p(np.einsum("bkh,bh->bk", same, w_BH, optimize=True))
    spent_B1 = np.maximum(weight_BH.sum(axis=1, keepdims=True), 1e-9)
    usual_B1 = (weight_BH * catalogue.log_price_I[item_BH]).sum(axis=1, keepdims=True) / spent_B1
    far_BK = np.where(real_BH.any(axis=1, keepdims=True), catalogue.log_price_I[shown_BK] - usual_B1, 0.0)
    told |= {"price_far": far_BK, "price_far_squared": far_BK**2}
    same_BKH = (shown_BK[:, :, None] == item_BH[:, None, :]) & real_BH[:, None, :]
    for name, kind in (("clicked", CLICK), ("carted", CART), ("bought", BUY)):
        held_BKH = same_BKH & (kind_BH == kind)[:, None, :]
        told[name + "_times"] = np.log1p(held_BKH.sum(axis=2))
        newest = np.where(held_BKH, age_BH[:, None, :], 365.0).min(axis=2)
        told[name + "_days_ago"] = np.log1p(newest)
    return told


def standardise(x_RKF: Floats32, real_RK: Bools) -> tuple[Floats32, Floats32]:
    """(F,) mean and inverse spread over real slots; a column that never varies has scale 0."""
    rows = x_RKF[real_RK]
    mean_F, spread_F = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    scale_F = np.where(spread_F > 1e-5, 1.0 / np.maximum(spread_F, 1e-5), 0.0)
    return mean_F.astype(np.float32), scale_F.astype(np.float32)
