"""The recipe of the page policy, without any framework: learn from impressions, prove on later ones, or say why not.

Choices. Pages before the gate's cut teach, the newest tenth of them chooses the epoch, pages after the cut judge: the
same order of time as the ranker's. The proof compares with the policy that made the log, in clicks that are worth
what their price makes them worth; and with the champion on the same pages, because what served was the champion and
what it learned between two retrains, which the new policy will have on top as well. A first policy may differ so much
from the log that weights tell nothing; without a champion it has a second chance, the order of what was shown against
the order of what served, live learning included, where it must be surely better. Both chances share one error. A log
with too few pages or clicks, or with a fault, teaches nothing; nor one on which a first policy could not be proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from models import calibration
from models.columns import feature_names
from models.gate import CHAMPION, SERVED
from models.homepage import HomepageModel
from models.log import ActionLog
from models.ope import Judgement, OpeParams, SlotLog, assay, compare, faults, judge, looks
from models.ope.estimators import ESTIMATORS, Rounds, estimate
from models.ope.log import Bools
from models.policy.caution import least_caution
from models.policy.impressions import Floats, Impressions, Page, People, impressions, organic_share, pages_of
from models.policy.plackett_luce import PlackettLuceParams
from models.policy.proof import scores_as_served, scores_of_shown, target_probabilities
from models.policy.value import (
    PositionNet,
    ValueParams,
    Worth,
    add_worth,
    before_clicks,
    believe_less,
    held_out,
    learn,
    worth_of_clicks,
)
from models.policy.visit import worth_of_staying
from models.ranker import RankerNet
from models.sequence import SequenceModel
from models.training import Curves, Progress, quiet

FIRST_SLOTS, LEAST_CALIBRATED = 3, 300  # where, and on how many slots, the chance of a click is calibrated
LEAST_ORGANIC = 0.05


@dataclass(frozen=True)
class PolicyParams:
    """`learn` false: the ranker serves; `gate_pages`: the most that judge; the least that a log must hold."""

    learn: bool = True
    gate_pages: int = 2_500
    least_pages: int = 1_000
    least_clicks: int = 200
    value: ValueParams = field(default_factory=ValueParams)
    ope: OpeParams = field(default_factory=OpeParams)


@dataclass(frozen=True)
class Rival:
    """Whose (N,) scores of the shown slots a policy's meet; `margin`: how much worse passes, as a share."""

    name: str
    score_N: Floats
    margin: float


@dataclass(frozen=True)
class Learned:
    """What came of it: the model whose ranker is the policy's network (None: nothing was learned, and `why`)."""

    model: HomepageModel | None
    why: str
    curves: Curves
    worth: Worth | None = None
    proof: Judgement | None = None
    against: Judgement | None = None  # the order of what was shown, where it is compared
    rival: str = CHAMPION
    table: tuple[dict[str, Any], ...] = ()
    calibration_error: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For the report and the gate."""
        return {
            "learned": self.model is not None,
            "why": self.why,
            "curves": self.curves.to_json(),
            "worth": None if self.worth is None else {name: round(x, 6) for name, x in vars(self.worth).items()},
            "proof": None if self.proof is None else self.proof.to_json(),
            "against": None if self.against is None else self.against.to_json(),
            "rival": self.rival,
            "table": list(self.table),
            "calibration_error": None if self.calibration_error is None else round(self.calibration_error, 6),
        }


def learn_policy(
    slates: pa.Table | None,
    events: pa.Table,
    log: ActionLog,
    judged: HomepageModel,
    sequence: SequenceModel | None,
    params: PolicyParams,
    sampling: PlackettLuceParams,
    checkpoints: Path | None,
    progress: Progress = quiet,
    champion: HomepageModel | None = None,
    workers: int = 1,
) -> Learned:
    """The policy as of the gate's cut (`judged` is the ranker of that moment), with its proof on the pages after it.

    `champion` is the one that serves, as it was judged; it must not have seen those pages. `workers`: processes.
    """
    if slates is None or not params.learn:
        return Learned(None, "learning it is switched off" if not params.learn else "the log has no slates", Curves())
    whole = SlotLog.from_tables(slates, events)
    pages = pages_of(slates, events, judged.items, whole)
    cut_us = judged.trained_until_us
    before = [page for page in pages if page.served_us < cut_us][-params.value.max_pages :]
    clicks, after = sum(int(page.clicked_K.sum()) for page in before), [p for p in pages if p.served_us >= cut_us]
    if len(before) < params.least_pages or clicks < params.least_clicks:
        held = f"{len(before):,} pages with drawn slots and {clicks:,} clicks before the cut"
        return Learned(None, f"{held}; {params.least_pages:,} and {params.least_clicks:,} are wanted", Curves())
    if found := faults(whole):
        return Learned(None, "; ".join(map(str, found)), Curves())
    if champion is None and len(after) < params.ope.min_pages:  # a first shop gets the ranker rather than nothing
        held, wanted = f"{len(after):,} pages with drawn slots after the cut", f"{params.ope.min_pages:,} are wanted"
        return Learned(None, f"{held}; {wanted} to prove a first policy on", Curves())
    people = People(events, log, judged.items)
    seen = impressions(before, people, log, judged.items, sequence, workers=workers)
    names = feature_names(judged.knowledge)
    organic = organic_share(slates, events, cut_us)
    known = organic >= LEAST_ORGANIC  # below it no second network is worth its time
    offset = (judged.ranker, params.value.organic * organic) if known else None
    net, worth, curves = _fit(seen, names, params.value, offset, checkpoints, progress)
    worth = _with_rest(worth, before, _prices(judged), params.value)
    add_worth(net.ranker, names.index("log_price"), worth, _prices(judged))
    model = replace(judged, ranker=net.ranker)
    if known and params.value.pessimism:
        caution = least_caution(model, before, people, sampling, params.value.pessimism * organic)
        believe_less(net.ranker, names.index("appeal_doubt"), caution)
    model = _calibrated_first(model, _rows(seen, np.arange(len(seen.x_NKF)) >= _cut(seen)))  # new to the weights
    after = [after[at] for at in np.linspace(0, len(after) - 1, min(len(after), params.gate_pages)).astype(int)]
    learned = Learned(model, "learned from impressions", curves, worth)
    if not after:
        return learned
    look_S = looks(net.position.weight.detach().numpy()[:, 0].astype(np.float64))
    if champion is None:
        rival = Rival(SERVED, scores_as_served(slates, after), 0.0)
    else:
        theirs_L = scores_of_shown(champion, after, people, workers)
        rival = Rival(CHAMPION, np.concatenate(theirs_L), params.ope.margin_champion)
    return prove(learned, after, people, params, sampling, rival, look_S, workers)


def _fit(
    seen: Impressions,
    names: Sequence[str],
    params: ValueParams,
    offset: tuple[RankerNet, float] | None,
    checkpoints: Path | None,
    progress: Progress,
) -> tuple[PositionNet, Worth, Curves]:
    cut = _cut(seen)
    early = _rows(seen, np.arange(len(seen.x_NKF)) < cut)
    late = _rows(seen, np.arange(len(seen.x_NKF)) >= cut)
    net, curves = learn(
        early,
        params,
        *before_clicks(names, params),
        offset,
        validate=lambda one: held_out(one, late),
        checkpoints=checkpoints,
        progress=progress,
    )
    return net, worth_of_clicks(seen, params), curves


def _with_rest(worth: Worth, pages: list[Page], price_I: Floats, params: ValueParams) -> Worth:
    """A click's worth with what it brings later in the visit."""
    if not params.rest_of_visit:
        return worth
    staying = worth_of_staying(pages, lambda page: float(worth.of(price_I[page.item_K[page.clicked_K]]).sum()))
    staying *= params.rest_of_visit
    return replace(worth, base=worth.base + staying, staying=staying)


def _prices(model: HomepageModel) -> Floats:
    return np.asarray(np.expm1(model.knowledge.statistics.values["log_price"]), dtype=np.float64)


def _cut(seen: Impressions) -> int:
    return max(1, len(seen.x_NKF) * 9 // 10)


def _rows(seen: Impressions, keep_N: Bools) -> Impressions:
    return Impressions(**{name: value[keep_N] for name, value in vars(seen).items()})


def _calibrated_first(model: HomepageModel, seen: Impressions) -> HomepageModel:
    """The same model; its probability is of a click in the first slots."""
    first_NK = seen.real_NK & (seen.position_NK <= FIRST_SLOTS)
    score_N = model.ranker.eval()(torch.from_numpy(seen.x_NKF[first_NK])).detach().numpy()
    return replace(model, calibration=calibration.fit(score_N, seen.clicked_NK[first_NK].astype(np.float64)))


def prove(
    learned: Learned,
    pages: list[Page],
    people: People,
    params: PolicyParams,
    sampling: PlackettLuceParams,
    rival: Rival,
    look_S: Floats,
    workers: int = 1,
) -> Learned:
    """With verdicts against the logging policy and the rival, a table of estimators (a slot is a round), and the chance
    of a click calibrated on these pages; `look_S` is how many look at each place.
    """
    assert learned.model is not None and learned.worth is not None  # noqa: S101 - what was learned is to be proved
    target_L, score_L = target_probabilities(learned.model, pages, people, sampling, workers=workers)
    target_N, log = np.concatenate(target_L), _slots(learned.model, learned.worth, pages)
    rounds = Rounds(log.reward_N, log.propensity_N, target_N)
    told = [("logging policy", estimate(log.reward_N))]
    told += [(name, estimate(ESTIMATORS[name](rounds))) for name in ("IPS", "SNIPS")]
    said, known_N = [np.concatenate(score_L)], np.isfinite(rival.score_N)  # a champion may lack what was launched since
    ope, against = params.ope, None
    if rival.name == SERVED and known_N.any():
        ope = replace(ope, alpha=ope.alpha / 2)  # either may let it in
    proof = judge(log, target_N, ope, full_support=False)
    if known_N.any():
        mine_N = np.concatenate(scores_of_shown(learned.model, pages, people, workers, score_L))
        against = compare(log.take(known_N), mine_N[known_N], rival.score_N[known_N], look_S, ope, rival.margin)
        against = against.supported(proof.diagnostics["mean weight"], ope.min_support)
    if rival.name == CHAMPION:
        said.append(rival.score_N)
    known_N = np.logical_and.reduce([np.isfinite(one_N) for one_N in said])
    known = log.take(known_N)
    doubt = assay(known, [one_N[known_N] for one_N in said], _prices(learned.model)[known.item_N])
    scale, error = _calibrated(learned.model.calibration, pages, score_L)
    return replace(
        learned,
        model=replace(learned.model, calibration=scale),
        proof=proof.doubted(doubt),
        against=against,
        rival=rival.name,
        table=tuple({"estimator": name, **interval.to_json()} for name, interval in told),
        calibration_error=error,
    )


def _slots(model: HomepageModel, worth: Worth, pages: list[Page]) -> SlotLog:
    """What these pages showed and earned, slot by slot."""
    price_I = _prices(model)
    gained = [worth.of(price_I[page.item_K]) * page.clicked_K for page in pages]
    sizes = [page.item_K.size for page in pages]
    page_N = np.repeat(np.arange(len(pages)), sizes)
    return SlotLog(
        page_N,
        np.concatenate([page.position_K for page in pages]),
        np.concatenate([page.item_K for page in pages]),
        np.concatenate([page.propensity_K for page in pages]),
        np.zeros(sum(sizes), np.bool_),
        np.concatenate(gained),
        page_N,
        tuple(page.request_id for page in pages),
        model.items.item_ids,
        tuple(page.request_id for page in pages),
        0,
        0,
    )


def _calibrated(
    before: calibration.Calibration, pages: list[Page], score_L: list[Floats]
) -> tuple[calibration.Calibration, float | None]:
    """From score to the chance of a click in the first slots, fitted to these pages, and its error.

    A new policy shows other items than the one before, those that it thinks much of: calibrated on the old one's pages
    it says too much. The error is that of the earlier half's calibration on the later half; where hardly any such slots
    were shown the calibration stays as it was, and with too few even for an error there is None.
    """
    first = [(page.position_K <= FIRST_SLOTS) & np.isfinite(score) for page, score in zip(pages, score_L, strict=True)]
    score_N = np.concatenate([score[keep] for score, keep in zip(score_L, first, strict=True)])
    did_N = np.concatenate([page.clicked_K[keep] for page, keep in zip(pages, first, strict=True)]).astype(np.float64)
    if score_N.size < LEAST_CALIBRATED:
        return before, None
    half = score_N.size // 2 if score_N.size >= 2 * LEAST_CALIBRATED else 0
    told = calibration.fit(score_N[:half], did_N[:half]) if half else before
    bins = calibration.calibration_bins(told.probability(score_N[half:]), did_N[half:])
    scale = calibration.fit(score_N, did_N) if told.fitted and half else before
    return scale, calibration.expected_calibration_error(bins)
