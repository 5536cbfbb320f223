"""SIMULATED: does another modality help for items that nobody could click yet, and does noise stay out?

    python -m benchmarks.impressions_cold [--days 28] [--users 600] [--sessions 1500] [--seed 7]

In two shops, one whose titles, brands and categories say what an item is and one whose words say nothing. The last
days' launches, of which no impression was learned from, are ranked for every shopper in two ways: by their own taste
over what an item is (gains are the true chances of a click), and by the page policy that a retrain learns (gains are
the true worth in GBP). A vector that carries signal ("image") and one of noise come in as the program lets them.
NDCG@10 a shopper; differences to the same without vectors are paired.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import pyarrow as pa

from benchmarks.command import finish
from benchmarks.impressions_truth import fresh_chances
from features.schema import Events, ItemVectors, Slates
from models.blank import unlearned
from models.impressions.columns import Catalogue, Floats, average_clicks, columns
from models.impressions.modalities import with_modalities
from models.impressions.pages import NO_ITEM, Ints, Pages
from models.impressions.taste import taste
from models.items import ContentSpace, ItemTable
from models.log import ActionLog
from models.metrics import estimate
from models.policy.impressions import People
from models.policy.plackett_luce import PlackettLuceParams
from models.policy.recipe import PolicyParams, learn_policy
from models.signals import Knowledge
from models.simulator import Shop, SimulatorParams, simulate_log
from models.simulator.sessions import DAY_US
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


def played(params: SimulatorParams) -> tuple[dict[str, pa.Table], int]:
    """The canonical tables without what slates and events tell of the last days, and the moment that these begin."""
    parts: dict[str, list[pa.Table]] = {}
    for name, rows in simulate_log(params):
        parts.setdefault(name, []).append(rows)
    tables = {name: pa.concat_tables(rows) for name, rows in parts.items()}
    last_us = int(tables[Slates.TABLE][Slates.SERVED_AT].cast(pa.int64()).to_numpy().max())
    cut_us = (last_us // DAY_US + 1 - NEWEST_DAYS) * DAY_US
    for name, column in ((Slates.TABLE, Slates.SERVED_AT), (Events.TABLE, Events.EVENT_TIME)):
        tables[name] = tables[name].filter(pa.array(tables[name][column].cast(pa.int64()).to_numpy() < cut_us))
    return tables, cut_us


def by_taste(tables: dict[str, pa.Table], items: ItemTable, new_K: Ints, users: list[str]) -> dict[str, Floats]:
    """(U, K) scores of the new items by each shopper's own taste, by what was offered."""
    pages = Pages.from_tables(tables[Slates.TABLE], tables[Events.TABLE], items.index)
    slates = tables[Slates.TABLE]
    user_of = dict(zip(slates[Slates.REQUEST_ID].to_pylist(), slates[Slates.USER_ID].to_pylist(), strict=True))
    code = {user_of[page]: int(of) for page, of in zip(pages.request_ids, pages.shopper_R, strict=True)}
    text = Catalogue.of(items, ContentSpace.fit(items).vectors(items))
    bare = replace(text, content_IE=text.content_IE[:, :0])
    expected_RK = average_clicks(pages, *columns(pages, text))
    with_new = asked(pages, new_K)
    padded_RK = np.zeros(with_new.item_RK.shape)
    padded_RK[: len(pages), : expected_RK.shape[1]] = expected_RK
    row = {int(shopper): at for at, shopper in enumerate(with_new.shopper_R) if at >= len(pages)}
    at_U = np.array([row[code[user]] for user in users])
    vectors = read_vectors(tables[ItemVectors.TABLE], items)
    offered = {"": {}, "image": {"image": vectors["image"]}, "noise": {"noise": vectors["noise"]}, "both": vectors}
    found = {}
    for label, some in offered.items():
        catalogue, scales = with_modalities(text, some, pages, expected_RK)
        found[f"{label} {scales or ''}"] = catalogue
    found |= {f"{name} joined unasked": text.joined(vector) for name, vector in vectors.items()}
    found |= {"price alone": bare, "price and image": bare.joined(vectors["image"])}
    return {label: taste(with_new, one, padded_RK)[at_U, : new_K.size] for label, one in found.items()}


def by_policy(
    tables: dict[str, pa.Table], items: ItemTable, new_K: Ints, users: list[str], cut_us: int
) -> dict[str, Floats]:
    """(U, K) scores of the new items by the page policy that a retrain learns, by what was offered."""
    vectors = read_vectors(tables[ItemVectors.TABLE], items)
    slates, events, found = tables[Slates.TABLE], tables[Events.TABLE], {}
    log = ActionLog.from_arrow(events, items.index, len(items), slates)
    people = People(events, log, items)
    people.open_day(cut_us, set(users))
    states = [people.state(user, None, cut_us) for user in users]
    for label, some in (("", {}), ("image", {"image": vectors["image"]}), ("noise", {"noise": vectors["noise"]})):
        table = replace(items, vectors=some)
        knowledge = Knowledge.fit(log, table, cut_us)
        judged = unlearned(knowledge, cut_us)
        told = learn_policy(slates, events, log, judged, None, PolicyParams(), PlackettLuceParams(), None)
        assert told.model is not None, told.why  # noqa: S101 - the log holds enough
        found[label] = np.stack([told.model.score_items(state, cut_us, new_K).score_C for state in states])
    return found


def run(params: SimulatorParams) -> None:
    """Play, learn from the days before the launches, rank, print."""
    tables, cut_us = played(params)
    items = ItemTable.from_arrow(tables["items"])
    new_K = np.flatnonzero(items.listed_at_I >= cut_us)
    truth = Shop(params).truth
    users = sorted(set(truth.people.user_ids).intersection(tables[Slates.TABLE][Slates.USER_ID].to_pylist()))
    chances = fresh_chances(truth, users, [items.item_ids[item] for item in new_K.tolist()], params.days - NEWEST_DAYS)
    click_UK = np.concatenate([one.attract for one in chances], axis=1)
    worth_UK = np.concatenate([truth.value(one) for one in chances], axis=1)
    print(f"SIMULATED, words {'tell' if params.words else 'say nothing'}: {new_K.size} items launched in the last"
          f" {NEWEST_DAYS} days, {len(users)} shoppers; NDCG@10, minus the same without vectors")  # fmt: skip
    for by, score, gain_UK in (
        ("own taste", by_taste(tables, items, new_K, users), click_UK),
        ("page policy", by_policy(tables, items, new_K, users, cut_us), worth_UK),
    ):
        told = {label: ndcg(score_UK, gain_UK) for label, score_UK in score.items()}
        without = next(iter(told.values()))
        for label, values in told.items():
            mean, ahead = estimate(values), estimate(values - without)
            print(f"  {by + ' ' + label:45} {mean.mean:.4f} [{mean.low:.4f}, {mean.high:.4f}]"
                  f"   {ahead.mean:+.4f} [{ahead.low:+.4f}, {ahead.high:+.4f}]", flush=True)  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("days", 28), ("users", 600), ("seed", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sessions", type=float, default=1500.0)
    args = parser.parse_args()
    for words in (True, False):
        run(SimulatorParams(
            seed=args.seed, days=args.days, users=args.users, sessions_per_day=args.sessions, modalities=True, bots=0,
            words=words,
        ))  # fmt: skip


if __name__ == "__main__":
    finish(main)
