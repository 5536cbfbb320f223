"""Who was never here before gets what people who were never here before take."""

from __future__ import annotations

import numpy as np
import pytest

from models.calibration import Calibration
from models.evaluation import Slice, lists_of
from models.examples import ExampleParams, states_from_log, training_lists
from models.history import DAY_US, TYPE_CODE
from models.homepage import HomepageModel
from models.items import ItemRow, ItemTable
from models.log import ActionLog
from models.ranker import RankerParams, train
from models.signals import Knowledge

CUSTOMERS, GUESTS, ITEMS = 200, 600, 33
CUT_US = int(9.5 * DAY_US)


@pytest.fixture(scope="module")
def log() -> ActionLog:
    """Customers buy one thing of thirty again and again; who comes once looks at one of three others."""
    rng, rows = np.random.default_rng(0), []
    for user in range(CUSTOMERS):
        mine, first_us = 3 + user % 30, DAY_US + 60_000_000 * user
        rows += [(user, 6 * user + n, mine, first_us + 2 * DAY_US * n, "purchase") for n in range(6)]
    for guest in range(CUSTOMERS * 6, CUSTOMERS * 6 + GUESTS):
        rows.append((guest, guest, int(rng.integers(3)), DAY_US // 50 * (guest - CUSTOMERS * 6), "view"))
    rows.sort(key=lambda row: row[3])
    user, session, item, time_us = (np.array([row[at] for row in rows], dtype=np.int64) for at in range(4))
    kind, ones = np.array([TYPE_CODE[row[4]] for row in rows], dtype=np.int64), np.ones(len(rows))
    names = tuple(f"u{n}" for n in range(CUSTOMERS))
    return ActionLog(user, user >= CUSTOMERS, session, item, kind, time_us, ones, ones, names, ITEMS)


def trained(log: ActionLog, strangers: int) -> HomepageModel:
    items = ItemTable.from_rows([ItemRow(f"i{n}") for n in range(ITEMS)])
    params = ExampleParams(max_strangers_per_cut=strangers)
    lists = training_lists(log, items, [5 * DAY_US, 7 * DAY_US], CUT_US, sequence=None, params=params)
    return HomepageModel(Knowledge.fit(log, items, CUT_US), train(lists, RankerParams())[0], Calibration(), CUT_US)


def firsts(model: HomepageModel, met: Slice) -> np.ndarray:
    """(N, 3) what a visitor sees first."""
    everything_I = np.ones(ITEMS, dtype=bool)
    return lists_of(met, lambda state, at: model.rank(state, at, everything_I).index_C)[0][:, :3]


def test_strangers_get_what_strangers_take_and_customers_their_own(log: ActionLog) -> None:
    end_us = int(log.time_us[-1]) + 1
    new, back = Slice.of_strangers(log, CUT_US, end_us), Slice.of(log, CUT_US, end_us, states_from_log(log))
    assert len(new.users) > 50 and len(back.users) == CUSTOMERS
    taught, untaught = trained(log, 500), trained(log, 0)
    of_strangers = [float(np.isin(firsts(model, new), [0, 1, 2]).mean()) for model in (untaught, taught)]
    assert of_strangers[1] == 1.0 > of_strangers[0]
    own = [visit.items[0] for visit in back.visits]
    assert (firsts(taught, back)[:, 0] == own).mean() > 0.95
