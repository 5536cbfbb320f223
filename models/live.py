"""What events say as they come, between two trainings: popularity, neighbours, clicks an item earns for its places.

Choices. Counts only, so that an event costs microseconds and everything can be counted again from the log. Time is the
shop's own: the median time of the latest arrivals, which only moves forward, so that a history sent late, a replayed
clock or a single wrong date does no harm. One person counts an item once a day (by the strongest thing they did) and
`per_person` things a day in all, so that nobody moves the shop alone; what a trained model counted already is not
counted again, and its time passes all the same. A click is compared with the share of the page's clicks that its place
would have got anyway; pages without a click teach nothing, so that monitors and load tests, which never click, teach
nothing either.
Shapes: J items in the order in which they were first seen, S slots of a page.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import numpy.typing as npt

from models.history import DAY_US, PURCHASE, TYPE_CODE, TYPE_WEIGHT
from models.statistics import HALF_LIVES_DAYS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALL, BUYS, GUESTS = "popularity", "purchases", "guests"
SERIES = (
    *((ALL, half) for half in HALF_LIVES_DAYS),
    *((kind, half) for kind in (BUYS, GUESTS) for half in (7.0, 30.0)),
)
CLOCK_EVENTS = 65  # arrivals whose median time is the shop's time
SESSION_ITEMS = 8  # that an item is a neighbour of
ROW = 100  # neighbours kept of an item
KEPT_PEOPLE, KEPT_SESSIONS = 50_000, 20_000
REBASE_DAYS = 200.0  # inflated weights are brought down again before they grow out of range
ATTENTION = 0.7  # a slot's share of a page's clicks falls as (slot + 1) ** -ATTENTION


@dataclass(frozen=True)
class LearningParams:
    """half_life_days: of neighbours, clicks and modules; per_person: things a day of one person that count."""

    enabled: bool = True
    half_life_days: float = 7.0
    per_person: int = 80
    click_prior: float = 2.0  # expected clicks that an item must have had before its own rate counts half
    module_prior: float = 20.0
    neighbour_prior: float = 1.0  # sessions added to the norm of a cosine, so that one session proves little


@dataclass(frozen=True)
class Seen:
    """One accepted event as the counts read it; codes of types as in models.history.

    `trained`: a model counted it already, so it only tells the time.
    """

    item_id: str
    type_code: int
    time_us: int
    user_id: str | None
    session_id: str | None
    trained: bool = False


@dataclass
class _Person:
    day: int
    spent: int = 0
    items: dict[int, float] = field(default_factory=dict)


class LiveCounts:
    """Grows by `see` and `click` in one thread; other threads may read at any time."""

    def __init__(self, params: LearningParams) -> None:
        self.params = params
        self.codes: dict[str, int] = {}
        self.days = 0.0  # the shop's time since the first event, in days
        self.clock_us = 0
        self.events, self._page_clicks = 0, 0
        self._times: deque[int] = deque(maxlen=CLOCK_EVENTS)
        self._sums: Floats = np.zeros((len(SERIES), 64))
        self.last_us: Ints = np.zeros(64, dtype=np.int64)
        self._visits: Floats = np.zeros(64)  # inflated: sessions that touched the item
        self._clicks: Floats = np.zeros(64)
        self._expected: Floats = np.zeros(64)
        self._shown: Floats = np.zeros(64)  # as `_expected`, with what the model has learned from already
        self.rows: list[dict[int, float]] = []
        self._changes: list[int] = []  # of each row, so that a copy of it knows whether it is still true
        self._copies: dict[int, tuple[int, Ints, Floats]] = {}
        self._people: OrderedDict[str, _Person] = OrderedDict()
        self._sessions: OrderedDict[str, list[int]] = OrderedDict()
        self._modules: dict[str, list[float]] = {}

    # ------------------------------------------------------------ events

    def see(self, events: Sequence[Seen]) -> None:
        """Count events in their order of arrival."""
        if not events:
            return
        self._move_clock([event.time_us for event in events])
        for event in events:
            weight = float(TYPE_WEIGHT[event.type_code] / TYPE_WEIGHT.max())
            if weight <= 0 or event.trained:
                continue
            person = event.user_id if event.user_id is not None else f"\0{event.session_id}"
            code = self.code(event.item_id)
            added = self._bounded(person, code, weight)
            if added > 0:
                late = max(0.0, (self.clock_us - event.time_us) / DAY_US)
                self._count(code, added, late, event)
                self._relate(event.session_id or person, code, late)
        self.events += len(events)

    def code(self, item_id: str) -> int:
        """The item's place in the arrays; a new one at the end."""
        code = self.codes.get(item_id)
        if code is None:
            code = len(self.codes)
            if code >= self._visits.size:
                self._grow()
            self.rows.append({})
            self._changes.append(0)
            self.codes[item_id] = code
        return code

    def _grow(self) -> None:
        more = self._visits.size
        self._sums = np.concatenate([self._sums, np.zeros((len(SERIES), more))], axis=1)
        self.last_us = np.concatenate([self.last_us, np.zeros(more, dtype=np.int64)])
        self._visits, self._clicks, self._expected, self._shown = (
            np.concatenate([old, np.zeros(more)]) for old in (self._visits, self._clicks, self._expected, self._shown)
        )

    def _move_clock(self, times: Sequence[int]) -> None:
        self._times.extend(times)
        now = int(median(self._times))
        if self.clock_us:
            self.days += max(0.0, (now - self.clock_us) / DAY_US)
        self.clock_us = now
        if self.days > REBASE_DAYS:
            self._rebase()

    def _rebase(self) -> None:
        """Bring every inflated weight down to the present and start the days anew."""
        down = np.exp2(-self.days / self.params.half_life_days)
        self._sums *= np.array([np.exp2(-self.days / half) for _, half in SERIES])[:, None]
        self._visits, self._clicks, self._expected, self._shown = (
            one * down for one in (self._visits, self._clicks, self._expected, self._shown)
        )
        self.rows = [{other: w * down for other, w in row.items() if w * down > 1e-3} for row in self.rows]
        self._changes = [changes + 1 for changes in self._changes]
        self._modules = {name: [value * down for value in pair] for name, pair in self._modules.items()}
        self.days = 0.0
        self._people.clear()

    def _bounded(self, person: str, code: int, weight: float) -> float:
        """What this act adds: nothing beyond the person's day, and an item once with its strongest act."""
        day = int(self.days)
        known = self._people.get(person)
        if known is None or known.day != day:
            known = self._people[person] = _Person(day)
            if len(self._people) > KEPT_PEOPLE:
                self._people.popitem(last=False)
        self._people.move_to_end(person)
        before = known.items.get(code, 0.0)
        if weight <= before or (code not in known.items and known.spent >= self.params.per_person):
            return 0.0
        known.spent += code not in known.items
        known.items[code] = weight
        return weight - before

    def _count(self, code: int, added: float, late: float, event: Seen) -> None:
        is_buy, is_guest = event.type_code == PURCHASE, event.user_id is None
        for at, (kind, half) in enumerate(SERIES):
            if kind == ALL or (kind == BUYS and is_buy) or (kind == GUESTS and is_guest):
                self._sums[at, code] += added * 2.0 ** ((self.days - late) / half)
        self.last_us[code] = max(int(self.last_us[code]), event.time_us)

    def _relate(self, session: str, code: int, late: float) -> None:
        before = self._sessions.get(session)
        if before is None:
            before = self._sessions[session] = []
            if len(self._sessions) > KEPT_SESSIONS:
                self._sessions.popitem(last=False)
        if code in before:
            return
        weight = 2.0 ** ((self.days - late) / self.params.half_life_days)
        self._visits[code] += weight
        for other in before[-SESSION_ITEMS:]:
            for one, two in ((code, other), (other, code)):
                row = self.rows[one]
                row[two] = row.get(two, 0.0) + weight
                if len(row) > 2 * ROW:
                    self.rows[one] = dict(sorted(row.items(), key=lambda pair: -pair[1])[:ROW])
                self._changes[one] += 1
        before.append(code)

    # ------------------------------------------------------------ clicks on pages

    def click(
        self, items: Sequence[str], modules: Sequence[str], slot: int, person: str, learned: bool = False
    ) -> bool:
        """A click on a slot (from 0) of a page of ours; False where the person's day is spent.

        An item earns by one person once a day; a page on which they clicked it again is not one that they passed it
        by on, so the answer is True. What the model has `learned` from already says nothing new of what an item earns.
        """
        self._page_clicks += 1
        if self._bounded(f"page\0{person}", self._page_clicks, 1.0) <= 0:
            return False
        code = self.code(items[slot])
        if self._bounded(f"click\0{person}", code, 1.0) <= 0:
            return True
        weight = 2.0 ** (self.days / self.params.half_life_days)
        share_S = attention(len(items)) * weight
        codes = [self.code(item) for item in items]  # first, since a new item may replace the arrays
        for shown, module, share in zip(codes, modules, share_S.tolist(), strict=True):
            self._shown[shown] += share
            self._expected[shown] += 0.0 if learned else share
            self._modules.setdefault(module, [0.0, 0.0])[1] += share
        self._clicks[code] += 0.0 if learned else weight
        self._modules[modules[slot]][0] += weight
        return True

    # ------------------------------------------------------------ what is read

    def _now(self, half: float) -> float:
        return float(2.0 ** (-self.days / half))

    def sums(self, kind: str, half_life: float) -> Floats:
        """(J,) decayed counts as of now."""
        result: Floats = self._sums[SERIES.index((kind, half_life)), : len(self.codes)] * self._now(half_life)
        return result

    def earned(self) -> tuple[Floats, Floats]:
        """(J,) clicks and (J,) the clicks that the places would have got anyway, as of now."""
        down, size = self._now(self.params.half_life_days), len(self.codes)
        return self._clicks[:size] * down, self._expected[:size] * down

    def shown(self) -> Floats:
        """(J,) clicks that an item's places would have got anyway, the model's own examples among them."""
        result: Floats = self._shown[: len(self.codes)] * self._now(self.params.half_life_days)
        return result

    def modules(self) -> dict[str, float]:
        """Module -> posterior mean of its clicks over what its places would have got anyway (1 is average)."""
        down, prior = self._now(self.params.half_life_days), self.params.module_prior
        return {
            name: (clicks * down + prior) / (expected * down + prior)
            for name, (clicks, expected) in list(self._modules.items())
        }

    def neighbours(self, codes: Sequence[int], weights: Sequence[float]) -> tuple[Ints, Floats]:
        """Items that went with these in live sessions: (N,) codes, and (N,) sums of weight x cosine."""
        prior, visits = self.params.neighbour_prior / self._now(self.params.half_life_days), self._visits
        sum_J = np.zeros(visits.size)
        for code, weight in zip(codes, weights, strict=True):
            other_N, together_N = self._row(code)
            if other_N.size and int(other_N.max()) >= visits.size:  # it came since `visits` was looked up
                inside_N = other_N < visits.size
                other_N, together_N = other_N[inside_N], together_N[inside_N]
            sum_J[other_N] += weight * together_N / (np.sqrt(visits[code] * visits[other_N]) + prior)
        found_N = np.flatnonzero(sum_J)
        return found_N, sum_J[found_N]

    def _row(self, code: int) -> tuple[Ints, Floats]:
        """(N,) neighbours of an item and (N,) their weights; copied again where they changed since."""
        changes = self._changes[code]
        kept = self._copies.get(code)
        if kept is None or kept[0] != changes:
            row = list(self.rows[code].items())  # at once, because another thread adds to it
            others, weights = [other for other, _ in row], [weight for _, weight in row]
            kept = self._copies[code] = changes, np.array(others, dtype=np.int64), np.array(weights)
        return kept[1], kept[2]


def attention(slots: int) -> Floats:
    """(S,) each slot's share of a page's clicks; sums to 1."""
    share_S = (np.arange(slots) + 2.0) ** -ATTENTION
    result: Floats = share_S / share_S.sum()
    return result


def type_code(name: str) -> int:
    """The code of an event type, -1 for one that is not counted."""
    return TYPE_CODE.get(name, -1)
