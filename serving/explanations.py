"""Why an item was shown: from what was logged for that request, computed when somebody asks; and why one was not.

Choices. The slate keeps the person's state as numbers with item ids, not model indices, so that it can be read under
a later catalogue; the score is the logged one. Causes are only ever items that this state holds, so a stranger gets
none. Where the model that served is gone (a restart after a promotion) the one that serves now weighs the causes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.history import TYPE_WEIGHT, UserState
from models.homepage import HomepageModel
from models.live_signals import NAMES
from models.policy import FloatArray
from models.taste import Taste
from serving.recommender import JUST_US, candidates, eligible
from serving.snapshot import Snapshot


def keep_state(state: UserState, item_ids: Sequence[str]) -> dict[str, Any]:
    """A state as JSON; empty for a stranger."""
    if state.is_stranger:
        return {}
    return {
        "items": [item_ids[at] for at in state.item_P.tolist()],
        "types": state.type_P.tolist(),
        "counts": state.count_P.tolist(),
        "quantities": state.quantity_P.tolist(),
        "first": state.first_us_P.tolist(),
        "last": state.last_us_P.tolist(),
        "live": state.session_P.tolist(),
        "sessions": state.n_sessions,
        "since": state.first_us,
        "taste": dict(state.taste.weights),
    }


def keep_signals(signal_SF: FloatArray, weights_F: FloatArray) -> dict[str, Any]:
    """The live signals of each slot as they were used, and their weights."""
    return {"x": signal_SF.astype(np.float32).round(4).tolist(), "weights": weights_F.round(4).tolist()}


def live_parts(slate: dict[str, Any], item_id: str) -> list[dict[str, Any]]:
    """What each live signal added to a slot's score; signals that said nothing are left out."""
    live = slate.get("live") or {"x": []}
    place = next((at for at, slot in enumerate(slate["slots"]) if slot[2] == item_id), len(live["x"]))
    if place >= len(live["x"]):
        return []
    rows = zip(NAMES, live["x"][place], live["weights"], strict=False)
    return [
        {"name": f"live_{name}", "value": value, "contribution": value * weight}
        for name, value, weight in rows
        if name != "model" and value
    ]


def read_state(kept: dict[str, Any], index: dict[str, int]) -> UserState:
    """The state again, for this catalogue."""
    if not kept:
        return UserState.build(None, [], index)
    places = [index.get(item, -1) for item in kept["items"]]
    keep_P = np.asarray(places, dtype=np.int64) >= 0
    last_us_P = np.asarray(kept["last"], dtype=np.int64)[keep_P]
    return UserState(
        item_P=np.asarray(places, dtype=np.int64)[keep_P],
        type_P=np.asarray(kept["types"], dtype=np.int64)[keep_P],
        count_P=np.asarray(kept["counts"], dtype=np.float64)[keep_P],
        quantity_P=np.asarray(kept["quantities"], dtype=np.float64)[keep_P],
        first_us_P=np.asarray(kept["first"], dtype=np.int64)[keep_P],
        last_us_P=last_us_P,
        session_P=np.asarray(kept["live"], dtype=np.bool_)[keep_P],
        n_sessions=float(kept["sessions"]),
        first_us=int(kept["since"]),
        last_us=int(last_us_P.max(initial=0)),
        taste=Taste(kept.get("taste", {})),
    )


def explain(model: HomepageModel | None, slate: dict[str, Any], item_id: str, served_us: int) -> dict[str, Any] | None:
    """The contract's explanation; None where the slate did not show the item."""
    slot = next((slot for slot in slate["slots"] if slot[2] == item_id), None)
    if slot is None:
        return None
    because: list[dict[str, Any]] = []
    features: list[dict[str, Any]] = []
    relevance = slate.get("relevance", {}).get(item_id)
    if relevance is not None:
        features.append({"name": "text_relevance", "value": relevance, "contribution": relevance})
    at = model.items.index.get(item_id) if model else None
    if model is not None and at is not None:
        state, as_of = read_state(slate["state"], model.items.index), model.as_of(served_us)
        own = {model.items.item_ids[item] for item in touched(state)}
        for cause in [] if state.is_stranger else model.because(state, at, as_of):
            if cause.item_id in own:
                row = {"item_id": cause.item_id, "event_type": cause.event_type, "weight": float(cause.weight)}
                because.append(row)
        for part in model.contributions(state, at, as_of):
            value, share = (float(np.nan_to_num(number)) for number in (part.value, part.contribution))
            features.append({"name": part.name, "value": value, "contribution": share})
    features += live_parts(slate, item_id)
    return {"item_id": item_id, "score": slot[3], "because": because, "features": features}


def touched(state: UserState) -> set[int]:
    """Items that say something about what this person wants."""
    return set(state.item_P[TYPE_WEIGHT[state.type_P] > 0].tolist())


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
    if at in state.bought_since(now_us - JUST_US, in_visit=True):
        return f"{item_id} was bought in this visit: it comes last, where nothing else is left"
    rank, score = int(place[0]) + 1, float(found.score_C[place[0]])
    lift = float(snapshot.composer.rules.lift_I[at])
    moved = f", moved by {lift:+g} by a rule" if lift else ""
    if rank <= page_size // 2:
        return f"{item_id} is shown on most pages: rank {rank} of {found.index_C.size}, score {score:.3f}{moved}"
    return f"{item_id} is eligible, but its score {score:.3f} gives it rank {rank} of {found.index_C.size}{moved}"
