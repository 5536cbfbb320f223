"""What is known of every item at a cut: popularity at several speeds, trend, age, price, how often it is bought again.

Choices. One array a statistic, computed from the log before the cut only, so that a training example at an earlier
cut sees what a model of that day would have seen. Popularity counts an item once a session. A new item has the
statistics of nothing, plus its age from `listed_at`.
Shapes: I items.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from models.history import DAY_US, PURCHASE, TYPE_WEIGHT
from models.items import ItemTable
from models.log import ActionLog

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

HALF_LIVES_DAYS = (1.0, 3.0, 7.0, 14.0, 30.0, 90.0)
LONG_AGO_DAYS = 400.0
REPEAT_PRIOR = (2.0, 10.0)  # bought again by 2 of 10, before anything is known


@dataclass(frozen=True)
class ItemStatistics:
    """Name -> (I,) arrays, all finite."""

    values: dict[str, Floats]
    cut_us: int

    @cached_property
    def table_IS(self) -> Floats32:
        """(I, S) all of them beside each other, in their order: read by rows, a column for each name."""
        return np.stack([np.asarray(value, dtype=np.float32) for value in self.values.values()], axis=1)

    @classmethod
    def fit(cls, log: ActionLog, items: ItemTable, cut_us: int) -> ItemStatistics:
        """Read the log before `cut_us`."""
        log = log.before(cut_us)
        age = (cut_us - log.time_us) / DAY_US
        weight = TYPE_WEIGHT[log.type_code] / TYPE_WEIGHT.max()
        once = _first_of_session(log)

        def decayed(half_life: float, mask: npt.NDArray[np.bool_]) -> Floats:
            summed = np.bincount(
                log.item[mask], weights=(weight * np.exp2(-age / half_life))[mask], minlength=log.n_items
            )
            result: Floats = np.log1p(summed)
            return result

        values = {f"popularity_{half:g}d": decayed(half, once) for half in HALF_LIVES_DAYS}
        values["popularity_all"] = np.log1p(np.bincount(log.item[once], minlength=log.n_items))
        buys = once & (log.type_code == PURCHASE)
        values["purchases_7d"], values["purchases_30d"] = decayed(7.0, buys), decayed(30.0, buys)
        guests = once & log.is_guest
        values["guests_7d"], values["guests_30d"] = decayed(7.0, guests), decayed(30.0, guests)
        values["trend_7_30"] = values["popularity_7d"] - values["popularity_30d"]
        values["trend_30_90"] = values["popularity_30d"] - values["popularity_90d"]
        values |= _ages(log, items, cut_us) | _habits(log, items)
        if log.shown is not None:
            liking = log.shown.liking(items, cut_us)
            values["appeal"], values["appeal_doubt"] = liking.appeal_I, liking.doubt_I
        return cls(values, cut_us)

    def extended(self, items: ItemTable, now_us: int) -> ItemStatistics:
        """The same for a longer table: appended items are new (no action yet)."""
        added = len(items) - next(iter(self.values.values())).size
        if added <= 0:
            return self
        grown = {name: np.concatenate([value, np.zeros(added)]) for name, value in self.values.items()}
        listed = items.listed_at_I[-added:]
        age = np.where(listed > 0, np.maximum(now_us - listed, 0) / DAY_US, 0.0)
        grown["age"][-added:] = np.log1p(np.minimum(age, LONG_AGO_DAYS))
        grown["idle"][-added:] = np.log1p(LONG_AGO_DAYS)
        grown["repeat_rate"][-added:] = REPEAT_PRIOR[0] / REPEAT_PRIOR[1]
        grown["log_price"][-added:] = _log_price(items)[-added:]
        if "appeal_doubt" in self.values:
            grown["appeal_doubt"][-added:] = self.values["appeal_doubt"].max(initial=0.0)
        return ItemStatistics(grown, self.cut_us)

    def moved(
        self, sums: Mapping[tuple[str, float], Floats], last_us_I: Ints, now_us: int, days: float
    ) -> ItemStatistics:
        """As of `days` later with live counts: `sums` is (I,) by (kind, half-life), weighed as in `fit`, as of now.

        `last_us_I` is the last live event of an item, 0 for none.
        """
        values = dict(self.values)
        for (kind, half), live_I in sums.items():
            name = f"{kind}_{half:g}d"
            values[name] = np.log1p(np.expm1(values[name]) * 2.0 ** (-days / half) + live_I)
        longest = sums[("popularity", HALF_LIVES_DAYS[-1])]
        values["popularity_all"] = np.log1p(np.expm1(values["popularity_all"]) + longest)
        values["trend_7_30"] = values["popularity_7d"] - values["popularity_30d"]
        values["trend_30_90"] = values["popularity_30d"] - values["popularity_90d"]
        older = {name: np.minimum(np.expm1(values[name]) + days, LONG_AGO_DAYS) for name in ("age", "idle")}
        since = np.clip((now_us - last_us_I) / DAY_US, 0.0, LONG_AGO_DAYS)
        values["age"] = np.log1p(older["age"])
        values["idle"] = np.log1p(np.where(last_us_I > 0, np.minimum(since, older["idle"]), older["idle"]))
        return ItemStatistics(values, self.cut_us)


def _first_of_session(log: ActionLog) -> npt.NDArray[np.bool_]:
    """One row for each (session, item, type)."""
    keys = np.stack([log.session, log.item, log.type_code])
    order = np.lexsort(keys)
    new = np.ones(order.size, dtype=bool)
    new[1:] = (np.diff(keys[:, order], axis=1) != 0).any(axis=0)
    mask = np.zeros(order.size, dtype=bool)
    mask[order[new]] = True
    return mask


def _log_price(items: ItemTable) -> Floats:
    price = np.where(np.isfinite(items.price_I), items.price_I, np.nan)
    known = price[np.isfinite(price)]
    result: Floats = np.log1p(np.where(np.isfinite(price), price, np.median(known) if known.size else 0.0))
    return result


def _ages(log: ActionLog, items: ItemTable, cut_us: int) -> dict[str, Floats]:
    """Days since the item was first and last acted on, as log1p; never seen counts as long ago."""
    first = np.full(log.n_items, np.iinfo(np.int64).max)
    last = np.zeros(log.n_items, dtype=np.int64)
    np.minimum.at(first, log.item, log.time_us)
    np.maximum.at(last, log.item, log.time_us)
    listed = np.where(items.listed_at_I > 0, items.listed_at_I, cut_us)
    seen = last > 0
    first = np.where(seen, np.minimum(first, np.where(items.listed_at_I > 0, items.listed_at_I, first)), listed)
    age = np.clip((cut_us - first) / DAY_US, 0.0, LONG_AGO_DAYS)
    idle = np.where(seen, np.clip((cut_us - last) / DAY_US, 0.0, LONG_AGO_DAYS), LONG_AGO_DAYS)
    return {"age": np.log1p(age), "idle": np.log1p(idle)}


def _habits(log: ActionLog, items: ItemTable) -> dict[str, Floats]:
    """How often an item is bought again, in what quantity, at what price."""
    buys = (log.type_code == PURCHASE) & ~log.is_guest
    user, item, session = log.user[buys], log.item[buys], log.session[buys]
    triples = np.unique(np.stack([user, item, session]), axis=1)
    if triples.shape[1]:
        _, starts, times = np.unique(triples[:2], axis=1, return_index=True, return_counts=True)
        owner = triples[1][starts]
    else:
        owner, times = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    buyers = np.bincount(owner, minlength=log.n_items)
    again = np.bincount(owner, weights=(times > 1).astype(float), minlength=log.n_items)
    size = np.bincount(log.item, weights=np.log1p(np.maximum(log.quantity, 0)), minlength=log.n_items)
    rows = np.maximum(np.bincount(log.item, minlength=log.n_items), 1)
    return {
        "repeat_rate": (again + REPEAT_PRIOR[0]) / (buyers + REPEAT_PRIOR[1]),
        "log_quantity": size / rows,
        "log_price": _log_price(items),
    }
