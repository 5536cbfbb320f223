"""SIMULATED: a log is played and written while a witness notes the exact chance of every click of the last days.

Choices. The witness stands between the shop and its page policy and changes nothing. The observer's chance mixes the
truth over all intents (and over having come to buy) by their posterior given the visit's earlier pages: exact, since
clicks on a page are independent given the state.
Shapes: R pages, K slots, S hidden states (leaf or none, times came to buy or not).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from features.schema import Items, Users
from features.tables import TableWriter
from models.impressions.pages import Ints, Pages
from models.items import ItemTable
from models.simulator import Shop, SimulatorParams, play
from models.simulator.draws import Bools, Floats
from models.simulator.logs import Day, day_tables, request_names
from models.simulator.pages import Pages as Filled
from models.simulator.pages import PlackettLucePages
from models.simulator.sessions import SessionBatch
from models.simulator.truth import Probabilities, Truth, Who


@dataclass
class Told:
    """Request id -> (item ids, chance by the truth, chance by the observer), each (K,)."""

    truth: Truth
    pages: dict[str, tuple[Ints, Floats, Floats]] = field(default_factory=dict)

    def examination(self, positions: Ints) -> Floats:
        """True share of looks, relative to the first slot."""
        return self.truth.examination(positions) / self.truth.examination(np.array([1]))

    def of(self, pages: Pages, items: ItemTable) -> tuple[Floats, Floats]:
        """(N,) both chances of the real slots of some pages, in their order."""
        names = self.truth.catalogue.item_ids
        both = np.full((2, *pages.item_RK.shape), np.nan)
        for row, request in enumerate(pages.request_ids):
            item_K, *chances = self.pages[request]
            place = {
                items.index[names[item]]: at for at, item in enumerate(item_K.tolist()) if names[item] in items.index
            }
            at_K = [place.get(item, 0) for item in pages.item_RK[row].tolist()]
            both[:, row] = np.stack(chances)[:, at_K]
        return both[0][pages.real_RK], both[1][pages.real_RK]


class Witness(PlackettLucePages):
    """The logging policy; before a page is answered the witness notes its chances under every hidden state."""

    def __init__(self, params: SimulatorParams, first_day: int) -> None:
        super().__init__(params.items)
        self.first_day, self.noted = first_day, []

    def pages(self, shop: Shop, batch: SessionBatch, rows_R: Ints, shelf_I: Bools, rng: np.random.Generator) -> Filled:
        """The same page as without a witness."""
        filled = super().pages(shop, batch, rows_R, shelf_I, rng)
        if batch.day >= self.first_day:
            position_RK = np.broadcast_to(np.arange(1, filled.item_RK.shape[1] + 1), filled.item_RK.shape)
            true_RK = shop.probabilities(batch, rows_R, filled.item_RK, position_RK).click
            self.noted.append((true_RK, _by_state(shop, batch, rows_R, filled.item_RK, position_RK)))
        return filled


def _states(truth: Truth) -> tuple[list[tuple[int, bool]], Floats]:
    """Every (leaf or -1, came to buy) and its chance before anything is seen."""
    p, share_L = truth.params, truth.catalogue.leaf_share_L
    intent = [*(share_L * (1 - p.browse_share)), p.browse_share]
    states, prior = [], []
    for mission in (False, True):
        for at, chance in enumerate(intent):
            states.append((at if at < share_L.size else -1, mission))
            prior.append(chance * (p.mission_share if mission else 1 - p.mission_share))
    return states, np.array(prior)


def _by_state(shop: Shop, batch: SessionBatch, rows_R: Ints, item_RK: Ints, position_RK: Ints) -> Floats:
    """(S, R, K) chance of a click if the visit were in this state."""
    bought_RK = shop.bought_UI[batch.user_B[rows_R][:, None], item_RK]
    seen_RK = batch.seen_BI[rows_R[:, None], item_RK]
    found = []
    for leaf, mission in _states(shop.truth)[0]:
        who = Who(batch.user_B[rows_R], batch.day, np.full(rows_R.size, leaf), batch.platform_B[rows_R],
                  np.full(rows_R.size, mission))  # fmt: skip
        found.append(shop.truth.probabilities(who, item_RK, position_RK, bought_RK, seen_RK).click.astype(np.float32))
    return np.stack(found)


def _observe(told: Told, day: Day, noted: list[tuple[Floats, Floats]]) -> None:
    """Mix the states by what the visit's earlier pages said."""
    log_w_BS = np.tile(np.log(_states(told.truth)[1]), (len(day.batch), 1))
    for wave, (true_RK, by_state_SRK) in zip(day.waves, noted, strict=True):
        log_w_RS = log_w_BS[wave.rows_R]
        w_RS = np.exp(log_w_RS - log_w_RS.max(axis=1, keepdims=True))
        w_RS /= w_RS.sum(axis=1, keepdims=True)
        mixed_RK = np.einsum("srk,rs->rk", by_state_SRK, w_RS)
        names = request_names(day.batch, wave.rows_R, wave.answers.page_R)
        for row, name in enumerate(names):
            told.pages[name] = (wave.pages.item_RK[row], true_RK[row], mixed_RK[row])
        p_SRK = np.clip(by_state_SRK.astype(np.float64), 1e-12, 1 - 1e-9)
        happened = np.where(wave.answers.clicked_RK[None], np.log(p_SRK), np.log1p(-p_SRK)).sum(axis=2)
        log_w_BS[wave.rows_R] += happened.T


def fresh_chances(truth: Truth, users: Sequence[str], item_ids: Sequence[str], day: int) -> list[Probabilities]:
    """(U, 1) for each item: what each shopper would do who comes for nothing in particular and had not seen it."""
    place = {name: at for at, name in enumerate(truth.people.user_ids)}
    index = {name: at for at, name in enumerate(truth.catalogue.item_ids)}
    user_U = np.array([place[user] for user in users])
    zeros = np.zeros_like(user_U)
    who = Who(user_U, day, zeros - 1, zeros, zeros > 0)
    return [truth.fresh(who, index[item]) for item in item_ids]


def play_and_write(params: SimulatorParams, folder: Path, last_days: int) -> Told:
    """Canonical tables below `folder`, and the chances of the last days' pages."""
    shop = Shop(params)
    witness, told = Witness(params, params.days - last_days), Told(shop.truth)
    writers: dict[str, TableWriter] = {}
    for day in play(shop, witness, params.days, params.seed):
        if witness.noted:
            _observe(told, day, witness.noted)
            witness.noted = []
        for table, rows in day_tables(shop, day, witness.name):
            writers.setdefault(table, TableWriter(folder, table)).write(rows)
    for table, rows in ((Items.TABLE, shop.items(params.days - 1)), (Users.TABLE, shop.users(params.days - 1))):
        writers.setdefault(table, TableWriter(folder, table)).write(rows)
    for writer in writers.values():
        writer.close()
    return told
