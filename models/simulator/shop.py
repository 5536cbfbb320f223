"""The simulated shop at work: sessions come, pages are answered, people remember. SIMULATED throughout.

Choices. What a day changes (purchases, satisfaction) takes effect at night, so that the order in which a day's
sessions are answered does not matter and an interactive run equals a vectorised one, number for number. Every draw is
made by address: of two page policies on the same seed the same shoppers come with the same intents and the same luck,
until one of them treats somebody better.
Shapes: B sessions of a day, R of them that get a page now, K slots, I items, U users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from features.errors import UsageError
from models.simulator.draws import Bools, Floats, Ints, uniform
from models.simulator.params import SimulatorParams
from models.simulator.records import Returned, event_rows, item_rows, return_rows, search_rows, user_rows
from models.simulator.sessions import Session, SessionBatch, session_at, sessions_of_day
from models.simulator.truth import Probabilities, Truth

PAUSE_US = 20_000_000  # on a page, and so much again for each click
CLICK_US = 40_000_000


@dataclass(frozen=True, eq=False)
class Answers:
    """What R shoppers did on their pages of K slots: (R, K) arrays and (R,) arrays."""

    item_RK: Ints
    clicked_RK: Bools
    carted_RK: Bools
    bought_RK: Bools
    pieces_RK: Ints
    returned_on_RK: Ints  # day, -1 where it is kept or was not bought
    stays_R: Bools
    searched_R: Ints  # item found by an own search after the page, -1 for none
    page_R: Ints
    began_us_R: Ints
    expected_R: Floats  # exact value of the page in GBP, before anything was drawn

    def value(self, truth: Truth) -> Floats:
        """(R, K) what happened in GBP, by the weights of `SimulatorParams`."""
        p = truth.params
        kept_RK = self.bought_RK & (self.returned_on_RK < 0)
        sale_RK = p.margin * self.pieces_RK * truth.catalogue.price_I[self.item_RK]
        return p.value_click * self.clicked_RK + p.value_cart * self.carted_RK + sale_RK * kept_RK


class Shop:
    """Shoppers that answer pages; `sessions(day)` must be asked for days in ascending order, each once."""

    def __init__(self, params: SimulatorParams | None = None, seed: int | None = None, truth: Truth | None = None):
        params = params or (truth.params if truth else SimulatorParams())
        self.truth = truth or Truth(params, params.seed if seed is None else seed)
        self.params, self.seed = self.truth.params, self.truth.seed
        users = len(self.truth.people.user_ids)
        self.satisfaction_U: Floats = np.full(users, self.params.satisfaction_start)
        self.bought_UI: Ints = np.full((users, len(self.truth.catalogue)), -1, np.int64)
        self._index = {name: at for at, name in enumerate(self.truth.catalogue.item_ids)}
        self._day: SessionBatch | None = None
        self._sales: list[tuple[Ints, Ints]] = []
        self._returns: dict[int, list[Returned]] = {}

    def fork(self) -> Shop:
        """The same shop with the same past, whose future may differ: for two policies on the same shoppers."""
        twin = Shop(truth=self.truth)
        twin.satisfaction_U, twin.bought_UI = self.satisfaction_U.copy(), self.bought_UI.copy()
        twin._day, twin._sales = self._day, list(self._sales)
        twin._returns = {day: list(gone) for day, gone in self._returns.items()}
        return twin

    def open(self, day: int) -> SessionBatch:
        """End the day before and let a day's shoppers in; days ascend."""
        if self._day is not None:
            if day <= self._day.day:
                raise UsageError(f"simulator: day {day} was asked for after day {self._day.day}; days only ascend")
            self._night(self._day)
        self._day = sessions_of_day(self.truth, self.satisfaction_U, day)
        return self._day

    def sessions(self, day: int) -> Iterator[Session]:
        """A day's visits (day 0 is `first_day`) in the order of their start."""
        batch = self.open(day)
        return (session_at(batch, row) for row in range(len(batch)))

    def today(self) -> list[Session]:
        """The sessions of the day that was opened last, as they stand."""
        return [] if self._day is None else [session_at(self._day, row) for row in range(len(self._day))]

    def _night(self, batch: SessionBatch) -> None:
        """Satisfaction moves towards the quality of each session that saw a page; purchases are remembered."""
        rate = self.params.satisfaction_rate
        for row in np.flatnonzero(batch.pages_B > 0).tolist():
            quality = float(self.truth.quality(batch.clicks_B[row : row + 1])[0])
            user = batch.user_B[row]
            self.satisfaction_U[user] += rate * (quality - self.satisfaction_U[user])
        for user_N, item_N in self._sales:
            self.bought_UI[user_N, item_N] = batch.day
        self._sales = []

    def probabilities(self, batch: SessionBatch, rows_R: Ints, item_RK: Ints, position_RK: Ints) -> Probabilities:
        """The exact probabilities of items at positions for sessions as they stand now, each (R, K)."""
        user_R1, seen_RK = batch.user_B[rows_R][:, None], batch.seen_BI[rows_R[:, None], item_RK]
        return self.truth.probabilities(
            batch.who(rows_R), item_RK, position_RK, self.bought_UI[user_R1, item_RK], seen_RK
        )

    def answer(
        self,
        batch: SessionBatch,
        rows_R: Ints,
        item_RK: Ints,
        position_RK: Ints | None = None,
        remember: bool = True,
    ) -> Answers:
        """Show each of some sessions a page (the next one) and draw what they do; moves their clocks on.

        What was bought is part of the users' memory from the next day on, unless `remember` is false.
        """
        p, seed = self.params, self.seed
        if position_RK is None:
            position_RK = np.broadcast_to(np.arange(1, item_RK.shape[1] + 1), item_RK.shape)
        chances = self.probabilities(batch, rows_R, item_RK, position_RK)
        page_R, began_us_R = batch.pages_B[rows_R], batch.clock_us_B[rows_R]
        at = (batch.key_B[rows_R][:, None], page_R[:, None])
        looked_RK = uniform(seed, "look", *at, position_RK) < chances.examine
        clicked_RK = looked_RK & (uniform(seed, "click", *at, item_RK) < chances.attract)
        r, k = np.nonzero(clicked_RK)  # the rest is drawn for the few that were clicked
        address = (batch.key_B[rows_R][r], page_R[r], item_RK[r, k])

        def after(given_RK: Bools, stream: str, chance_RK: Floats) -> Bools:
            happened_RK = np.zeros_like(given_RK)
            happened_RK[r, k] = given_RK[r, k] & (uniform(seed, stream, *address) < chance_RK[r, k])
            return happened_RK

        carted_RK = after(clicked_RK, "cart", chances.cart)
        bought_RK = after(carted_RK, "buy", chances.buy)
        returned_RK = after(bought_RK, "return", chances.give_back)
        pieces_RK, later_RK = np.zeros_like(item_RK), np.zeros_like(item_RK)
        u_N = uniform(seed, "pieces", *address)
        pieces_RK[r, k] = 1 + (u_N < p.two_pieces + p.three_pieces) + (u_N < p.three_pieces)
        later_RK[r, k] = 1 + (uniform(seed, "return day", *address) * p.return_after_days).astype(np.int64)
        answers = self._walk(batch, rows_R, clicked_RK, Answers(
            item_RK, clicked_RK, carted_RK, bought_RK, pieces_RK,
            np.where(returned_RK, batch.day + later_RK, -1), np.zeros(rows_R.size, np.bool_),
            np.full(rows_R.size, -1), page_R, began_us_R, self.truth.value(chances).sum(axis=1),
        ))  # fmt: skip
        if remember:
            self._remember(batch, rows_R, answers)
        return answers

    def _walk(self, batch: SessionBatch, rows_R: Ints, clicked_RK: Bools, answers: Answers) -> Answers:
        """Move the sessions on: what they have seen, their clock, their clicks, whether they stay or search."""
        p, seed, key_R = self.params, self.seed, batch.key_B[rows_R]
        clicks_R, page_R, bot_R = clicked_RK.sum(axis=1), batch.pages_B[rows_R], batch.bot_B[rows_R]
        stays_R = uniform(seed, "stay", key_R, page_R) < self.truth.stay(clicks_R, page_R)
        stays_R = np.where(bot_R, page_R + 1 < p.bot_pages, stays_R)
        wants_R = (page_R == 0) & (clicks_R > 0) & (batch.intent_B[rows_R] >= 0) & ~bot_R
        wants_R &= uniform(seed, "search", key_R) < p.search_share
        found_R = np.full(rows_R.size, -1)
        shelf_I = self.truth.catalogue.available(batch.day)
        for row in np.flatnonzero(wants_R).tolist():
            fits = np.flatnonzero(shelf_I & (self.truth.catalogue.leaf_I == batch.intent_B[rows_R[row]]))
            if fits.size:
                luck = uniform(seed, "found", key_R[row : row + 1])[0]
                found_R[row] = fits[int(luck * fits.size)]
        batch.seen_BI[rows_R[:, None], answers.item_RK] = True
        batch.clicks_B[rows_R] += clicks_R
        batch.pages_B[rows_R] += 1
        dwell_R = (PAUSE_US + CLICK_US * clicks_R) * (0.5 + uniform(seed, "dwell", key_R, page_R))
        batch.clock_us_B[rows_R] += np.where(bot_R, 4_000_000, dwell_R).astype(np.int64)
        return replace(answers, stays_R=stays_R, searched_R=found_R)

    def _remember(self, batch: SessionBatch, rows_R: Ints, answers: Answers) -> None:
        r, k = np.nonzero(answers.bought_RK)
        if r.size:
            self._sales.append((batch.user_B[rows_R[r]], answers.item_RK[r, k]))
        r, k = np.nonzero(answers.returned_on_RK >= 0)
        for row, slot in zip(r.tolist(), k.tolist(), strict=True):
            at = int(rows_R[row])
            due = int(answers.returned_on_RK[row, slot])
            gone = Returned(
                batch.user_ids[at], batch.session_ids[at], int(answers.page_R[row]), int(answers.item_RK[row, slot]),
                int(answers.pieces_RK[row, slot]), int(batch.clock_us_B[at]), int(batch.platform_B[at]),
                due - batch.day,
            )  # fmt: skip
            self._returns.setdefault(due, []).append(gone)

    def events(self, batch: SessionBatch, rows_R: Ints, answers: Answers, request_ids: Sequence[str]) -> pa.Table:
        """The canonical events of some answers, by time."""
        position_RK = np.broadcast_to(np.arange(1, answers.item_RK.shape[1] + 1), answers.item_RK.shape)
        seen = event_rows(self.truth, batch, rows_R, answers, request_ids, position_RK)
        return pa.concat_tables([seen, search_rows(self.truth, batch, rows_R, answers)])

    def returns(self, day: int) -> pa.Table:
        """The return events that fall on a day; known once every day before it was played."""
        return return_rows(self.truth, self._returns.get(day, []))

    def items(self, day: int) -> pa.Table:
        """The catalogue on a day: what has been launched, with what is in stock."""
        return item_rows(self.truth, day)

    def users(self, day: int) -> pa.Table:
        """Who has arrived by a day, with their consent."""
        return user_rows(self.truth, day)

    # One session at a time, for a closed loop over HTTP.

    def respond(
        self, session: Session, slots: Sequence[tuple[int, str]], request_id: str
    ) -> tuple[list[dict[str, Any]], bool]:
        """What the shopper does on a page of (position, item_id): canonical events, and whether they go on.

        UsageError for an item that the catalogue lacks or a page without slots.
        """
        item_1K, position_1K = self._slots(slots)
        answers = self.answer(session.batch, session.rows, item_1K, position_1K)
        rows = event_rows(self.truth, session.batch, session.rows, answers, [request_id], position_1K)
        found = search_rows(self.truth, session.batch, session.rows, answers)
        return [*rows.to_pylist(), *found.to_pylist()], bool(answers.stays_R[0])

    def slot_values(self, session: Session, slots: Sequence[tuple[int, str]]) -> Floats:
        """(K,) exact expected value in GBP of each slot of a page of (position, item_id), as the session stands."""
        item_1K, position_1K = self._slots(slots)
        value_1K = self.truth.value(self.probabilities(session.batch, session.rows, item_1K, position_1K))
        return np.asarray(value_1K[0], dtype=np.float64)

    def value_of(self, session: Session, slots: Sequence[tuple[int, str]]) -> float:
        """Exact expected value in GBP of a page."""
        return float(self.slot_values(session, slots).sum())

    def intended(self, session: Session, slots: Sequence[tuple[int, str]]) -> float | None:
        """Share of a page in the category that the visit came for; None for a visit that came to look around."""
        wanted = int(session.batch.intent_B[session.row])
        return None if wanted < 0 else float((self.truth.catalogue.leaf_I[self._slots(slots)[0][0]] == wanted).mean())

    def launched(self, slots: Sequence[tuple[int, str]]) -> Ints:
        """(K,) the day on which each item of a page was launched, negative for those that were always there."""
        return np.asarray(self.truth.catalogue.launch_day_I[self._slots(slots)[0][0]], dtype=np.int64)

    def oracle_page(self, session: Session, k: int, available: Sequence[str] | None = None) -> list[tuple[int, str]]:
        """The page of at most `k` slots with the highest expected value; `available` defaults to the day's shelf."""
        shelf_I = self.truth.catalogue.available(session.batch.day)
        if available is not None:
            shelf_I = np.isin(np.arange(shelf_I.size), [self._index[one] for one in available])
        item_K = self.oracle(session.batch, session.rows, k, shelf_I)[0]
        return [(slot + 1, self.truth.catalogue.item_ids[item]) for slot, item in enumerate(item_K)]

    def regret(self, session: Session, slots: Sequence[tuple[int, str]]) -> float:
        """What a page leaves on the table against the oracle's of the same length, in GBP, at least 0."""
        return self.value_of(session, self.oracle_page(session, len(slots))) - self.value_of(session, slots)

    def oracle(self, batch: SessionBatch, rows_R: Ints, k: int, shelf_I: Bools) -> Ints:
        """(R, min(k, items on the shelf)) the best pages: slots are looked at less and less, so it is a sort."""
        shelf = np.flatnonzero(shelf_I)
        pages = []
        for chunk in np.array_split(rows_R, max(1, rows_R.size // 128)):
            item_RS = np.broadcast_to(shelf, (chunk.size, shelf.size))
            worth_RS = self.truth.value(self.probabilities(batch, chunk, item_RS, np.ones_like(item_RS)))
            pages.append(shelf[np.argsort(-worth_RS, axis=1, kind="stable")[:, :k]])
        return np.concatenate(pages)

    def _slots(self, slots: Sequence[tuple[int, str]]) -> tuple[Ints, Ints]:
        if not slots:
            raise UsageError("simulator: a page needs at least one slot")
        unknown = [item for _, item in slots if item not in self._index]
        if unknown:
            raise UsageError(f"simulator: item {unknown[0]!r} is not in the simulated catalogue")
        return np.array([[self._index[item] for _, item in slots]]), np.array([[at for at, _ in slots]])


def day_of(params: SimulatorParams, day: int) -> str:
    """The date of a day as YYYY-MM-DD."""
    return (params.first_day + timedelta(days=day)).isoformat()
