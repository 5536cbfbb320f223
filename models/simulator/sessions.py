"""The sessions of one simulated day: who comes when, on what, wanting what; drawn by address.

Shapes: B sessions, I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time

import numpy as np

from models.simulator.draws import Bools, Floats, Ints, codes, uniform
from models.simulator.truth import MAX_VISITS, PLATFORMS, Truth, Who

DAY_US = 86_400_000_000
# Share of the visits in each hour: little at night, a peak at noon and a higher one in the evening.
HOUR_SHARE = np.array([3, 2, 1, 1, 1, 2, 5, 9, 14, 18, 20, 22, 25, 23, 20, 19, 20, 23, 27, 31, 32, 27, 17, 8], float)


@dataclass(eq=False)
class SessionBatch:
    """B sessions of one day in the order of their start; `clock_us_B`, `pages_B`, `clicks_B`, `seen_BI` move on."""

    day: int
    key_B: Ints
    user_B: Ints
    intent_B: Ints
    platform_B: Ints
    mission_B: Bools
    guest_B: Bools
    bot_B: Bools
    session_ids: tuple[str, ...]
    user_ids: tuple[str | None, ...]
    start_us_B: Ints
    clock_us_B: Ints
    pages_B: Ints
    clicks_B: Ints
    seen_BI: Bools

    def __len__(self) -> int:
        return self.key_B.size

    def who(self, rows_R: Ints) -> Who:
        """What the truth needs of some of the sessions."""
        return Who(
            self.user_B[rows_R], self.day, self.intent_B[rows_R], self.platform_B[rows_R], self.mission_B[rows_R]
        )


@dataclass(eq=False)
class Session:
    """One visit as a client sees it; `user_id` is null for a guest, `now` is the time of the next page (UTC)."""

    user_id: str | None
    session_id: str
    platform: str
    started_at: datetime
    batch: SessionBatch
    row: int

    @property
    def now(self) -> datetime:
        """When the shopper asks for the next page."""
        return moment(int(self.batch.clock_us_B[self.row]))

    @property
    def rows(self) -> Ints:
        """(1,) the session's place in its batch."""
        return np.array([self.row])


def moment(microseconds: int) -> datetime:
    """Microseconds since 1970 as an aware time."""
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC).replace(microsecond=microseconds % 1_000_000)


def session_at(batch: SessionBatch, row: int) -> Session:
    """One session of a batch."""
    started = moment(int(batch.start_us_B[row]))
    return Session(batch.user_ids[row], batch.session_ids[row], PLATFORMS[batch.platform_B[row]], started, batch, row)


def sessions_of_day(truth: Truth, satisfaction_U: Floats, day: int) -> SessionBatch:
    """Everybody who comes on a day, given how content they are."""
    users = np.arange(satisfaction_U.size)
    chance_UV = truth.visit_probabilities(truth.visit_rate(satisfaction_U, day))
    count_U = (uniform(truth.seed, "visits", users, day)[:, None] < chance_UV).sum(axis=1)
    user_B = np.repeat(users, count_U)
    visit_B = np.arange(user_B.size) - np.repeat(np.cumsum(count_U) - count_U, count_U)
    return sessions_at(truth, day, user_B, visit_B)


def sessions_at(truth: Truth, day: int, user_B: Ints, visit_B: Ints) -> SessionBatch:
    """The sessions of users on a day, each user's visits counted from 0, whether or not they would have come."""
    p, people = truth.params, truth.people
    key_B = (day * people.bot_U.size + user_B) * MAX_VISITS + visit_B

    def draw(stream: str) -> Floats:
        return uniform(truth.seed, stream, key_B)

    first_us = int(datetime.combine(p.first_day, time(), UTC).timestamp()) * 1_000_000
    start_us_B = first_us + day * DAY_US + _time_of_day(draw("hour"))
    order = np.lexsort((key_B, start_us_B))
    wish_B = np.searchsorted(np.cumsum(truth.catalogue.leaf_share_L), draw("intent")).clip(
        max=truth.catalogue.leaf_share_L.size - 1
    )
    bot_B = people.bot_U[user_B]
    intent_B = np.where(bot_B | (draw("browse") < p.browse_share), -1, wish_B)
    main_B = people.platform_U[user_B]
    other_B = (main_B + 1 + (draw("other platform") < 0.5)) % len(PLATFORMS)
    platform_B = np.where(draw("platform") < p.main_platform_share, main_B, other_B)
    mission_B = draw("mission") < p.mission_share
    guest_B = ~bot_B & (draw("guest") < p.guest_share)
    names = [f"s{code:016x}" for code in codes(truth.seed, "session", key_B)[order].tolist()]
    ids = tuple(
        None if guest else people.user_ids[user]
        for user, guest in zip(user_B[order].tolist(), guest_B[order].tolist(), strict=True)
    )
    start_us_B = start_us_B[order]
    zeros = np.zeros(key_B.size, np.int64)
    return SessionBatch(
        day, key_B[order], user_B[order], intent_B[order], platform_B[order], mission_B[order],
        guest_B[order], bot_B[order],
        tuple(names), ids, start_us_B, start_us_B.copy(), zeros, zeros.copy(),
        np.zeros((key_B.size, len(truth.catalogue)), np.bool_),
    )  # fmt: skip


def _time_of_day(u_B: Floats) -> Ints:
    """(B,) microseconds after midnight, by `HOUR_SHARE`; early enough that a session ends on its day."""
    edges = np.concatenate([[0.0], np.cumsum(HOUR_SHARE) / HOUR_SHARE.sum()])
    hours_B = np.interp(u_B, edges, np.arange(25.0))
    return np.asarray(hours_B / 24.0 * (DAY_US - 3_600_000_000), dtype=np.int64)
