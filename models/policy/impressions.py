"""Pages that were shown, as the ranker saw them: features of every slot, what the slot earned, and its propensity.

Choices. A page's features are those of its own moment: knowledge as of the start of its day (what a model of that night
knew), the person's history before the day, and what they had done on the day before the page, the running session
marked as such. So the network learns from impressions exactly what it will be given in serving, a session's first
clicks included. Visitors that click on everything are left out.
Shapes: N pages, K slots (padded), F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.schema import Events, Slates
from models.appeal import FOLLOWED
from models.columns import features
from models.examples import NOBODY, states_from_log
from models.history import DAY_US, TYPE_CODE, TYPE_WEIGHT, Action, UserState
from models.items import ItemTable
from models.log import ActionLog
from models.ope.faults import bot_slots
from models.ope.log import SlotLog
from models.parallel import spread
from models.sequence import SequenceModel
from models.signals import Knowledge, read

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Page:
    """One page of K drawn slots and who saw it; `clicked`, `carted` and `paid` are by slot."""

    request_id: str
    user_id: str | None
    session_id: str | None
    served_us: int
    item_K: Ints
    position_K: Ints
    propensity_K: Floats
    clicked_K: Bools
    carted_K: Bools
    paid_K: Floats  # price x quantity

    @property
    def day_us(self) -> int:
        """The start of its day (UTC) in microseconds."""
        return self.served_us - self.served_us % DAY_US


def pages_of(slates: pa.Table, events: pa.Table, items: ItemTable, log: SlotLog | None = None) -> list[Page]:
    """The pages of a log in the order of time; without deterministic slots, bots and items that nobody knows.

    `log`: the drawn slots of these tables, where somebody has read them already.
    """
    if not slates.num_rows:
        return []
    log = SlotLog.from_tables(slates, events) if log is None else log
    log = log.take(~bot_slots(log))
    did = _done(events)
    about = _requests(slates)
    index_I = np.array([items.index.get(item, -1) for item in log.item_ids], np.int64)
    ends = np.flatnonzero(np.diff(np.append(log.page_N, -1)))
    pages, start = [], 0
    for end in (ends + 1).tolist():
        rows = np.arange(start, end)
        start = end
        rows = rows[index_I[log.item_N[rows]] >= 0]
        if rows.size:
            request = log.request_ids[log.page_N[rows[0]]]
            pages.append(_page(about[request], log, rows, index_I, did.get(request, {})))
    return sorted(pages, key=lambda page: (page.served_us, page.request_id))


def organic_share(slates: pa.Table, events: pa.Table, cut_us: int) -> float:
    """Of the acts before the cut, how many followed no page that was logged: what people found by themselves."""
    acts = _acts(events)
    acts = acts.filter(pc.less(acts[Events.EVENT_TIME].cast(pa.int64()), cut_us))
    if not acts.num_rows:
        return 0.0
    pages = slates[Slates.REQUEST_ID].unique()
    followed = np.asarray(pc.is_in(acts[Events.REQUEST_ID], pages)).sum()
    return float(1.0 - followed / acts.num_rows)


def _acts(events: pa.Table) -> pa.Table:
    """The rows that say what somebody wanted."""
    weighted = [name for name, code in TYPE_CODE.items() if TYPE_WEIGHT[code] > 0]
    return events.filter(pc.is_in(events[Events.EVENT_TYPE], pa.array(weighted)))


def _requests(slates: pa.Table) -> dict[str, dict[str, Any]]:
    """request -> who asked and when (microseconds); the same in each of its rows."""
    code_N = slates[Slates.REQUEST_ID].combine_chunks().dictionary_encode().indices.to_numpy()
    firsts = slates.take(pa.array(np.unique(code_N, return_index=True)[1]))
    told = firsts.select([Slates.REQUEST_ID, Slates.USER_ID, Slates.SESSION_ID, Slates.SERVED_AT])
    told = told.set_column(3, Slates.SERVED_AT, told[Slates.SERVED_AT].cast(pa.int64()))
    return {row[Slates.REQUEST_ID]: row for row in told.to_pylist()}


def _done(events: pa.Table) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """request -> item -> (what was done, what was paid)."""
    mine = events.filter(pc.is_valid(events[Events.REQUEST_ID]))
    names = (Events.REQUEST_ID, Events.ITEM_ID, Events.EVENT_TYPE, Events.PRICE, Events.QUANTITY)
    found: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for request, item, kind, price, pieces in zip(*(mine[name].to_pylist() for name in names), strict=True):
        paid = (price or 0.0) * (pieces or 1) if kind == "purchase" else 0.0
        found.setdefault(request, {}).setdefault(item, []).append((kind, paid))
    return found


def _page(
    about: dict[str, Any], log: SlotLog, rows: Ints, index_I: Ints, did: dict[str, list[tuple[str, float]]]
) -> Page:
    acts = [did.get(log.item_ids[item], []) for item in log.item_N[rows].tolist()]
    return Page(
        str(about[Slates.REQUEST_ID]),
        about[Slates.USER_ID],
        about[Slates.SESSION_ID],
        int(about[Slates.SERVED_AT]),
        index_I[log.item_N[rows]],
        log.position_N[rows],
        log.propensity_N[rows],
        np.array([any(kind in FOLLOWED for kind, _ in act) for act in acts], np.bool_),
        np.array([any(kind == "add_to_cart" for kind, _ in act) for act in acts], np.bool_),
        np.array([sum(paid for _, paid in act) for act in acts]),
    )


class People:
    """What everybody had done at any moment; histories as serving has them."""

    def __init__(self, events: pa.Table, log: ActionLog, items: ItemTable) -> None:
        self._log, self.items = log, items
        self._code = {name: at for at, name in enumerate(log.user_ids)}
        self._base: tuple[int, dict[int, UserState]] = (-1, {})
        mine = _acts(events)
        names = (
            Events.USER_ID, Events.SESSION_ID, Events.ITEM_ID, Events.EVENT_TYPE, Events.QUANTITY, Events.PRICE,
        )  # fmt: skip
        times = mine[Events.EVENT_TIME].cast(pa.int64()).to_pylist()
        self._acts: dict[tuple[str | None, str | None], list[Action]] = {}
        for user, session, item, kind, pieces, price, at in zip(
            *(mine[name].to_pylist() for name in names), times, strict=True
        ):
            act = Action(item, kind, at, session, float(pieces or 1), float("nan") if price is None else price)
            self._acts.setdefault((user, None if user else session), []).append(act)

    def open_day(self, day_us: int, users: set[str | None]) -> None:
        """Histories of these users before the day."""
        codes = sorted(self._code[user] for user in users if user in self._code)
        base = dict(states_from_log(self._log)(day_us, codes))
        if self._log.shown is not None:
            tastes, names = self._log.shown.liking(self.items, day_us).tastes, self._log.user_ids
            base = {code: replace(state, taste=tastes.of(names[code])) for code, state in base.items()}
        self._base = (day_us, base)

    def state(self, user: str | None, session: str | None, now_us: int) -> UserState:
        """As of a moment of the open day; actions of this very moment are the future."""
        day_us, known = self._base
        base = known.get(self._code.get(user or "", -1), NOBODY)
        acts = self._acts.get((user, None if user else session), [])
        todays = [act for act in acts if day_us <= act.time_us < now_us]
        return base.extended(todays, self.items.index, session) if todays else base


@dataclass(frozen=True, eq=False)
class Impressions:
    """N pages of at most K slots; `real_NK` tells padding."""

    x_NKF: Floats32
    position_NK: Ints
    propensity_NK: Floats
    clicked_NK: Bools
    carted_NK: Bools
    paid_NK: Floats
    price_NK: Floats
    real_NK: Bools


def impressions(
    pages: list[Page],
    people: People,
    log: ActionLog,
    items: ItemTable,
    sequence: SequenceModel | None,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> Impressions:
    """Features of every slot, day by day (a worker takes whole days); the pages must be in the order of time."""
    days: dict[int, list[int]] = {}
    for at, page in enumerate(pages):
        days.setdefault(page.day_us, []).append(at)

    def of_day(day: tuple[int, list[int]]) -> list[Floats32]:
        day_us, mine = day
        knowledge = Knowledge.fit(log, items, day_us, sequence)
        people.open_day(day_us, {pages[at].user_id for at in mine})
        states = (people.state(pages[at].user_id, pages[at].session_id, pages[at].served_us) for at in mine)
        return [_features(state, knowledge, pages[at]) for state, at in zip(states, mine, strict=True)]

    if pages and log.shown is not None:
        log.shown.liking(items, pages[-1].day_us)  # here, as every worker would learn anew what shoppers have in common
    x: list[Floats32] = []
    for number, found in enumerate(spread(of_day, sorted(days.items()), workers), 1):
        x += found
        if progress is not None:
            progress(number, len(days))
    return _padded(pages, x, items)


def _features(state: UserState, knowledge: Knowledge, page: Page) -> Floats32:
    return features(state, read(state, knowledge, page.served_us), knowledge, page.served_us, page.item_K)


def _padded(pages: list[Page], x: list[Floats32], items: ItemTable) -> Impressions:
    n, k = len(pages), max((page.item_K.size for page in pages), default=1)
    price_I = np.nan_to_num(items.price_I, nan=float(np.nanmedian(items.price_I)) if len(items) else 0.0)

    def padded(kind: Any, of: Callable[[Page], Any], fill: float = 0) -> Any:
        made = np.full((n, k), fill, kind)
        for at, page in enumerate(pages):
            made[at, : page.item_K.size] = of(page)
        return made

    x_NKF = np.zeros((n, k, x[0].shape[1] if x else 0), np.float32)
    for at, x_KF in enumerate(x):
        x_NKF[at, : len(x_KF)] = x_KF
    return Impressions(
        x_NKF,
        padded(np.int64, lambda page: page.position_K),
        padded(np.float64, lambda page: page.propensity_K, 1.0),
        padded(np.bool_, lambda page: page.clicked_K),
        padded(np.bool_, lambda page: page.carted_K),
        padded(np.float64, lambda page: page.paid_K),
        padded(np.float64, lambda page: price_I[page.item_K]),
        padded(np.bool_, lambda page: np.ones(page.item_K.size, np.bool_)),
    )
