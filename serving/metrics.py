"""What the service counts, for Prometheus: requests, latency, fallbacks, rules, sources, lag, versions.

Choices. prometheus_client writes into files shared by the workers (Bento sets the folder), so that any worker answers
for all of them. Labels are route templates and words of ours, never an id. Bento's own request metrics are off,
because they are labelled by the raw path, which may hold a user id.
"""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

REQUESTS = Counter("homeranker_requests_total", "Answers by route and status", ["route", "method", "status"])
DURATION = Histogram(
    "homeranker_request_duration_seconds",
    "Time to answer",
    ["route"],
    buckets=(0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.04, 0.08, 0.15, 0.3, 1.0, 3.0),
)
FALLBACKS = Counter("homeranker_fallbacks_total", "Pages from a degraded source", ["fallback"])
RULES = Counter("homeranker_rule_hits_total", "Times that a kind of rule moved or held back an item", ["rule"])
SOURCES = Counter("homeranker_candidates_total", "Shown items by candidate source", ["source"])
EVENTS = Counter("homeranker_events_total", "Posted events by outcome", ["outcome"])
SLATES_LOST = Counter("homeranker_slates_lost_total", "Slates that could not be logged")
SWAPS = Counter("homeranker_model_swaps_total", "Champions taken up or refused", ["outcome"])
ROLLOUTS = Counter("homeranker_rollouts_total", "Rollouts that the service ended by itself", ["outcome"])
LAG = Gauge("homeranker_event_lag_seconds", "Age of the newest event that the last page used", multiprocess_mode="max")
STORE_AGE = Gauge("homeranker_store_age_seconds", "Age of the history row last read", multiprocess_mode="max")
MODEL = Gauge("homeranker_model_info", "1 for the model that serves", ["version"], multiprocess_mode="max")


def exposition() -> bytes:
    """The text that /metrics answers, over all workers."""
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
