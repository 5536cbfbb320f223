"""The second model of a rollout inside one worker: loaded, kept up with the catalogue, watched, sent home.

Choices. A trial has a snapshot of its own under the same rules, stock and live learning: only the model differs.
What it did is counted where it can be counted: latency, errors and fallbacks here, clicks from the log that all
workers share. The first worker that finds a reason writes it into the rollout's file; the others read it within
seconds. A model that cannot be loaded ends its rollout and nothing else.
"""

from __future__ import annotations

import json
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from features.errors import HomerankerError
from models.homepage import HomepageModel
from serving import catalogue, metrics, snapshot
from serving.contract import now_us
from serving.rollout import (
    CANARY,
    ROLLOUT,
    SHADOW,
    Arm,
    Rollout,
    RolloutParams,
    ended,
    is_chosen,
    read_rollout,
    why_back,
)
from serving.snapshot import Snapshot
from serving.warm import warm

if TYPE_CHECKING:
    from serving.runtime import Runtime

KEPT_SECONDS = 1000
REWARDS = ("click", "add_to_cart", "purchase")
JUDGE_S = 5.0

logger = logging.getLogger("homeranker.rollout")


class Trial:
    """At most one rollout at a time; without one every question is answered by the champion."""

    def __init__(self, runtime: Runtime, params: RolloutParams | None = None) -> None:
        self._runtime, self.params = runtime, params or RolloutParams()
        self.rollout: Rollout | None = None
        self.snapshot: Snapshot | None = None
        self._swap = threading.Lock()
        self._arms: dict[bool, Arm] = {True: Arm(), False: Arm()}  # True: the new model
        self._judged = 0.0
        self._pool, self._shadow = ThreadPoolExecutor(1, "shadow"), cast("Future[None] | None", None)

    # ------------------------------------------------------------ what requests ask

    def of(self, person: str) -> Snapshot | None:
        """The canary's snapshot for those who were chosen."""
        rollout, held = self.rollout, self.snapshot
        if rollout is None or held is None or rollout.mode != CANARY:
            return None
        return held if is_chosen(self._runtime.signer.key, person, rollout.share) else None

    def shadows(self) -> Snapshot | None:
        """The shadow's snapshot for a share of pages."""
        rollout = self.rollout
        if rollout is None or rollout.mode != SHADOW or random.random() * 100 >= rollout.share:  # noqa: S311
            return None
        return self.snapshot

    def beside(self, work: Callable[[], None]) -> None:
        """Run a shadow's page after the shopper's; while one is under way the next is left out."""
        if self._shadow is None or self._shadow.done():
            self._shadow = self._pool.submit(work)

    @contextmanager
    def timed(self, now: Snapshot) -> Iterator[list[Any]]:
        """Count one page: the block puts (slots, fallback) into the list; an exception counts as an error."""
        if self.rollout is None:
            yield []
            return
        told: list[Any] = []
        arm, started = self._arms[now.version == self.rollout.version], time.perf_counter()
        try:
            yield told
        except Exception:
            arm.errors += 1
            raise
        arm.seconds = [*arm.seconds[-KEPT_SECONDS + 1 :], time.perf_counter() - started]
        for slots, fallback in told:
            arm.pages += 1
            arm.empty += not slots
            arm.fallbacks += fallback is not None
            scores = np.array([slot.score for slot in slots if slot.score is not None], dtype=np.float64)
            if scores.size > 1:
                arm.score_spread = float(scores.std()) if np.isfinite(scores).all() else math.nan

    # ------------------------------------------------------------ background

    def look(self) -> None:
        """Take up a rollout that began, drop one that ended, and judge the one that runs."""
        found = read_rollout(self._runtime.home)
        if found != self.rollout:
            self.rollout, self.snapshot = found, None
            self._arms = {True: Arm(), False: Arm()}
        if found is None:
            return
        if self.snapshot is None:
            self._load(found)
        elif time.monotonic() - self._judged >= JUDGE_S:
            self._judged = time.monotonic()
            self._count_rewards(found)
            why = why_back(self._arms[True], self._arms[False], self.params, (now_us() - found.since_us) / 1e6)
            if why is not None:
                self.end(why)

    def stock_changed(self, patches: Sequence[catalogue.Patch]) -> None:
        """Stock that changed holds for the second model at the same moment."""
        with self._swap:
            if self.snapshot is not None:
                self.snapshot = snapshot.stock_changed(self.snapshot, patches)

    def follow(self) -> None:
        """Other changes of the catalogue rebuild it."""
        held, log, rollout = self.snapshot, self._runtime.log, self.rollout
        if held is None or log is None or rollout is None:
            return
        changed = catalogue.changes(log, held.item_seq)
        if not changed:
            return
        with self._swap:
            self.snapshot, more = snapshot.taken_up(self.snapshot or held, changed)
        if more:
            self._load(rollout)

    def _load(self, rollout: Rollout) -> None:
        runtime = self._runtime
        if runtime.snapshot is None:
            return
        try:
            model = runtime.models.get(rollout.version)
            if model is None:
                directory = runtime.home / rollout.model_dir  # an absolute path stays what it is
                model = HomepageModel.load(directory)
            patches = catalogue.changes(runtime.log, 0) if runtime.log else []
            made = snapshot.build(model, patches, runtime.snapshot.rules, runtime.params, now_us(), runtime.learning)
            warm(made, runtime.state, runtime.log)
        except (HomerankerError, OSError, ValueError, KeyError) as error:
            self.end(f"the model is refused: {error}")
            return
        runtime.models[model.version] = model  # explanations of its pages find it
        with self._swap:
            late = catalogue.changes(runtime.log, made.item_seq) if runtime.log else []  # put while it was being built
            self.snapshot = snapshot.stock_changed(made, late)

    def _count_rewards(self, rollout: Rollout) -> None:
        """Pages of both arms and which of them were clicked, by all workers, from the log."""
        log = self._runtime.log
        if log is None:
            return
        sql = "SELECT request_id, json_extract(slate, '$.model_version') FROM slates WHERE served_us >= ? AND "
        sql += "json_extract(slate, '$.surface') = 'home' AND json_extract(slate, '$.shadow') IS NULL"
        shown = dict(log.slates.read(sql, (rollout.since_us,)))
        marks = ", ".join("?" for _ in REWARDS)
        sql = "SELECT DISTINCT json_extract(row, '$.request_id') FROM events WHERE verified = 1 AND received_us >= ? "
        clicked = {row[0] for row in log.store.read(f"{sql} AND event_type IN ({marks})", (rollout.since_us, *REWARDS))}
        for new, arm in self._arms.items():
            pages = [request for request, version in shown.items() if (version == rollout.version) == new]
            arm.pages = max(arm.pages, len(pages))
            arm.rewarded = sum(request in clicked for request in pages)

    def end(self, why: str) -> None:
        """Send it home: the file says why, and the champion answers everybody again."""
        rollout = self.rollout
        self.rollout, self.snapshot = None, None
        if rollout is None:
            return
        metrics.ROLLOUTS.labels("ended").inc()
        logger.error("%s of model %s ended: %s", rollout.mode, rollout.version, why)
        path = self._runtime.home / ROLLOUT
        fresh = path.with_name(f".rollout.{time.monotonic_ns()}")
        fresh.write_text(json.dumps(dict(ended(rollout, why, now_us())), sort_keys=True))
        fresh.replace(path)
