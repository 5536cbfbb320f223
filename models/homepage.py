"""The homepage model: everything that turns a history into ranked candidates, as one immutable value.

Choices. Retrieval, features and ranker travel together, because a ranker is only right on the features that it was
trained on. A new item joins by `extend`: its content, price and age are known, its counts are zero. Ages are measured
from `as_of`, at most a week beyond the last training day, so that a model which was not retrained is never asked
about ages that it never saw.
Shapes: I items, C candidates, F features.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.errors import ArtifactError
from features.schema import EVENT_TYPES
from models import checkpoint, packing
from models.calibration import Calibration
from models.columns import feature_names, features
from models.examples import training_lists
from models.explain import causes
from models.history import DAY_US, TYPE_WEIGHT, UserState
from models.items import ItemRow, ItemTable
from models.log import ActionLog
from models.ranker import RankerNet, RankerParams, contributions, scores, train
from models.retrieval import Names, RetrievalParams
from models.signals import Knowledge, Reading, candidates, read
from models.training import LoopParams

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

STALE_AFTER_US = 7 * DAY_US
OLDER = 0.1  # of two weeks' popularity beside a day's: in steady traffic both count alike


@dataclass(frozen=True)
class Ranking:
    """C items with their scores; from `rank`, best first."""

    index_C: Ints
    score_C: Floats32  # logits of the ranker: any real number
    p_click_C: Floats32  # calibrated, 0 < p < 1, as if in the first slot
    source_C: Names
    reading: Reading | None = None  # what the history says of every item, where it was read


@dataclass(frozen=True)
class Cause:
    """A history item and its share (0 to 1) of the counting part of a score."""

    item_id: str
    event_type: str
    weight: float


@dataclass(frozen=True)
class Contribution:
    """A feature, its value, and what it adds to the score."""

    name: str
    value: float
    contribution: float


@dataclass(frozen=True)
class HomepageModel:
    """Immutable; `manifest` says what it was trained on and what the gate said."""

    knowledge: Knowledge
    ranker: RankerNet
    calibration: Calibration
    trained_until_us: int
    retrieval: RetrievalParams = field(default_factory=RetrievalParams)
    version: str = "unsaved"
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def items(self) -> ItemTable:
        """The catalogue that the scores are about."""
        return self.knowledge.items

    @property
    def popular_I(self) -> Floats32:
        """(I,) time-decayed popularity: the cold-start order."""
        return self.knowledge.statistics.values["popularity_14d"].astype(np.float32)

    @property
    def hot_I(self) -> Floats:
        """(I,) what is popular right now: a day's half-life, and two weeks' where the day says little."""
        values = self.knowledge.statistics.values
        told: Floats = np.expm1(values["popularity_1d"]) + OLDER * np.expm1(values["popularity_14d"])
        return told

    def as_of(self, now_us: int) -> int:
        """The moment that ages are measured from."""
        return min(now_us, self.trained_until_us + STALE_AFTER_US)

    def extend(self, rows: Sequence[ItemRow], now_us: int = 0) -> HomepageModel:
        """The same model with changed items replaced and new ones appended."""
        items = self.items.merge(rows)
        return replace(self, knowledge=self.knowledge.extended(items, now_us or self.trained_until_us))

    def rank(
        self,
        state: UserState,
        as_of_us: int,
        eligible_I: Bools,
        n: int = 500,
        also: Mapping[str, Ints] | None = None,
    ) -> Ranking:
        """The best n candidates among the eligible items, best first; ties go to the lower item.

        `also` names candidates of other sources, which must be eligible.
        """
        reading = read(state, self.knowledge, as_of_us)
        index_C, source_C = candidates(state, reading, self.knowledge, eligible_I, self.retrieval, also)
        x_CF = features(state, reading, self.knowledge, as_of_us, index_C)
        score_C = scores(self.ranker, x_CF)
        best = np.argsort(-score_C, kind="stable")[:n]
        return self._ranking(index_C[best], score_C[best], source_C[best], reading)

    def score_items(self, state: UserState, as_of_us: int, index_C: Ints) -> Ranking:
        """Scores of given items, in the given order."""
        source_C = np.full(index_C.size, "given", dtype=object)
        if index_C.size == 0:
            return self._ranking(index_C, np.zeros(0, dtype=np.float32), source_C)
        reading = read(state, self.knowledge, as_of_us)
        x_CF = features(state, reading, self.knowledge, as_of_us, index_C)
        return self._ranking(index_C, scores(self.ranker, x_CF), source_C, reading)

    def _ranking(self, index_C: Ints, score_C: Floats32, source_C: Names, reading: Reading | None = None) -> Ranking:
        return Ranking(index_C, score_C, self.calibration.probability(score_C), source_C, reading)

    def moved(self, sums: Mapping[tuple[str, float], Floats], last_us_I: Ints, now_us: int) -> HomepageModel:
        """The same model with item statistics as of now: aged, and with live counts (`sums`, see statistics)."""
        days = max(0.0, (self.as_of(now_us) - self.knowledge.statistics.cut_us) / DAY_US)
        statistics = self.knowledge.statistics.moved(sums, last_us_I, now_us, days)
        return replace(self, knowledge=replace(self.knowledge, statistics=statistics))

    def because(self, state: UserState, item: int, as_of_us: int, k: int = 3) -> list[Cause]:
        """The history items that speak for this one, most first (explain.py); empty for a stranger."""
        return [
            Cause(self.items.item_ids[at], self._newest_type(state, at), share)
            for at, share in causes(self, state, item, as_of_us)[:k]
        ]

    def _newest_type(self, state: UserState, item: int) -> str:
        mine = np.flatnonzero((state.item_P == item) & (TYPE_WEIGHT[state.type_P] > 0))
        return EVENT_TYPES[int(state.type_P[mine[-1]])]

    def contributions(self, state: UserState, item: int, as_of_us: int) -> list[Contribution]:
        """What each feature adds to the score; `baseline` is the average candidate. Complete to 1e-3."""
        index_C = np.array([item], dtype=np.int64)
        x_F = features(state, read(state, self.knowledge, as_of_us), self.knowledge, as_of_us, index_C)[0]
        added_F, base = contributions(self.ranker, x_F)
        names = feature_names(self.knowledge)
        told = [Contribution(name, float(x), float(c)) for name, x, c in zip(names, x_F, added_F, strict=True)]
        told.sort(key=lambda one: -abs(one.contribution))
        return [Contribution("baseline", 1.0, base), *told]

    def save(self, directory: Path) -> str:
        """Write the model; returns its version."""
        arrays, config = packing.pack(self)
        return checkpoint.save(directory, arrays, config)

    @classmethod
    def load(cls, directory: Path) -> HomepageModel:
        """Read a model and check digests, names, shapes, finiteness and the golden answers.

        Raises ArtifactError that says which of them is wrong.
        """
        arrays, config, version = checkpoint.load(directory)
        try:
            model = cls(*packing.unpack(arrays, config))
            answers = list(zip(packing.golden(model), config["golden"], strict=True))
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise ArtifactError(f"{directory}: arrays and config do not fit together ({error}); retrain") from error
        manifest_path = directory / "manifest.json"
        manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
        model = replace(model, version=version, manifest=manifest)
        for asked, (told, expected) in enumerate(answers):
            if len(told) != len(expected) or not np.allclose(told, expected, rtol=1e-3, atol=1e-3):
                raise ArtifactError(
                    f"{directory}: golden request {asked} got another answer; wrong torch version or CPU?"
                )
        return model


def fit_simple(events: pa.Table, items: pa.Table) -> HomepageModel:
    """A small model of everything in two tables, without a sequence network or a held-out slice: for quick looks."""
    table = ItemTable.from_arrow(items)
    log = ActionLog.from_arrow(events, table.index, len(table))
    until = int(log.time_us[-1]) + 1
    cut = int(np.quantile(log.time_us, 0.7))
    lists = training_lists(log, table, [cut], until, sequence=None)
    net, _ = train(lists, RankerParams(loop=LoopParams(epochs=2)))
    return HomepageModel(Knowledge.fit(log, table, until), net, Calibration(), until)


def utc(microseconds: int) -> str:
    """RFC 3339 in UTC."""
    return dt.datetime.fromtimestamp(microseconds / 1e6, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
