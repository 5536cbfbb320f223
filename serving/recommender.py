"""One request, one person's state, one snapshot -> one page. Pure: no clock, no disk, no framework.

Choices. One ranking of candidates feeds all modules; a module is a subset with a reason ("you bought this before"),
so every slot carries the same ranker's score. Eligibility (stock, exclusions, rules) is a mask that stands apart from
ranking. Modules about this person come before those about the shop, each by the mean score of its best candidates
for this person; a module that `for_you` has left too little of is left out. If the model fails, the page
still comes from popularity and says so.
Legend: I items, C candidates of the ranking.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.history import PURCHASE, TYPE_CODE, TYPE_WEIGHT, Action, UserState
from models.homepage import HomepageModel
from models.page import FILLER, PlacedSlot, Pool
from models.policy import BoolArray, FloatArray, IntArray
from serving.snapshot import Snapshot

DAY_US = 86_400_000_000
NEW_DAYS = 30
NEAR = 60  # neighbours of a viewed item, and popular items, that a module may hold
KEPT_NEAR = 20_000  # items whose neighbours a snapshot remembers
MAX_TITLE = 60
REASONS = {
    "buy_again": "You bought this before",
    "trending": "Popular right now",
    "new": "New in the shop",
}
PERSONAL = ("because_you_viewed", "buy_again")
LOOKED_AT = np.array([TYPE_CODE[name] for name in ("view", "click", "add_to_cart")])

logger = logging.getLogger("homeranker.recommender")


@dataclass(frozen=True)
class Page:
    """What is shown, and what the log needs of how it came about."""

    slots: list[PlacedSlot]
    policy: str
    fallback: str | None
    candidate_count: int
    hits: Counter[str]
    sources: Counter[str]
    reasons: dict[str, str]  # by module


@dataclass(frozen=True)
class Candidates:
    """Scored candidates, best first."""

    index_C: IntArray
    score_C: FloatArray
    source_C: Sequence[str]
    fallback: str | None


def eligible(snapshot: Snapshot, exclude: Sequence[str], state: UserState, now_us: int) -> BoolArray:
    """(I,) what may be shown at all: in stock, not excluded by the request, not just bought (where a rule says so)."""
    eligible_I = snapshot.available_I.copy()
    places = [at for at in map(snapshot.items.index.get, exclude) if at is not None]
    eligible_I[places] = False
    if snapshot.rules.recently_bought is not None:
        since = now_us - int(snapshot.rules.recently_bought.days * DAY_US)
        eligible_I[state.item_P[(state.type_P == PURCHASE) & (state.last_us_P >= since)]] = False
    return eligible_I


def candidates(snapshot: Snapshot, state: UserState, eligible_I: BoolArray, now_us: int, least: int) -> Candidates:
    """The model's ranking, filled up to `least` with popular items; popularity alone where the model fails."""
    open_I = eligible_I & ~snapshot.composer.rules.excluded_I
    model, fallback = snapshot.model, "popular"
    index_C, score_C = np.empty(0, dtype=np.int64), np.empty(0)
    source_C: list[str] = []
    if model is not None:
        try:
            found = model.rank(state, model.as_of(now_us), open_I, max(snapshot.params.candidates, least))
            index_C, score_C = found.index_C, np.asarray(found.score_C, dtype=np.float64)
            source_C, fallback = list(found.source_C), ""
        except Exception as error:  # the page must come; the fault is logged and counted as a fallback
            logger.exception("ranking failed: %s", type(error).__name__, exc_info=error)
    wanted = int(open_I.sum()) if model is None or fallback else min(least, int(open_I.sum()))
    if index_C.size < wanted:
        rest_I = open_I.copy()
        rest_I[index_C] = False
        rest = np.flatnonzero(rest_I)
        rest = rest[np.argsort(-snapshot.popular_I[rest], kind="stable")][: max(snapshot.params.candidates, least)]
        low = float(np.nan_to_num(score_C).min()) - 1.0 if index_C.size else 0.0
        index_C = np.concatenate([index_C, rest])
        score_C = np.concatenate([score_C, low - np.arange(rest.size) / max(1, rest.size)])
        source_C += ["popular"] * int(rest.size)
    return Candidates(index_C, score_C, source_C, fallback or None)


def _subset(found: Candidates, keep_C: BoolArray, module: str, title: str, size: int) -> Pool:
    return Pool(module, title, found.index_C[keep_C], found.score_C[keep_C], size)


def last_looked_at(state: UserState) -> int | None:
    """The item that the person looked at last."""
    seen = state.item_P[np.isin(state.type_P, LOOKED_AT)]
    return int(seen[-1]) if seen.size else None


def _because(snapshot: Snapshot, found: Candidates, state: UserState, now_us: int, size: int) -> Pool | None:
    """Candidates that the model ranks high for somebody who only touched the last viewed item."""
    item, model = last_looked_at(state), snapshot.model
    if item is None or model is None or found.fallback:
        return None
    keep_C = np.isin(found.index_C, _near(snapshot, model, item, now_us)) & (found.index_C != item)
    return _subset(found, keep_C, "because_you_viewed", f"Because you viewed {short_title(snapshot, item)}", size)


def _near(snapshot: Snapshot, model: HomepageModel, item: int, now_us: int) -> IntArray:
    """What goes with an item, best first; the same for everybody, so it is kept with the snapshot."""
    known = snapshot.near.get(item)
    if known is None:
        as_of = model.as_of(now_us)
        alone = UserState.build(None, [Action(snapshot.items.item_ids[item], "view", as_of)], snapshot.items.index)
        open_I = snapshot.available_I & ~snapshot.composer.rules.excluded_I
        known = model.rank(alone, as_of, open_I, NEAR).index_C
        if len(snapshot.near) < KEPT_NEAR:
            snapshot.near[item] = known
    return known


def short_title(snapshot: Snapshot, item: int) -> str:
    """An item's title for a heading, or its id."""
    title = snapshot.items.titles[item] or snapshot.items.item_ids[item]
    return title if len(title) <= MAX_TITLE else title[: MAX_TITLE - 1] + "…"


def modules(snapshot: Snapshot, found: Candidates, state: UserState, now_us: int, page_size: int) -> list[Pool]:
    """The modules of this page in their order; the first `for_you`, a small page holds nothing else."""
    size = snapshot.params.module_size
    everything = np.ones(found.index_C.size, dtype=np.bool_)
    for_you_title = "Popular in the shop" if state.is_stranger else "For you"
    for_you = _subset(found, everything, "for_you", for_you_title, page_size)
    if page_size < 2 * size:
        return [for_you]
    size = max(size, page_size // 8)
    rank_C = np.argsort(np.argsort(-snapshot.popular_I[found.index_C], kind="stable"))
    bought = state.item_P[state.type_P == PURCHASE]
    fresh_C = snapshot.items.listed_at_I[found.index_C] >= now_us - NEW_DAYS * DAY_US
    others = [
        _because(snapshot, found, state, now_us, size),
        _subset(found, np.isin(found.index_C, bought), "buy_again", "Buy again", size),
        _subset(found, rank_C < NEAR, "trending", "Trending", size),
        _subset(found, fresh_C, "new", "New in the shop", size),
    ]
    least = snapshot.composer.params.least
    good = [pool for pool in others if pool is not None and pool.index_P.size >= least]
    good.sort(key=lambda pool: (pool.module not in PERSONAL, -float(np.nan_to_num(pool.score_P[:size]).mean())))
    whole = _subset(found, everything, "for_you", for_you_title, page_size // 2)
    return [whole, *good]


def page(
    snapshot: Snapshot,
    state: UserState,
    exclude: Sequence[str],
    page_size: int,
    now_us: int,
    rng: np.random.Generator,
) -> Page:
    """The page for one request; exactly page_size slots unless fewer items are eligible."""
    eligible_I = eligible(snapshot, exclude, state, now_us)
    found = candidates(snapshot, state, eligible_I, now_us, page_size + len(snapshot.rules.pin))
    pools = modules(snapshot, found, state, now_us, page_size)
    filler = _subset(found, np.ones(found.index_C.size, dtype=np.bool_), FILLER, "More to discover", page_size)
    slots, hits = snapshot.composer.compose(pools, filler, eligible_I, page_size, rng)
    source = dict(zip(found.index_C.tolist(), found.source_C, strict=True))
    reasons = {pool.module: REASONS.get(pool.module, pool.title) for pool in pools if pool.module != "for_you"}
    return Page(
        slots=slots,
        policy=snapshot.composer.policy.name,
        fallback=found.fallback,
        candidate_count=int(found.index_C.size),
        hits=hits,
        sources=Counter(name for slot in slots for name in source.get(slot.item, "rule").split("+")),
        reasons=reasons,
    )


def why_not(snapshot: Snapshot, state: UserState, item_id: str, now_us: int, page_size: int = 24) -> str:
    """What keeps an item off this person's page: the filter, the rule or the score, in one sentence."""
    at = snapshot.items.index.get(item_id)
    if at is None:
        return f"the catalogue does not know {item_id}"
    if not snapshot.available_I[at]:
        return f"{item_id} is not available (catalogue)"
    if snapshot.composer.rules.excluded_I[at]:
        return f"{item_id} is excluded by a rule (rules file: exclude)"
    eligible_I = eligible(snapshot, [], state, now_us)
    if not eligible_I[at]:
        return f"{item_id} was bought lately (rules file: recently_bought)"
    found = candidates(snapshot, state, eligible_I, now_us, page_size)
    place = np.flatnonzero(found.index_C == at)
    if not place.size:
        return f"{item_id} is eligible, but no source made it one of {found.index_C.size} candidates"
    rank, score = int(place[0]) + 1, float(found.score_C[place[0]])
    lift = float(snapshot.composer.rules.lift_I[at])
    moved = f", moved by {lift:+g} by a rule" if lift else ""
    if rank <= page_size // 2:
        return f"{item_id} is shown on most pages: rank {rank} of {found.index_C.size}, score {score:.3f}{moved}"
    return f"{item_id} is eligible, but its score {score:.3f} gives it rank {rank} of {found.index_C.size}{moved}"


def touched(state: UserState) -> set[int]:
    """Items that say something about what this person wants."""
    return set(state.item_P[TYPE_WEIGHT[state.type_P] > 0].tolist())
