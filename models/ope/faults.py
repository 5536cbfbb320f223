"""What makes a log worthless for any off-policy statement, found in the log itself; each fault with its reason.

Choices. Exact propensities imply identities that need no model of shoppers: a slot's own greedy item came with its
probability, so `not explored / propensity` has mean 1 at every position; target over logging probability has mean 1;
and an item cannot stand at a position more often than its propensities allow. A re-rank after sampling breaks them by
position, a rule that swaps after sampling breaks them for its item, a clip leaves a propensity that no draw would ever
have shown. Every test allows for chance at a level that is shared among all positions and items.
Shapes: N slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from models.ope.betting import log_capital
from models.ope.estimators import Floats
from models.ope.log import Bools, Ints, SlotLog

ERROR = 1e-3  # chance of naming a fault in a sound log, for each kind
LEAST = 200  # slots at a position (or of an item) before it is judged
TINY, ALONE = 1e-4, 20.0
LIKELY = 0.02  # an explored slot below it says nothing of how likely the greedy item was
HEAVY = 0.01  # of the sum that a sound log has: more in one value says little of the mean
REPEATED, BOT_SHARE, BOT_CLICK, BOT_SLOTS = 1e-3, 0.01, 0.5, 100


@dataclass(frozen=True)
class Fault:
    """One reason not to believe the log."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"

    def to_json(self) -> dict[str, str]:
        """For the report."""
        return {"name": self.name, "why": self.why}


def faults(log: SlotLog, weight_N: Floats | None = None) -> list[Fault]:
    """All faults that can be seen; `weight_N`: target over logging probability of each slot."""
    found = [_repeated(log), _copied(log), _bots(log), _clipped(log), _greedy(log), _frequency(log)]
    if weight_N is not None:
        found.append(_weights(log, weight_N))
    return [fault for fault in found if fault is not None]


def bot_slots(log: SlotLog) -> Bools:
    """(N,) slots of whoever clicks on more than half of what they are shown, over at least `BOT_SLOTS` slots."""
    shown = np.bincount(log.who_N, minlength=len(log.who_ids))
    clicked = np.bincount(log.who_N, log.reward_N > 0, minlength=len(log.who_ids))
    return np.asarray((shown >= BOT_SLOTS) & (clicked > BOT_CLICK * shown))[log.who_N]


def _repeated(log: SlotLog) -> Fault | None:
    share = log.repeated / max(1, log.page_N.size + log.left_out + log.repeated)
    if share <= REPEATED:
        return None
    return Fault(
        "duplicated rows", f"{log.repeated:,} rows ({share:.1%}) repeat a slot of their request; log each once"
    )


def _copied(log: SlotLog) -> Fault | None:
    """Whole pages under new request ids: same person, items, probabilities and rewards."""
    if not log.page_N.size:
        return None
    parts = (log.who_N, log.position_N, log.item_N, log.propensity_N.view(np.int64))
    mark_N = np.zeros(log.page_N.size, np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            mark_N = (mark_N ^ part.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            mark_N ^= mark_N >> np.uint64(29)
        mark_R = np.zeros(int(log.page_N.max()) + 1, np.uint64)
        np.add.at(mark_R, log.page_N, mark_N)
    slots_R = np.bincount(log.page_N, minlength=mark_R.size)
    mark_R = mark_R[slots_R >= 3]  # of shorter pages two may be the same by chance
    copies = mark_R.size - np.unique(mark_R).size
    if not mark_R.size or copies / mark_R.size <= REPEATED:
        return None
    return Fault("duplicated rows", f"{copies:,} pages ({copies / mark_R.size:.1%}) repeat another page slot by slot")


def _bots(log: SlotLog) -> Fault | None:
    bot_N = bot_slots(log)
    clicks = float((log.reward_N > 0).sum())
    share = float((log.reward_N[bot_N] > 0).sum()) / max(1.0, clicks)
    if share <= BOT_SHARE:
        return None
    people = int(np.unique(log.who_N[bot_N]).size)
    return Fault("bots", f"{people} visitors that click on over half of what they see make {share:.1%} of all clicks")


def _clipped(log: SlotLog) -> Fault | None:
    """A least propensity that stands alone below `TINY`, or many times: a clip leaves one value, a draw a tail."""
    kinds, count = np.unique(log.propensity_N, return_counts=True)
    if not kinds.size or kinds[0] >= TINY:
        return None
    alone = kinds.size == 1 or kinds[1] > ALONE * kinds[0]
    expected = log.propensity_N.size * len(log.item_ids) * kinds[0]  # at most, were every item as unlikely
    if not alone and count[0] <= max(3.0, 3.0 * expected):
        return None
    return Fault(
        "clipped propensity",
        f"{count[0]} of {log.propensity_N.size:,} slots have the propensity {kinds[0]:g}, far below all others: a clip "
        "or an error, no probability of a draw",
    )


def _greedy(log: SlotLog) -> Fault | None:
    if not log.explored_N.any():
        return None
    share_N = np.where(log.explored_N, 0.0, 1.0 / log.propensity_N)
    off = _off_one(log.position_N, share_N, below=False) or _too_rarely(log)
    if off is None:
        return None
    position, mean = off
    return Fault(
        "wrong propensities",
        f"at position {position} the greedy item's share over its propensity is {mean:.3f} instead of 1: the page "
        "was re-ranked or changed after it was drawn, or `explored` is not what the contract says",
    )


def _weights(log: SlotLog, weight_N: Floats) -> Fault | None:
    off = _off_one(log.position_N, weight_N)
    if off is None:
        return None
    position, mean = off
    return Fault(
        "wrong propensities",
        f"at position {position} the mean weight (target over logging probability) is {mean:.3f} instead of 1: the "
        "propensities are not those of the page that was shown, or the target shows what was never shown",
    )


def _too_rarely(log: SlotLog) -> tuple[int, float] | None:
    """The position at which greed shows too rarely beyond chance, and its share there over its propensity.

    Where greed is rare (a random page, half of a log by another policy) few huge values may just not have come, and the
    spread of those that came says nothing of it. But the greedy item is the likeliest: what was shown instead of it
    bounds the variance, and a slot where that was less likely than `LIKELY` counts as its expectation.
    """
    known_N = ~log.explored_N | (log.propensity_N >= LIKELY)
    share_N = np.where(log.explored_N, np.where(known_N, 0.0, 1.0), 1.0 / log.propensity_N)
    variance_N = np.where(known_N, 1.0 / log.propensity_N - 1.0, 0.0)
    places = _places(log.position_N)
    limit = float(-ndtri(ERROR / len(places)))
    for place, here_N in places:
        n, mean = int(here_N.sum()), float(share_N[here_N].mean())
        if n >= LEAST and mean < 0.98 and (1.0 - mean) * n > limit * float(np.sqrt(variance_N[here_N].sum())):
            return place, mean
    return None


def _off_one(position_N: Ints, value_N: Floats, below: bool = True) -> tuple[int, float] | None:
    """The position whose mean is off 1 beyond chance, all positions together being the first (0).

    Above 1 by betting, which no rare large value can fool; `below` 1 only where no value weighs so much that the
    missing ones may just not have come yet.
    """
    places = _places(position_N)
    error = ERROR / len(places)
    limit = float(-ndtri(error))
    for place, here_N in places:
        mean, z = _mean_and_z(value_N[here_N])
        if mean > 1.02 and z > limit and log_capital(value_N[here_N], 1.0) > -np.log(error):
            return place, mean
        heaviest = float(value_N[here_N].max(initial=0.0))
        if below and mean < 0.98 and z < -limit and heaviest <= HEAVY * here_N.sum():
            return place, mean
    return None


def _places(position_N: Ints) -> list[tuple[int, Bools]]:
    """Each position with its (N,) slots; all of them together are the first (0)."""
    own = [(place, position_N == place) for place in np.unique(position_N).tolist()]
    return [(0, np.ones(position_N.size, np.bool_)), *own]


def _mean_and_z(value_N: Floats) -> tuple[float, float]:
    """Mean and its distance from 1 in standard errors; (1, 0) for too few values."""
    if value_N.size < LEAST:
        return 1.0, 0.0
    mean = float(value_N.mean())
    return mean, (mean - 1) * float(np.sqrt(value_N.size)) / max(float(value_N.std()), 1e-12)


def _frequency(log: SlotLog) -> Fault | None:
    """Sum of 1 / propensity of an item at a position is, in the mean, at most the number of pages with that slot."""
    if not log.item_N.size:
        return None
    width = int(log.position_N.max()) + 1
    cell_N = log.item_N * width + log.position_N
    cells, at_N = np.unique(cell_N, return_inverse=True)
    count, total = np.bincount(at_N), np.bincount(at_N, 1.0 / log.propensity_N)
    square = np.bincount(at_N, 1.0 / log.propensity_N**2)
    pages = np.bincount(log.position_N, minlength=width)[cells % width]
    z = (total - pages) / np.sqrt(np.maximum(square - total**2 / pages, 1.0))
    z[(count < 20) | (pages < LEAST) | (total < 1.05 * pages)] = 0.0
    worst = int(z.argmax())
    if z[worst] <= -ndtri(ERROR / cells.size):
        return None
    item, position = log.item_ids[cells[worst] // width], int(cells[worst] % width)
    return Fault(
        "wrong propensities",
        f"{item} stood {count[worst]} times at position {position}, {total[worst] / pages[worst]:.1f} times what its "
        "propensities allow: it was put there by a rule after the draw",
    )
