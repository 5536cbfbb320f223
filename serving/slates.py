"""What is shown is logged, whoever shows it: pages, searches and ads alike; the page comes even where that fails.

Choices. The log keeps the person's state as the ranker saw it, not what could be computed of it later, so that an
explanation and a retrain see the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from features.errors import StoreError
from models.history import UserState
from serving import explanations, metrics
from serving.runtime import Runtime
from serving.snapshot import Snapshot
from serving.wire import Problem

Json = dict[str, Any]


def ready(runtime: Runtime) -> Snapshot:
    """The snapshot that answers now; Problem 503 without one."""
    reason = None if runtime.draining else runtime.unready()
    if reason or runtime.snapshot is None:
        raise Problem(503, reason or "no model is ready")
    return runtime.snapshot


def log_slate(runtime: Runtime, person: tuple[str | None, str], now_us: int, slate: Json) -> str:
    """Log what is shown; the page comes even where that fails, and the loss is counted."""
    request_id = runtime.signer.request_id()
    try:
        future = runtime.need_log().add_slate(request_id, now_us, *person, slate)
        future.add_done_callback(lambda done: metrics.SLATES_LOST.inc() if done.exception() else None)
    except StoreError:
        metrics.SLATES_LOST.inc()
    return request_id


def slate_of(now: Snapshot, surface: str, state: UserState, slots: Sequence[Sequence[Any]], **more: Any) -> Json:
    """What the log keeps; a slot is (module, position, item, score, propensity, explored, sponsored)."""
    known = explanations.keep_state(state, now.items.item_ids)
    return {"surface": surface, "model_version": now.version, "slots": slots, "state": known, **more}
