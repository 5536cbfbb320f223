"""SIMULATED: does another modality help for items that nobody could click yet, and does noise stay out?

    python -m benchmarks.impressions_cold [--days 14] [--users 600] [--sessions 1000] [--seed 7]

The last days' launches are ranked for every shopper by their own taste over what an item is: its words, its words and
a vector that carries signal ("image"), its words and a vector of noise. Gains are the true chances of a click, NDCG@10
a shopper; differences are paired. No new item has an impression in what was learned.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pyarrow as pa

from features.schema import Events, ItemVectors, Slates
from models.impressions.columns import Catalogue, Floats, average_clicks, columns
from models.impressions.modalities import with_modalities
from models.impressions.pages import NO_ITEM, Ints, Pages, shopper_names
from models.impressions.taste import taste
from models.items import ContentSpace, ItemTable
from models.metrics import estimate
from models.simulator import Shop, SimulatorParams, simulate_log
from models.simulator.sessions import DAY_US
from models.simulator.truth import Who
from models.vectors import read_vectors

NEWEST_DAYS = 3
PLACES = 10


def asked(pages: Pages, item_K: Ints) -> Pages:
    """The known pages, and after them one page of the new items for every shopper, the day after."""
    shoppers, last = np.unique(pages.shopper_R, return_index=True)
    width = max(item_K.size, pages.item_RK.shape[1])

    def wide(known_RK: np.ndarray, more_K: np.ndarray, filler: int | bool) -> np.ndarray:
        made = np.full((len(pages) + shoppers.size, width), filler, dtype=known_RK.dtype)
        made[: len(pages), : known_RK.shape[1]] = known_RK
        made[len(pages) :, : more_K.size] = more_K
        return made

    more = pages.rows(last)
    tomorrow = np.full(shoppers.size, (int(pages.time_us_R.max()) // DAY_US + 1) * DAY_US)
    told = {
        name: np.concatenate([getattr(pages, name), getattr(more, name)]) for name in vars(pages) if name[-2:] == "_R"
    }
    told["time_us_R"] = np.concatenate([pages.time_us_R, tomorrow])
    none = np.zeros(item_K.size, dtype=bool)
    labels = {name: wide(getattr(pages, name), none, False) for name in ("clicked_RK", "carted_RK", "bought_RK")}
    return replace(
        pages, request_ids=pages.request_ids + tuple(f"new-{at}" for at in shoppers), **told, **labels,
        item_RK=wide(pages.item_RK, item_K, NO_ITEM), position_RK=wide(pages.position_RK, np.ones_like(item_K), 0),
    )  # fmt: skip


def ndcg(score_UK: Floats, gain_UK: Floats) -> Floats:
    """(U,) with graded gains."""
    discount = 1 / np.log2(np.arange(2, PLACES + 2))
    listed = np.argsort(-score_UK, axis=1, kind="stable")[:, :PLACES]
    best = -np.sort(-gain_UK, axis=1)[:, :PLACES]
    return np.asarray((np.take_along_axis(gain_UK, listed, 1) @ discount[: listed.shape[1]])
                      / (best @ discount[: best.shape[1]]))  # fmt: skip


def run(params: SimulatorParams) -> None:
    """Play, learn from the days before the launches, rank, print."""
    parts: dict[str, list[pa.Table]] = {}
    for name, rows in simulate_log(params):
        parts.setdefault(name, []).append(rows)
    tables = {name: pa.concat_tables(rows) for name, rows in parts.items()}
    items = ItemTable.from_arrow(tables["items"])
    cut_us = (
        int(tables["slates"][Slates.SERVED_AT].cast(pa.int64()).to_numpy().max()) // DAY_US + 1 - NEWEST_DAYS
    ) * DAY_US
    early = [
        tables[name].filter(pa.array(tables[name][column].cast(pa.int64()).to_numpy() < cut_us))
        for name, column in (("slates", Slates.SERVED_AT), ("events", Events.EVENT_TIME))
    ]
    pages = Pages.from_tables(*early, items.index)
    text = Catalogue.of(items, ContentSpace.fit(items).vectors(items))
    expected_RK = average_clicks(pages, *columns(pages, text))
    vectors = read_vectors(tables[ItemVectors.TABLE], items)
    new_K = np.flatnonzero(items.listed_at_I >= cut_us)
    with_new = asked(pages, new_K)
    padded_RK = np.zeros(with_new.item_RK.shape)
    padded_RK[: len(pages), : expected_RK.shape[1]] = expected_RK
    truth = Shop(params).truth
    names = {f"u:{name}": at for at, name in enumerate(truth.people.user_ids)}
    everybody = sorted({name for table in early for name in shopper_names(table)})
    code = {name: at for at, name in enumerate(everybody)}
    row = {int(shopper): at for at, shopper in enumerate(with_new.shopper_R[len(pages) :].tolist())}
    shoppers = [name for name in everybody if name in names and code[name] in row]
    user_U = np.array([names[name] for name in shoppers])
    at_U = len(pages) + np.array([row[code[name]] for name in shoppers])
    index = {name: at for at, name in enumerate(truth.catalogue.item_ids)}
    zeros = np.zeros_like(user_U)
    who = Who(user_U, params.days - NEWEST_DAYS, zeros - 1, zeros, zeros > 0)
    true = [truth.fresh(who, index[items.item_ids[item]]).attract[:, 0] for item in new_K.tolist()]
    gain_UK = np.stack(true, axis=1)
    told = {"no modality at all": ndcg(np.zeros(gain_UK.shape), gain_UK)}
    bare = replace(text, content_IE=np.zeros_like(text.content_IE[:, :0]))
    told["image alone"] = ndcg(taste(with_new, bare.joined(vectors["image"]), padded_RK)[at_U, : new_K.size], gain_UK)
    told["noise alone"] = ndcg(taste(with_new, bare.joined(vectors["noise"]), padded_RK)[at_U, : new_K.size], gain_UK)
    for label, some in (
        ("words", ()),
        ("words and image", ("image",)),
        ("words and noise", ("noise",)),
        ("all", tuple(vectors)),
    ):
        catalogue, scales = with_modalities(text, {name: vectors[name] for name in some}, pages, expected_RK)
        told[f"{label} {scales or ''}"] = ndcg(taste(with_new, catalogue, padded_RK)[at_U, : new_K.size], gain_UK)
    print(f"SIMULATED: {new_K.size} items launched in the last {NEWEST_DAYS} days, {user_U.size} shoppers; NDCG@10")
    words = next(values for name, values in told.items() if name.startswith("words "))
    for name, values in told.items():
        mean, ahead = estimate(values), estimate(values - words)
        print(f"  {name:45} {mean.mean:.4f} [{mean.low:.4f}, {mean.high:.4f}]"
              f"   minus words {ahead.mean:+.4f} [{ahead.low:+.4f}, {ahead.high:+.4f}]")  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("days", 14), ("users", 600), ("seed", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sessions", type=float, default=1000.0)
    args = parser.parse_args()
    run(SimulatorParams(
        seed=args.seed, days=args.days, users=args.users, sessions_per_day=args.sessions, modalities=True, bots=0,
    ))  # fmt: skip


if __name__ == "__main__":
    main()
