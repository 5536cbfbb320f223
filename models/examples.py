"""Training examples: at a cut, what a user's history was, which candidates stood there, and what came next.

Choices. The label is the user's next visit after the cut: its items, weighted by what was done with them. Every second
example lies inside that visit: its first items are revealed as the running session and the rest is to be found, so that
the ranker learns to follow a session from real visits (on order data: from the rest of the basket) and not from an
invented bonus. Beside those who come back stand first visits, guests' among them: most pages of most shops are
strangers', and a network that never saw an empty history says anything of it. Revealed items are no candidates, nor is
an item that was listed later: that it will sell is the future. Candidates come from retrieval alone, as in serving.
Shapes: N examples, K places a list, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.schema import SESSION_GAP_S
from models.columns import feature_names, features
from models.history import MAX_PAIRS, TYPE_WEIGHT, Action, UserState
from models.items import ItemTable
from models.log import ActionLog
from models.ranker import Lists
from models.retrieval import RetrievalParams
from models.sequence import SequenceModel
from models.signals import Knowledge, candidates, read

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
States = Callable[[int, Sequence[int]], Mapping[int, UserState]]  # (cut, user codes) -> state as of the cut

REVEALED = "running-session"
GAP_US = SESSION_GAP_S * 1_000_000
NOBODY = UserState.build(None, [], {})  # of whom nothing is known


@dataclass(frozen=True)
class ExampleParams:
    """How many lists, and how long."""

    places: int = 320
    cuts: int = 6
    tune_cuts: int = 3
    max_users_per_cut: int = 2500
    max_strangers_per_cut: int = 500
    in_session_share: float = 0.5
    max_revealed: int = 5
    seed: int = 5


@dataclass(frozen=True)
class Visit:
    """The first visit of a user after a cut: distinct items in order, the weight of what was done, and the types."""

    items: Ints
    gains: Floats
    types: Ints


def next_visits(log: ActionLog, cut_us: int, end_us: int, gap_us: int = GAP_US) -> dict[int, Visit]:
    """User code -> first visit in [cut + gap, end), for known users with an action before the cut.

    The gap keeps a visit that straddles the cut from being its own history and its own label.
    """
    earlier = log.before(cut_us)
    known = np.unique(earlier.user[~earlier.is_guest])
    later = log.between(cut_us + gap_us, end_us)
    return _firsts(later.rows(np.flatnonzero(np.isin(later.user, known))))


def first_visits(log: ActionLog, cut_us: int, end_us: int, most: int) -> dict[int, Visit]:
    """User code -> first visit in [cut, end), for up to `most` who did nothing before the cut, guests included.

    Of more, those who came soonest: what a stranger is shown stands on what the shop is about today.
    """
    later = log.between(cut_us, end_us)
    later = later.rows(np.flatnonzero(~np.isin(later.user, np.unique(log.before(cut_us).user))))
    users, first = np.unique(later.user, return_index=True)  # rows are in the order of time
    soonest = users[np.argsort(first, kind="stable")[:most]]
    return _firsts(later.rows(np.flatnonzero(np.isin(later.user, soonest))))


def _firsts(later: ActionLog) -> dict[int, Visit]:
    """User code -> the first visit in these rows."""
    order = np.lexsort((np.arange(later.user.size), later.time_us, later.user))
    user, session = later.user[order], later.session[order]
    if not user.size:
        return {}
    starts = np.flatnonzero(np.append(True, np.diff(user) != 0))
    ends = np.append(starts[1:], user.size)
    visits = {}
    for start, end in zip(starts, ends, strict=True):
        rows = order[start:end][session[start:end] == session[start]]
        visits[int(user[start])] = _visit(later.item[rows], later.type_code[rows])
    return visits


def _visit(item: Ints, type_code: Ints) -> Visit:
    distinct, first, place = np.unique(item, return_index=True, return_inverse=True)
    gain = np.zeros(distinct.size)
    np.maximum.at(gain, place, TYPE_WEIGHT[type_code])
    in_order = np.argsort(first, kind="stable")
    return Visit(distinct[in_order], gain[in_order], type_code[first][in_order])


def states_from_log(log: ActionLog) -> States:
    """Histories straight from the log: what a point-in-time join gives, without a feature store."""

    def states(cut_us: int, users: Sequence[int]) -> dict[int, UserState]:
        earlier = log.before(cut_us)
        order = np.lexsort((earlier.time_us, earlier.user))
        user = earlier.user[order]
        low, high = np.searchsorted(user, users, "left"), np.searchsorted(user, users, "right")
        return {
            int(code): _state_of(earlier.rows(order[start:end]))
            for code, start, end in zip(users, low, high, strict=True)
            if end > start
        }

    return states


def _state_of(mine: ActionLog) -> UserState:
    """The state after all rows of one user, sorted by time."""
    key = mine.item * len(TYPE_WEIGHT) + mine.type_code
    pairs, place = np.unique(key, return_inverse=True)
    first = np.full(pairs.size, np.iinfo(np.int64).max)
    last = np.zeros(pairs.size, dtype=np.int64)
    np.minimum.at(first, place, mine.time_us)
    np.maximum.at(last, place, mine.time_us)
    quantity = np.bincount(place, weights=np.nan_to_num(mine.quantity, nan=1.0), minlength=pairs.size)
    seen = np.unique(np.stack([place, mine.session]), axis=1)
    count = np.bincount(seen[0], minlength=pairs.size)
    order = np.lexsort((pairs, last))[-MAX_PAIRS:]
    item, kind = pairs[order] // len(TYPE_WEIGHT), pairs[order] % len(TYPE_WEIGHT)
    return UserState(
        item, kind, count[order].astype(np.float64), quantity[order].astype(np.float64), first[order], last[order],
        np.zeros(order.size, dtype=bool),
        float(np.unique(mine.session).size), int(mine.time_us[0]), int(mine.time_us[-1]),
    )  # fmt: skip


def cuts_before(end_us: int, start_us: int, slice_us: int, n: int) -> list[int]:
    """Up to n cuts, half a slice apart, the last one half a slice before the end; a third of the log stays before."""
    step = slice_us // 2
    earliest = start_us + (end_us - start_us) // 3
    return [cut for cut in (end_us - step * k for k in range(1, n + 1)) if cut > earliest] or [end_us - step]


def training_lists(
    log: ActionLog,
    items: ItemTable,
    cuts: Sequence[int],
    end_us: int,
    *,
    sequence: SequenceModel | None,
    states: States | None = None,
    params: ExampleParams | None = None,
    retrieval: RetrievalParams | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Lists:
    """Lists for every cut; labels end before `end_us`."""
    params, retrieval = params or ExampleParams(), retrieval or RetrievalParams()
    states = states or states_from_log(log)
    parts = []
    for number, cut_us in enumerate(cuts):
        knowledge = Knowledge.fit(log, items, cut_us, sequence)
        parts.append(_lists_at(log, knowledge, cut_us, end_us, states, params, retrieval))
        if progress is not None:
            progress(number + 1, len(cuts))
    return Lists.concat(parts)


def _lists_at(
    log: ActionLog,
    knowledge: Knowledge,
    cut_us: int,
    end_us: int,
    states: States,
    params: ExampleParams,
    retrieval: RetrievalParams,
) -> Lists:
    visits = next_visits(log, cut_us, end_us)
    rng = np.random.default_rng([params.seed, cut_us % (2**31)])
    users = np.array(sorted(visits), dtype=np.int64)
    if users.size > params.max_users_per_cut:
        users = np.sort(rng.choice(users, params.max_users_per_cut, replace=False))
    known = states(cut_us, users.tolist())
    met = [(known[user], visits[user]) for user in users.tolist() if user in known]
    strangers = first_visits(log, cut_us, end_us, params.max_strangers_per_cut)
    met += [(NOBODY, visit) for visit in strangers.values()]
    examples = []
    for state, visit in met:
        if visit.items.size >= 2 and rng.random() < params.in_session_share:
            state, visit = _inside(state, visit, knowledge.items, cut_us, rng, params)
        examples.append(_example(state, visit, knowledge, cut_us, rng, params, retrieval))
    return _pad(examples, params.places, len(feature_names(knowledge)))


def _inside(
    state: UserState, visit: Visit, items: ItemTable, cut_us: int, rng: np.random.Generator, params: ExampleParams
) -> tuple[UserState, Visit]:
    """Reveal the first items of the visit as the running session; what remains is to be found.

    A bought item is revealed as a view: at serving time the running session is seen before it buys.
    """
    revealed = int(rng.integers(1, min(params.max_revealed, visit.items.size - 1) + 1))
    names = ("view", "click", "add_to_cart")
    actions = [
        Action(items.item_ids[item], names[min(int(kind), 2)] if kind < 3 else "view", cut_us, REVEALED)
        for item, kind in zip(visit.items[:revealed], visit.types[:revealed], strict=True)
    ]
    rest = slice(revealed, None)
    return state.extended(actions, items.index), Visit(visit.items[rest], visit.gains[rest], visit.types[rest])


def _example(
    state: UserState,
    visit: Visit,
    knowledge: Knowledge,
    cut_us: int,
    rng: np.random.Generator,
    params: ExampleParams,
    retrieval: RetrievalParams,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    eligible_I = knowledge.on_sale(cut_us)
    eligible_I[state.item_P[state.session_P]] = False
    reading = read(state, knowledge, cut_us)
    index_C, _ = candidates(state, reading, knowledge, eligible_I, retrieval)
    gain_I = np.zeros(len(knowledge.items))
    gain_I[visit.items] = visit.gains
    if index_C.size > params.places:
        wanted = np.flatnonzero(gain_I[index_C] > 0)[: params.places // 2]
        others = np.setdiff1d(np.arange(index_C.size), wanted)
        drawn = rng.choice(others, params.places - wanted.size, replace=False)
        index_C = index_C[np.sort(np.concatenate([wanted, drawn]))]
    return features(state, reading, knowledge, cut_us, index_C), gain_I[index_C].astype(np.float32)


def _pad(
    examples: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]], places: int, n_features: int
) -> Lists:
    x_NKF = np.zeros((len(examples), places, n_features), dtype=np.float32)
    gain_NK = np.zeros((len(examples), places), dtype=np.float32)
    real_NK = np.zeros((len(examples), places), dtype=bool)
    for at, (x_CF, gain_C) in enumerate(examples):
        x_NKF[at, : gain_C.size], gain_NK[at, : gain_C.size], real_NK[at, : gain_C.size] = x_CF, gain_C, True
    return Lists(x_NKF, gain_NK, real_NK)
