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
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.history import PURCHASE, TYPE_CODE, Action, UserState
from models.homepage import Ranking
from models.live_signals import NAMES, signals, sources
from models.page import FILLER, PlacedSlot, Pool
from models.policy import BoolArray, FloatArray, IntArray
from models.retrieval import Names
from serving.snapshot import Snapshot

DAY_US = 86_400_000_000
NEW_DAYS, JUST_US = 30, DAY_US // 8  # of an item in the shop; since a purchase, which a visit rarely repeats
NEAR = 60  # neighbours of a viewed item, and popular items, that a module may hold
HOT_SHARE = 0.05  # of the shop's items, at most, are popular right now
KEPT_NEAR = 20_000  # items whose neighbours a snapshot remembers
MAX_TITLE = 60
EVERY = 1_000_000  # the model's own order is one signal of several: nothing is cut by it
NONE = np.empty(0, dtype=np.int64)
NO_SIGNALS = np.empty((0, len(NAMES)))
REASONS = {
    "buy_again": "You bought this before",
    "trending": "Popular right now",
    "new": "New in the shop",
}
WORTH = 0.5  # a module that earns less than this share of what its places would is left out
PERSONAL = ("because_you_viewed", "buy_again")
LOOKED_AT = np.isin(np.arange(len(TYPE_CODE)), [TYPE_CODE[name] for name in ("view", "click", "add_to_cart")])

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
    signal_SF: FloatArray  # by slot, what its score was made of


@dataclass(frozen=True)
class Candidates:
    """Scored candidates, best first; `signal_CF` is what their scores were made of, empty where the model failed."""

    index_C: IntArray
    score_C: FloatArray
    source_C: Names
    signal_CF: FloatArray
    fallback: str | None

    def only(self, keep_C: BoolArray) -> Candidates:
        """Some of them."""
        signal_CF = self.signal_CF[keep_C] if len(self.signal_CF) else self.signal_CF
        return Candidates(self.index_C[keep_C], self.score_C[keep_C], self.source_C[keep_C], signal_CF, self.fallback)


NOBODY = Candidates(NONE, np.empty(0), np.empty(0, dtype=object), NO_SIGNALS, None)


def eligible(snapshot: Snapshot, exclude: Sequence[str], state: UserState, now_us: int) -> BoolArray:
    """(I,) what may be shown at all: in stock, not excluded by the request, not just bought (where a rule says so)."""
    eligible_I = snapshot.available_I.copy()
    places = [at for at in map(snapshot.items.index.get, exclude) if at is not None]
    eligible_I[places] = False
    if snapshot.rules.recently_bought is not None:
        since = now_us - int(snapshot.rules.recently_bought.days * DAY_US)
        eligible_I[state.bought_since(since)] = False
    return eligible_I


def score(
    snapshot: Snapshot, state: UserState, found: Ranking, near_I: FloatArray, passed: IntArray = NONE
) -> tuple[FloatArray, FloatArray]:
    """(C,) final scores of what the model ranked, and (C, F) the signals that they weigh."""
    assert found.reading is not None  # noqa: S101 - the model reads for every ranking that has items
    new_I = snapshot.items.listed_at_I > snapshot.new_after_us
    model_C = np.asarray(found.score_C, dtype=np.float64)
    doubt_I = snapshot.model.knowledge.statistics.values.get("appeal_doubt")
    signal_CF = signals(snapshot.learned, state, found.reading, near_I, new_I, found.index_C, model_C, doubt_I, passed)
    return signal_CF @ snapshot.learned.weights_F, signal_CF


def score_items(snapshot: Snapshot, state: UserState, index_C: IntArray, now_us: int) -> tuple[FloatArray, Ranking]:
    """(C,) final scores of given items, in their order, and the model's own view of them."""
    ranked = snapshot.model.score_items(state, snapshot.model.as_of(now_us), index_C)
    if not index_C.size:
        return np.empty(0), ranked
    return score(snapshot, state, ranked, snapshot.learned.neighbours(state, False))[0], ranked


def _rank(
    snapshot: Snapshot, state: UserState, open_I: BoolArray, now_us: int, n: int, passed: IntArray = NONE
) -> Candidates:
    """The best n of all sources by the final score."""
    if not open_I.any():
        return NOBODY
    near_I = snapshot.learned.neighbours(state, False)
    found = _found(snapshot, state, open_I, near_I, now_us)
    score_C, signal_CF = score(snapshot, state, found, near_I, passed)
    best = np.argsort(-score_C, kind="stable")[:n]
    return Candidates(found.index_C[best], score_C[best], found.source_C[best], signal_CF[best], None)


def _found(snapshot: Snapshot, state: UserState, open_I: BoolArray, near_I: FloatArray, now_us: int) -> Ranking:
    """What the model says; read once a snapshot for everybody of whom nothing is known, whenever they come."""
    unknown = state.is_stranger and not state.n_sessions
    if unknown and snapshot.strangers and np.array_equal(snapshot.strangers[0][0], open_I):
        return snapshot.strangers[0][1]
    model, new_I = snapshot.model, snapshot.items.listed_at_I > snapshot.new_after_us
    found = model.rank(state, model.as_of(now_us), open_I, EVERY, sources(snapshot.learned, near_I, open_I, new_I))
    if unknown:
        snapshot.strangers[:] = [(open_I, found)]
    return found


def candidates(
    snapshot: Snapshot, state: UserState, eligible_I: BoolArray, now_us: int, least: int, passed: IntArray = NONE
) -> Candidates:
    """The ranking, filled up to `least` with popular items; popularity alone where the model fails."""
    open_I = eligible_I & ~snapshot.composer.rules.excluded_I
    failed, size = False, max(snapshot.params.candidates, least)
    try:
        found = _rank(snapshot, state, open_I, now_us, size, passed)
    except Exception as error:  # the page must come; the fault is logged and counted as a fallback
        logger.exception("ranking failed: %s", type(error).__name__, exc_info=error)
        found, failed = NOBODY, True
    index_C, score_C, fallback = found.index_C, found.score_C, "popular" if failed or not snapshot.ranks else None
    if index_C.size >= min(size if failed else least, int(open_I.sum())):
        return replace(found, fallback=fallback)
    rest_I = open_I.copy()
    rest_I[index_C] = False
    rest = np.flatnonzero(rest_I)
    rest = rest[np.argsort(-snapshot.hot_I[rest], kind="stable")][:size]
    low = float(np.nan_to_num(score_C).min()) - 1.0 if index_C.size else 0.0
    return Candidates(
        np.concatenate([index_C, rest]),
        np.concatenate([score_C, low - np.arange(rest.size) / max(1, rest.size)]),
        np.concatenate([found.source_C, np.full(rest.size, "popular", dtype=object)]),
        np.concatenate([found.signal_CF, np.zeros((rest.size, len(NAMES)))]),
        fallback,
    )


def _subset(found: Candidates, keep_C: BoolArray, module: str, title: str, size: int) -> Pool:
    return Pool(module, title, found.index_C[keep_C], found.score_C[keep_C], size)


def last_looked_at(state: UserState) -> int | None:
    """The item that the person looked at last."""
    seen = state.item_P[LOOKED_AT[state.type_P]]
    return int(seen[-1]) if seen.size else None


def _because(snapshot: Snapshot, found: Candidates, state: UserState, now_us: int, size: int) -> Pool | None:
    """Candidates that the model ranks high for somebody who only touched the last viewed item."""
    item = last_looked_at(state)
    if item is None or not found.signal_CF.size:
        return None
    keep_C = snapshot.items.marked(_near(snapshot, item, now_us))[found.index_C] & (found.index_C != item)
    return _subset(found, keep_C, "because_you_viewed", f"Because you viewed {short_title(snapshot, item)}", size)


def _near(snapshot: Snapshot, item: int, now_us: int) -> IntArray:
    """What goes with an item, best first; the same for everybody, so it is kept with the snapshot."""
    known = snapshot.near.get(item)
    if known is None:
        viewed = Action(snapshot.items.item_ids[item], "view", snapshot.model.as_of(now_us))
        alone = UserState.build(None, [viewed], snapshot.items.index)
        open_I = snapshot.available_I & ~snapshot.composer.rules.excluded_I
        known = _rank(snapshot, alone, open_I, now_us, NEAR).index_C
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
    hot = min(NEAR, max(2 * size, int(HOT_SHARE * len(snapshot.items))))
    trending_C = np.argsort(np.argsort(-snapshot.hot_I[found.index_C], kind="stable")) < hot
    trending = _subset(found, trending_C, "trending", "Trending", size)
    if state.is_stranger:  # nothing says more of them than what the row is called
        hottest = np.argsort(-snapshot.hot_I[trending.index_P], kind="stable")
        index_P, score_P = trending.index_P[hottest], trending.score_P[hottest]
        trending = replace(trending, index_P=index_P, score_P=score_P, drawn_by_P=trending.score_P)
    bought_I = snapshot.items.marked(state.item_P[state.type_P == PURCHASE])
    listed_C = snapshot.items.listed_at_I[found.index_C]
    fresh_C = (listed_C >= now_us - NEW_DAYS * DAY_US) & (listed_C > snapshot.new_after_us)
    others = [
        _because(snapshot, found, state, now_us, size),
        _subset(found, bought_I[found.index_C], "buy_again", "Buy again", size),
        trending,
        _subset(found, fresh_C, "new", "New in the shop", size),
    ]
    least = snapshot.composer.params.least
    good = [pool for pool in others if pool is not None and pool.index_P.size >= least]
    good = [pool for pool in good if snapshot.learned.modules.get(pool.module, 1.0) >= WORTH or pool.module == "new"]
    good.sort(key=lambda pool: (pool.module not in PERSONAL, -_worth(snapshot, pool, size)))
    rest = page_size - page_size // 2
    share = max(1, math.ceil(rest / max(1, len(good))))  # every good module has its row on the page
    sizes = [max(0, min(max(size, page_size // 8), share, rest - at * share)) for at in range(len(good))]
    whole = _subset(found, everything, "for_you", for_you_title, page_size // 2)
    return [whole, *(replace(pool, size=slots) for pool, slots in zip(good, sizes, strict=True))]


def _worth(snapshot: Snapshot, pool: Pool, size: int) -> float:
    """What a module promises this person: its best candidates, and what its places earned in this shop."""
    return float(np.nan_to_num(pool.order_P[:size]).mean()) + math.log(snapshot.learned.modules.get(pool.module, 1.0))


def page(
    snapshot: Snapshot,
    state: UserState,
    exclude: Sequence[str],
    page_size: int,
    now_us: int,
    rng: np.random.Generator,
    passed: IntArray = NONE,
) -> Page:
    """The page for one request; exactly page_size slots unless fewer items are eligible.

    `passed` are items that this visit was shown already.
    """
    eligible_I = eligible(snapshot, exclude, state, now_us)
    found = candidates(snapshot, state, eligible_I, now_us, page_size + len(snapshot.rules.pin), passed)
    just_C = snapshot.items.marked(state.bought_since(now_us - JUST_US, in_visit=True))[found.index_C]
    pools = modules(snapshot, found.only(~just_C) if just_C.any() else found, state, now_us, page_size)
    last = np.argsort(just_C, kind="stable")  # shown again only where nothing else is left
    left_C = np.where(just_C, -np.inf, found.score_C)[last]
    filler = Pool(FILLER, "More to discover", found.index_C[last], left_C, page_size)
    slots, hits = snapshot.composer.compose(pools, filler, eligible_I, page_size, rng)
    place_S = snapshot.items.places(found.index_C)[np.array([slot.item for slot in slots], dtype=np.int64)]
    reasons = {pool.module: REASONS.get(pool.module, pool.title) for pool in pools if pool.module != "for_you"}
    return Page(
        slots=slots,
        policy=snapshot.composer.policy.name,
        fallback=found.fallback,
        candidate_count=int(found.index_C.size),
        hits=hits,
        sources=Counter(found.source_C[at] if at >= 0 else "rule" for at in place_S.tolist()),
        reasons=reasons,
        signal_SF=np.where((place_S >= 0)[:, None], found.signal_CF[place_S], 0.0)
        if found.signal_CF.size
        else NO_SIGNALS,
    )
