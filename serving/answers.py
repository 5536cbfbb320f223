"""From a checked request to the contract's answer, for every call; what was shown is logged on the way.

Choices. Plain functions over the runtime, without a framework, so that tests and the command line call them too. The
snapshot is taken once a request. A slate keeps the person's state as the ranker saw it, so that an explanation and a
retrain see the same, and nothing has to be computed before somebody asks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from features.errors import StoreError
from models.history import DAY_US, UserState
from models.policy import FloatArray, IntArray
from models.policy.plackett_luce import utilities
from serving import ads, catalogue, erasure, explanations, metrics, recommender, search
from serving.contract import (
    AdsRequest,
    EventsRequest,
    HomepageRequest,
    ItemRowIn,
    ItemsRequest,
    SearchRequest,
    check_event,
    check_row,
    format_time,
)
from serving.event_log import Arrival
from serving.runtime import Runtime
from serving.slates import log_slate, ready, slate_of
from serving.snapshot import Snapshot
from serving.wire import Problem

logger = logging.getLogger("homeranker")
Json = dict[str, Any]
WRITE_S = 10.0  # an event that is not on disk by then is refused


@dataclass(frozen=True)
class Visitor:
    """Who asks: the snapshot that answers them, what is known of them, and whether a source of that failed."""

    now: Snapshot
    state: UserState
    stale: bool
    passed: IntArray  # items that this visit was shown already


def look_up(runtime: Runtime, request: HomepageRequest, now_us: int) -> Visitor:
    """What the stores know of whoever asks for a page; by the canary's model for those who were chosen."""
    held = ready(runtime)
    now = runtime.trial.of(request.user_id or request.session_id) or held
    return _visitor(runtime, now, request, now_us)


def _visitor(runtime: Runtime, now: Snapshot, request: HomepageRequest, now_us: int) -> Visitor:
    known = now.items.index if now.may_personalize(request.user_id) else {}
    passed = runtime.live.passed(runtime.log, request.user_id, request.session_id, known)
    return Visitor(now, *runtime.state(now, request.user_id, request.session_id, now_us), passed)


def stranger(runtime: Runtime) -> Visitor:
    """Somebody of whom the stores did not tell in time."""
    now = ready(runtime)
    return Visitor(now, UserState.build(None, [], now.items.index), True, recommender.NONE)


def homepage(runtime: Runtime, request: HomepageRequest, now_us: int, who: Visitor | None = None) -> Json:
    """POST /v1/homepage."""
    who = who or look_up(runtime, request, now_us)
    with runtime.trial.timed(who.now) as told:
        answer = _homepage(runtime, who, request, now_us, told)
    shadow = runtime.trial.shadows()
    if shadow is not None:
        runtime.trial.beside(lambda: _shadow(runtime, shadow, request, now_us))
    return answer


def _shadow(runtime: Runtime, shadow: Snapshot, request: HomepageRequest, now_us: int) -> None:
    """Rank the same request by the shadow and log its page as one that nobody saw; its faults stay its own."""
    try:
        with runtime.trial.timed(shadow) as told:
            who = _visitor(runtime, shadow, request, now_us)
            _homepage(runtime, who, request, now_us, told, shadow=True)
    except Exception as error:  # whatever a new model may break, the shopper has the champion's page
        logger.warning("the shadow failed: %s", type(error).__name__)


def _homepage(
    runtime: Runtime, who: Visitor, request: HomepageRequest, now_us: int, told: list[Any], **marks: bool
) -> Json:
    now, state = who.now, who.state
    rng = np.random.default_rng()
    page = recommender.page(now, state, request.exclude, request.page_size, now_us, rng, who.passed)
    fallback = page.fallback or ("stale" if who.stale else None)
    ids = now.items.item_ids
    slots = [(s.module, s.position, ids[s.item], s.score, s.propensity, s.explored, False) for s in page.slots]
    slate = slate_of(
        now,
        "home",
        state,
        slots,
        platform=request.platform,
        policy=page.policy,
        fallback=fallback,
        candidate_count=page.candidate_count,
        live=explanations.keep_signals(page.signal_SF, now.learned.weights_F),
        **marks,
    )
    told.append((page.slots, fallback))
    request_id = log_slate(runtime, (request.user_id, request.session_id), now_us, slate)
    if marks:
        return {}
    if fallback:
        metrics.FALLBACKS.labels(fallback).inc()
    for kind, count in page.hits.items():
        metrics.RULES.labels(kind).inc(count)
    for source, count in page.sources.items():
        metrics.SOURCES.labels(source).inc(count)
    return {
        "request_id": request_id,
        "model_version": now.version,
        "policy": page.policy,
        "fallback": fallback,
        "modules": _modules(page, ids),
    }


def _modules(page: recommender.Page, ids: Sequence[str]) -> list[Json]:
    modules: list[Json] = []
    for slot in page.slots:
        if not modules or modules[-1]["module"] != slot.module:
            modules.append({"module": slot.module, "title": slot.title, "slots": []})
        modules[-1]["slots"].append(
            {
                "position": slot.position,
                "item_id": ids[slot.item],
                "score": slot.score,
                "propensity": slot.propensity,
                "explored": slot.explored,
                "sponsored": False,
                "reason": page.reasons.get(slot.module),
            }
        )
    return modules


def events(runtime: Runtime, request: EventsRequest, now_us: int) -> Json:
    """POST /v1/events: answers only after the rows are on disk; Problem 503 where they cannot be."""
    rows: list[Arrival] = []
    rejected: list[Json] = []
    signer = runtime.signer
    for index, value in enumerate(request.events):
        row, reason = check_event(value, now_us)
        if row is None:
            rejected.append({"index": index, "detail": reason})
        else:
            rows.append(Arrival(row, signer.verifies(row.request_id), signer.digest("event", row.event_id)))
    accepted = duplicates = 0
    if rows:
        try:
            done = runtime.need_log().append(rows, now_us).result(WRITE_S)
        except (StoreError, TimeoutError) as error:
            raise Problem(503, "the log cannot be written now; send the events again") from error
        accepted, duplicates = done.accepted, done.duplicates
        runtime.live.add([one.row for at, one in enumerate(rows) if at not in done.erased], now_us)
    for outcome, count in (("accepted", accepted), ("duplicate", duplicates), ("rejected", len(rejected))):
        metrics.EVENTS.labels(outcome).inc(count)
    return {"accepted": accepted, "duplicates": duplicates, "rejected": rejected}


def hits(now: Snapshot, state: UserState, query: str, now_us: int) -> tuple[IntArray, FloatArray, FloatArray]:
    """(C,) places of what a query finds, best words first, their relevance, and their scores for this person."""
    index_C, relevance_C = now.search.find(query, now.available_I & ~now.composer.rules.excluded_I)
    if not index_C.size:
        return index_C, relevance_C, relevance_C
    person_C, _ = recommender.score_items(now, state, index_C, now_us)
    return index_C, relevance_C, search.personal_order(relevance_C, utilities(person_C), now.params.search_weight)


def find(runtime: Runtime, request: SearchRequest, now_us: int) -> Json:
    """POST /v1/search."""
    now = ready(runtime)
    state, stale = runtime.state(now, request.user_id, request.session_id, now_us)
    index_C, relevance_C, score_C = hits(now, state, request.query, now_us)
    order = np.argsort(-score_C, kind="stable")[: request.limit]
    results = [
        {"position": place, "item_id": now.items.item_ids[index_C[at]], "score": float(score_C[at]), "propensity": 1.0}
        for place, at in enumerate(order.tolist(), 1)
    ]
    slots = [("search", row["position"], row["item_id"], row["score"], 1.0, False, False) for row in results]
    relevance = {now.items.item_ids[index_C[at]]: float(relevance_C[at]) for at in order.tolist()}
    slate = slate_of(
        now, "search", state, slots, policy="search", candidate_count=int(index_C.size), relevance=relevance
    )
    slate["fallback"] = "stale" if stale else None
    request_id = log_slate(runtime, (request.user_id, request.session_id), now_us, slate)
    return {"request_id": request_id, "model_version": now.version, "results": results}


def place_ads(runtime: Runtime, request: AdsRequest, now_us: int) -> Json:
    """POST /v1/ads."""
    now = ready(runtime)
    state, _ = runtime.state(now, request.user_id, request.session_id, now_us)
    places = {ad.item_id: now.items.index.get(ad.item_id) for ad in request.ads}
    shown = {item: at for item, at in places.items() if at is not None and now.available_I[at]}
    index_C = np.fromiter(shown.values(), dtype=np.int64, count=len(shown))
    score_C, ranked = recommender.score_items(now, state, index_C, now_us)
    # Calibrated on the model's own score; without a model the live score takes its place under the default curve.
    p_click_C = ranked.p_click_C if now.ranks else now.model.calibration.probability(score_C)
    chance_C = np.clip(np.asarray(p_click_C, dtype=np.float64), 1e-9, 1.0)
    chances = dict(zip(shown, chance_C.tolist(), strict=True))
    placed = ads.auction(request.ads, chances, request.slots, now.params.ads, now_us % DAY_US / DAY_US)
    placements = [vars(placement) for placement in placed]
    slots = [("sponsored", one.position, one.item_id, one.p_click, 1.0, False, True) for one in placed]
    slate = slate_of(now, "ads", state, slots, policy="auction", candidate_count=len(chances), fallback=None)
    request_id = log_slate(runtime, (request.user_id, request.session_id), now_us, slate)
    return {"request_id": request_id, "placements": placements}


def explain(runtime: Runtime, request_id: str, item_id: str, now_us: int) -> Json:
    """GET /v1/explanations/{request_id}."""
    found = None
    if runtime.signer.verifies(request_id):
        found = runtime.need_log().find_slate(request_id)
    if found is None or found[3]["surface"] == "ads":
        raise Problem(404, "no page or search of this request_id is kept")
    served_us, _, _, slate = found
    if now_us - served_us > runtime.params.explanation_hours * 3_600_000_000:
        raise Problem(404, f"explanations are kept for {runtime.params.explanation_hours:g} h")
    now = runtime.snapshot
    model = runtime.models.get(slate["model_version"]) or (now.model if now else None)
    if now is not None and now.version == slate["model_version"]:
        model = now.model  # knows items that came after the training
    explained = explanations.explain(model, slate, item_id, served_us)
    if explained is None:
        raise Problem(404, "this request did not show this item")
    return explained


def erase(runtime: Runtime, user_id: str, now_us: int) -> Json:
    """DELETE /v1/users/{user_id}."""
    erasure_id = erasure.request(runtime.need_log(), user_id, now_us)
    runtime.erase_soon()
    return {"erasure_id": erasure_id}


def erasure_receipt(runtime: Runtime, erasure_id: str) -> Json:
    """GET /v1/erasures/{erasure_id}."""
    found = erasure.receipt(runtime.need_log(), erasure_id)
    if found is None:
        raise Problem(404, "no erasure has this id")
    return found


def put_items(runtime: Runtime, request: ItemsRequest, now_us: int) -> Json:
    """PUT /v1/items: answers after the rows are on disk."""
    rows: list[ItemRowIn] = []
    rejected: list[Json] = []
    for index, value in enumerate(request.items):
        row, reason = check_row(ItemRowIn, value)
        if row is None:
            rejected.append({"index": index, "detail": reason})
        else:
            rows.append(row)
    if rows:
        catalogue.put(runtime.need_log(), rows, now_us).result(WRITE_S)
        runtime.refresh_stock()
    return {"accepted": len(rows), "rejected": rejected}


def model_info(runtime: Runtime) -> Json:
    """GET /v1/model."""
    now = ready(runtime)
    told = dict(now.model.manifest) if now.ranks else {}
    return {
        "model_version": now.version,
        "trained_from": _when(told.get("trained_from")),
        "trained_until": _when(told.get("trained_until")),
        "data_hash": str(told.get("data_hash") or "none"),
        "verdict": told.get("verdict") or "none",
        "metrics": told.get("metrics") or {"note": "no figures came with this model"},
    }


def why_not(runtime: Runtime, item_id: str, user_id: str | None, now_us: int) -> str:
    """What keeps an item off this user's page, in one sentence; for `homeranker why-not`."""
    now = ready(runtime)
    state, _ = runtime.state(now, user_id, "", now_us)
    return explanations.why_not(now, state, item_id, now_us)


def _when(value: Any) -> str:
    return format_time(value) if isinstance(value, int) else str(value or "none")
