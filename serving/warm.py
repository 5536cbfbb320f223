"""Before a model meets a shopper it answers what the last visitors asked, and a stranger."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from features.errors import ArtifactError
from models.history import UserState
from serving import recommender
from serving.contract import now_us
from serving.event_log import EventLog
from serving.snapshot import Snapshot

WARM_UP = 8
StateOf = Callable[[Snapshot, str | None, str, int], tuple[UserState, bool]]


def warm(made: Snapshot, state_of: StateOf, log: EventLog | None) -> None:
    """Compose the pages of the newest visitors; ArtifactError where a model cannot rank one."""
    _ = made.items.traits  # of 100,000 items they take most of a second, and the last visitors may have had no taste
    people: list[tuple[str | None, str]] = [(None, "")]
    if log is not None:
        sql = "SELECT user_id, COALESCE(session_id, '') FROM slates ORDER BY served_us DESC LIMIT ?"
        people += [(user, session) for user, session in log.slates.read(sql, (WARM_UP,))]
    rng = np.random.default_rng()
    for user, session in people:
        state, _ = state_of(made, user, session, now_us())
        page = recommender.page(made, state, [], 24, now_us(), rng)
        if made.ranks and page.fallback:
            raise ArtifactError(f"model {made.version} cannot rank; it is not taken up, the one before serves on")
