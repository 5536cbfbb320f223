"""The life of one worker: what it holds, what it watches, how it starts and ends.

Choices. Everything that may be missing is optional and looked for again every few seconds: the log on disk, the
champion, the rules file. So a broken part degrades the page (`fallback`) and recovers alone, and no order of start
matters. Requests only ever read `snapshot`, which is swapped whole. What is sold out must hold within a second and an
erasure soon, so neither waits for the watcher, who loads models and counts what was learned.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from dataclasses import replace
from pathlib import Path

from features.errors import HomerankerError, StoreError, UsageError
from models.history import Action, UserState
from models.homepage import HomepageModel
from models.live_signals import knows_clicks, prior
from models.rules import Rules, load_rules
from serving import catalogue, champion, erasure, metrics, snapshot
from serving.background import Repeated, attempt
from serving.contract import now_us
from serving.event_log import EXPORTED, EventLog
from serving.learning import Basis, Learning, unlearned
from serving.load import Load
from serving.online import OnlineHistory
from serving.params import Environment, ServingParams, load_settings
from serving.session import LiveState, RedisSessions
from serving.snapshot import Snapshot
from serving.tokens import Signer, read_secret
from serving.trial import Trial
from serving.warm import warm

RULES_FILE = "rules.yaml"
KEPT_MODELS = 3  # older models that explanations of their pages still use
RULES_AGE_US = 3_600_000_000  # "new for 30 days" is compiled again after an hour

logger = logging.getLogger("homeranker")


class Runtime:
    """State of one worker; thread-safe because what requests read is immutable and swapped."""

    def __init__(self, environment: Environment, bundled: Path | None) -> None:
        self.environment, self._bundled = environment, bundled
        self.home = environment.home
        self.params = load_settings(bundled) if bundled else ServingParams()
        if environment.drain_s is not None:
            self.params = replace(self.params, drain_s=environment.drain_s)
        self.keys, self.rate_per_key, self.replay = environment.keys, self.params.rate_per_key, environment.replay
        self.load = Load(self.params.concurrency, self.params.standing)
        self.signer = self._make_signer()
        self.log: EventLog | None = None
        self.snapshot: Snapshot | None = None
        self.models: dict[str, HomepageModel] = {}
        shared = RedisSessions(environment.redis_url, self.params.live_events) if environment.redis_url else None
        self.live = LiveState(shared, self.params.live_events)
        self.online = OnlineHistory(self.home, environment.redis_url)
        self.learning = Learning(self.params.learning)
        self.trial = Trial(self)
        self.draining = False
        self._champion: tuple[Path, str] | None = None
        self._refused: str | None = None
        self._unranked: HomepageModel | None = None
        self._rules_seen: float | None = None
        self._swap, self._stock_seq, self._watched = threading.Lock(), 0, 0.0
        self._watcher = Repeated("watcher", self._watch, self.params.refresh_s)
        self._eraser = Repeated("eraser", self._erase, self.params.refresh_s, rest_s=self.params.watch_s)
        self._threads = self._watcher, self._eraser, Repeated("stock", self._follow_stock, self.params.refresh_s)

    def _make_signer(self) -> Signer:
        try:
            return Signer(read_secret(self.home))
        except StoreError as error:
            logger.error("%s Request ids of this process cannot be checked by others.", error)
            return Signer(secrets.token_bytes(32))

    # ------------------------------------------------------------ start and end

    def start(self) -> None:
        """Open the log, load and warm the model, then watch; a missing part is looked for again later."""
        first = (self._open_log, self._look_for_history, self._look_for_model, self._look_for_basis, self._learn)
        for task in first:  # what is learned last, so that the first page is weighed like all others
            attempt(task)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the background work; what waits for the log is committed."""
        for thread in self._threads:
            thread.stop()
        if self.log is not None:
            self.log.close()

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until what the log holds is counted and handed out, at most so long."""
        end = time.monotonic() + seconds
        while self.log is not None and not self.learning.settled and time.monotonic() < end:
            time.sleep(0.05)

    def unready(self) -> str | None:
        """Why no traffic should come now."""
        if self.draining:
            return "the service is draining"
        if self.snapshot is None:
            return "no model is ready; promote a run, or start with --fallback"
        return None

    # ------------------------------------------------------------ what requests use

    def need_log(self) -> EventLog:
        """The log, or StoreError."""
        if self.log is None:
            raise StoreError("the log cannot be opened; is HOMERANKER_HOME writable?")
        return self.log

    def state(self, now: Snapshot, user_id: str | None, session_id: str, at_us: int) -> tuple[UserState, bool]:
        """What is known of this person, and whether a source of it failed; nothing for a user without consent."""
        if not now.may_personalize(user_id):
            return UserState.build(None, [], now.items.index), False
        # A row's age is measured from where the model's time ends: data of 2011 is not stale to a model of 2011.
        row, missing = self.online.row(user_id, now.model.as_of(at_us))
        events, stale = self.live.events(self.log, user_id, session_id, self.online.known(row))
        actions = [Action(e.item_id, e.event_type, e.time_us, e.session_id, e.quantity, e.price) for e in events]
        if events:
            metrics.LAG.set(max(0.0, (at_us - events[-1].received_us) / 1e6))
        return UserState.build(row, actions, now.items.index, session_id), stale or missing

    def refresh_stock(self) -> None:
        """Make this worker's own catalogue change hold at once; new texts follow from the watcher."""
        self._follow_stock()
        self._watcher.wake()

    def erase_soon(self) -> None:
        """Have pending erasures taken up now."""
        self._eraser.wake()

    # ------------------------------------------------------------ background

    def _watch(self) -> None:
        due = time.monotonic() - self._watched >= self.params.watch_s
        rarely = (self._open_log, self._look_for_history, self._look_for_model, self._look_for_basis, self.trial.look)
        for task in (self._refresh_items, self.trial.follow, self._learn, *(rarely if due else ())):
            attempt(task)
        self._watched = time.monotonic() if due else self._watched

    def _follow_stock(self) -> None:
        """Take up what any worker was told of the stock."""
        with self._swap:
            if self.log is None or self.snapshot is None:
                return
            changed = catalogue.changes(self.log, max(self._stock_seq, self.snapshot.item_seq))
            if changed:
                self.snapshot = snapshot.stock_changed(self.snapshot, changed)
                self.trial.stock_changed(changed)
                self._stock_seq = changed[-1].seq

    def _open_log(self) -> None:
        if self.log is None:
            try:
                self.log = EventLog(self.home)
            except StoreError as error:
                logger.warning("%s", error)

    def _look_for_history(self) -> None:
        """Open the online store where one has appeared, and see how far the log was exported."""
        try:
            self.online.open()
        except Exception as error:  # a broken store must not keep the service from starting
            logger.warning("the online store cannot be opened: %s", type(error).__name__)
        if self.log is not None:
            self.online.exported_seq = int(self.log.fact(EXPORTED) or 0)

    def _refresh_items(self) -> None:
        held = self.snapshot
        if self.log is None or held is None:
            return
        changed = catalogue.changes(self.log, held.item_seq)
        if not changed:
            return
        with self._swap:
            self.snapshot, more = snapshot.taken_up(self.snapshot or held, changed)
        if more:
            self._install(self._base_model())

    def _base_model(self) -> HomepageModel | None:
        if self._unranked is not None:
            return self._unranked
        return self.models.get(self.snapshot.version) if self.snapshot else None

    def _install(self, model: HomepageModel | None) -> None:
        """Build and warm a snapshot of this model with the whole catalogue, then swap it in."""
        patches = catalogue.changes(self.log, 0) if self.log else []
        rules = self._rules()
        made = snapshot.build(model, patches, rules, self.params, now_us(), self.learning, ranks=not self._unranked)
        warm(made, self.state, self.log)
        with self._swap:
            late = catalogue.changes(self.log, made.item_seq) if self.log else []  # put while this one was being built
            before, self.snapshot = self.snapshot, snapshot.stock_changed(made, late)
        if before is not None and before.version != made.version:
            metrics.MODEL.labels(before.version).set(0)
        if model is not None:
            self.models[model.version] = model
            while len(self.models) > KEPT_MODELS:
                del self.models[next(iter(self.models))]
        metrics.MODEL.labels(made.version).set(1)

    def _learn(self) -> None:
        """Take up new events, weigh the signals again, and hand out what changed."""
        held = self.snapshot
        if self.log is None or held is None:
            return
        self.learning.take_up(self.log, held.may_personalize)
        self.learning.fit()
        if self.learning.due():
            started = time.monotonic()
            with self._swap:
                self.snapshot = snapshot.learned(self.snapshot or held, self.learning)
            self.learning.handed_out(time.monotonic() - started)

    def _look_for_basis(self) -> None:
        """What is learned stands on a model, and forgets erased users and what was rolled back."""
        held = self.snapshot
        if self.log is None or held is None:
            return
        done = self.log.store.read("SELECT COUNT(*) FROM erasures WHERE user_id IS NULL")[0][0]
        self.learning.stand_on(
            Basis(tuple(prior(held.base)), held.base.trained_until_us if held.ranks else 0, self.online.exported_seq,
                  unlearned(self.log), done, knows_clicks(held.base)),
            self.log,
        )  # fmt: skip

    def _rules(self) -> Rules:
        """The rules file; where it is wrong the rules that serve stay."""
        path = self.home / RULES_FILE
        self._rules_seen = path.stat().st_mtime if path.exists() else None
        try:
            return load_rules(path)
        except UsageError as error:
            logger.error("%s The rules before stay in force.", error)
            return self.snapshot.rules if self.snapshot else Rules()

    def _look_for_model(self) -> None:
        """Take up another champion, a changed rules file, or the first model there is."""
        directory, why = champion.wanted(self.home, self._bundled)
        held = self.snapshot
        if directory is not None and (directory, why) != self._champion and f"{directory} {why}" != self._refused:
            self._load(directory, why)
        elif held is None and self.environment.fallback:
            self._install(None)
        elif held is not None:
            path = self.home / RULES_FILE
            seen = path.stat().st_mtime if path.exists() else None
            if seen != self._rules_seen or now_us() - held.made_us > RULES_AGE_US:
                rules = self._rules()
                with self._swap:
                    self.snapshot = snapshot.with_rules(self.snapshot or held, rules, now_us())

    def _load(self, directory: Path, why: str) -> None:
        try:
            model = HomepageModel.load(directory)
            # With --fallback and no champion, a bundled model that nobody promoted only lends its catalogue.
            self._unranked = model if why == champion.BUNDLED and self.environment.fallback else None
            self._install(model)
        except (HomerankerError, OSError, ValueError, KeyError) as error:
            metrics.SWAPS.labels("refused").inc()
            self._refused = f"{directory} {why}" if self.snapshot else None
            logger.error("model at %s is refused: %s", directory.name, error)
            return
        metrics.SWAPS.labels("taken").inc()
        self._champion, self._refused = (directory, why), None
        if self.log is not None:
            self.log.remember("model_dir", str(directory))

    def _erase(self) -> None:
        if self.log is not None and erasure.is_pending(self.log):
            time.sleep(0.2)  # pages served a moment ago are being logged
            erasure.perform(self.log, self.signer, self.live.shared, self.online)
