"""The recipe of a retrain, without any framework: tune on one slice, refit up to the cut, refresh what is shipped.

Choices. Two clean steps. `tune` fits on what lies before the tune slice and picks the number of epochs and the
calibration on it. `refit` repeats it up to the gate's cut with those numbers; that model is judged. What ships has the
same weights with counts and statistics refreshed to the last day, because staleness costs more than any architecture
gains, and counts are data, not judgement.
The sequence network that makes training features is fitted before the earliest cut, so that no list sees its future.
Shapes: see examples.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from models import calibration, ranker, sequence
from models.calibration import Calibration
from models.evaluation import Floats, Ints, Slice, calibration_rows, lists_of, values_of
from models.examples import ExampleParams, States, cuts_before, next_visits, states_from_log, training_lists
from models.homepage import HomepageModel
from models.items import ItemTable
from models.log import ActionLog
from models.ranker import Lists, RankerNet, RankerParams
from models.retrieval import strongest
from models.sequence import SequenceModel, SequenceParams
from models.signals import Knowledge
from models.training import Curves, Progress, quiet
from models.yardsticks import counting

FUSION_WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class TrainParams:
    """Everything that decides the weights; `threads` decides bytes too."""

    threads: int = 2
    use_sequence: bool = True
    tune_users: int = 600
    least_fusion_gain: float = 0.001  # of NDCG@10: what the network must add to counting to be kept
    sequence: SequenceParams = field(default_factory=SequenceParams)
    ranker: RankerParams = field(default_factory=RankerParams)
    examples: ExampleParams = field(default_factory=ExampleParams)


@dataclass(frozen=True)
class Times:
    """Microseconds: data from `start`, tune slice after `tune_cut`, gate slice after `gate_cut`, data until `end`."""

    start_us: int
    tune_cut_us: int
    gate_cut_us: int
    end_us: int

    @property
    def slice_us(self) -> int:
        """How long "the next visit" may take to come: the gate slice, or the tune slice where that was shortened."""
        gate_us, tune_us = self.end_us - self.gate_cut_us, self.gate_cut_us - self.tune_cut_us
        return gate_us if 2 * gate_us > tune_us else tune_us

    def tune_cuts(self, params: ExampleParams) -> list[int]:
        """Cuts of the training lists for tuning."""
        return cuts_before(self.tune_cut_us, self.start_us, self.slice_us, params.tune_cuts)

    def gate_cuts(self, params: ExampleParams) -> list[int]:
        """Cuts of the training lists for the refit."""
        return cuts_before(self.gate_cut_us, self.start_us, self.slice_us, params.cuts)

    def earliest_cut(self, params: ExampleParams) -> int:
        """Before it lies what the features' sequence network may know."""
        return min(self.tune_cuts(params) + self.gate_cuts(params))


@dataclass(frozen=True)
class Sequences:
    """The network for training features, the one for judging and shipping, and how the first one learned."""

    early: SequenceModel | None
    late: SequenceModel | None
    curves: Curves
    fusion: dict[str, float] = field(default_factory=dict)  # weight of the network -> NDCG@10 beside counting


def train_sequences(
    log: ActionLog,
    items: ItemTable,
    times: Times,
    params: TrainParams,
    checkpoints: Path | None,
    progress: Progress = quiet,
) -> Sequences:
    """Early: up to the earliest cut, stopped by the actions that follow it. Late: up to the gate, as many epochs.

    The network is kept only if some weight of it beside counting ranks the users' next visits better than counting
    alone; otherwise both are None: the data decides.
    """
    if not params.use_sequence:
        return Sequences(None, None, Curves())
    earliest = times.earliest_cut(params.examples)
    early_log = log.before(earliest)
    if (sequence.interactions(early_log).length_U >= 2).sum() < 2:
        return Sequences(None, None, Curves())
    early, curves = sequence.train(
        early_log,
        params.sequence,
        validate_on=log.between(earliest, times.tune_cut_us),
        checkpoints=checkpoints / "early" if checkpoints else None,
        progress=progress,
    )
    fusion = try_fusion(log, items, earliest, times.tune_cut_us, early, params.tune_users)
    best = max(fusion, key=lambda weight: (fusion[weight], -weight))
    told = {f"{weight:g}": round(value, 6) for weight, value in fusion.items()}
    if fusion[best] < fusion[0.0] + params.least_fusion_gain:
        return Sequences(None, None, curves, told)
    late, _ = sequence.train(
        log.before(times.gate_cut_us),
        params.sequence,
        stop_after=curves.best_epoch,
        checkpoints=checkpoints / "late" if checkpoints else None,
        progress=progress,
    )
    return Sequences(early, late, curves, told)


def try_fusion(
    log: ActionLog, items: ItemTable, cut_us: int, end_us: int, network: SequenceModel, max_users: int
) -> dict[float, float]:
    """Weight of the network -> NDCG@10 of counting plus the weighted network, on the visits after the cut."""
    held = Slice.of(log, cut_us, end_us, states_from_log(log), max_users)
    knowledge = Knowledge.fit(log, items, cut_us)
    everything_I = np.ones(len(items), dtype=bool)

    found: dict[float, list[Ints]] = {weight: [] for weight in FUSION_WEIGHTS}
    for state in held.states:  # one reading of a history serves every weight
        counted_I = counting(state, knowledge, held.cut_us)
        counted_I = counted_I / max(float(counted_I.max()), 1e-9)
        said_I = network.scores(state, len(items)).astype(np.float64)
        above_I = np.maximum((said_I - said_I.mean()) / (float(said_I.std()) or 1.0), 0.0)
        for weight, lists in found.items():
            lists.append(strongest(counted_I + weight * above_I, 300, everything_I))

    def value(lists: list[Ints]) -> float:
        following = iter(lists)
        told = values_of(held, *lists_of(held, lambda _state, _at: next(following)))
        return float(told["ndcg@10"].mean()) if held.users else 0.0

    return {weight: value(lists) for weight, lists in found.items()}


@dataclass(frozen=True)
class Tuning:
    """What can be tried before the tune slice: lists to learn from, and users of the slice to be judged on.

    `came_back`: of the slice's visitors, the share of whom something was known.
    """

    lists: Lists
    knowledge: Knowledge
    held: Slice
    strangers: Slice
    came_back: float

    @classmethod
    def prepare(
        cls,
        log: ActionLog,
        items: ItemTable,
        times: Times,
        states: States,
        early: SequenceModel | None,
        params: TrainParams,
        on_lists: Callable[[int, int], None] | None = None,
    ) -> Tuning:
        """Nothing after the tune slice is read."""
        cuts = times.tune_cuts(params.examples)
        lists = training_lists(
            log, items, cuts, times.tune_cut_us, sequence=early, states=states, params=params.examples,
            progress=on_lists,
        )  # fmt: skip
        knowledge = Knowledge.fit(log, items, times.tune_cut_us, early)
        held = Slice.of(log, times.tune_cut_us, times.gate_cut_us, states, params.tune_users)
        strangers = Slice.of_strangers(log, times.tune_cut_us, times.gate_cut_us)
        known = len(next_visits(log, times.tune_cut_us, times.gate_cut_us))
        return cls(lists, knowledge, held, strangers, known / max(known + len(strangers.users), 1))

    def model(self, net: RankerNet) -> HomepageModel:
        """As of the tune slice's cut, not calibrated yet."""
        return HomepageModel(self.knowledge, net, Calibration(), self.held.cut_us)

    def values(self, net: RankerNet) -> Floats:
        """(N,) NDCG@10 of the held users."""
        return self._values(net, self.held)

    def value(self, net: RankerNet) -> float:
        """The mean over those who came back and strangers, as many as there were of each; 0 where there is nobody."""
        told = [(self.held, self.came_back), (self.strangers, 1.0 - self.came_back)]
        return sum(share * float(self._values(net, met).mean()) for met, share in told if met.users)

    def _values(self, net: RankerNet, met: Slice) -> Floats:
        everything_I = np.ones(len(self.knowledge.items), dtype=bool)
        model = self.model(net)
        lists_NK = lists_of(met, lambda state, at: model.rank(state, at, everything_I, 300).index_C)
        return values_of(met, *lists_NK)["ndcg@10"]


def tune(
    log: ActionLog,
    items: ItemTable,
    times: Times,
    states: States,
    early: SequenceModel | None,
    params: TrainParams,
    checkpoints: Path | None,
    progress: Progress = quiet,
    on_lists: Callable[[int, int], None] | None = None,
) -> tuple[Curves, Calibration]:
    """Fit before the tune slice; the curves name the best epoch, the calibration comes from the same slice."""
    tuning = Tuning.prepare(log, items, times, states, early, params, on_lists)
    net, curves = ranker.train(
        tuning.lists, params.ranker, validate=tuning.value, checkpoints=checkpoints, progress=progress
    )
    return curves, calibration.fit(*calibration_rows(tuning.held, tuning.model(net)))


def gate_lists(
    log: ActionLog,
    items: ItemTable,
    times: Times,
    states: States,
    early: SequenceModel | None,
    params: TrainParams,
    on_lists: Callable[[int, int], None] | None = None,
) -> Lists:
    """What the refit learns from, and the trees beside it: everything up to the gate's cut."""
    cuts = times.gate_cuts(params.examples)
    return training_lists(
        log, items, cuts, times.gate_cut_us, sequence=early, states=states, params=params.examples, progress=on_lists
    )


def refit(
    log: ActionLog,
    items: ItemTable,
    times: Times,
    lists: Lists,
    late: SequenceModel | None,
    tuned: tuple[Curves, Calibration],
    params: TrainParams,
    checkpoints: Path | None,
    progress: Progress = quiet,
) -> tuple[HomepageModel, Curves]:
    """The model that is judged: as many epochs on the gate's lists, with the calibration of the tune slice."""
    net, curves = ranker.train(
        lists, params.ranker, stop_after=tuned[0].best_epoch, checkpoints=checkpoints, progress=progress
    )
    knowledge = Knowledge.fit(log, items, times.gate_cut_us, late)
    return HomepageModel(knowledge, net, tuned[1], times.gate_cut_us), curves


def refresh(judged: HomepageModel, log: ActionLog, items: ItemTable, end_us: int) -> HomepageModel:
    """The model that ships: the judged weights over counts and statistics of everything."""
    knowledge = Knowledge.fit(log, items, end_us, judged.knowledge.sequence, judged.knowledge.counting.params)
    return replace(judged, knowledge=knowledge, trained_until_us=end_us)
