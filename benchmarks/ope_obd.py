"""The Open Bandit Dataset: estimators on real logs whose propensities are known, beside what its authors published.

Choices. Bernoulli Thompson sampling with the production priors draws its three slots at once from Beta posteriors; its
probabilities are counted over many draws. The reward model is logistic, one a position, on the features that the
dataset's own package uses, cross-fitted on three folds, its penalty chosen on held-out rounds; the copies of a round
in a bootstrap lie in one fold, or the model would have seen what it corrects. Errors are relative to the clicks that
the policy earned where it served. Priors: conf/prior_bts.yaml of obp 0.4.1 (Apache-2.0), Saito et al. (2020).
Shapes: N rounds, A items, K = 3 positions.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.errors import SourceError
from models.ope import ESTIMATORS, OpeParams, Rounds, SlotLog, estimate, judge
from models.ope.estimators import Floats
from models.ope.log import Ints
from models.ope.regression import RewardModel

PRIORS = Path(__file__).with_name("open_bandit_priors.json")
PUBLISHED = {"DM": 0.157, "IPS": 0.311, "SNIPS": 0.312, "DR": 0.292, "Switch-DR": 0.258}
CAMPAIGNS, SLOTS, DRAWS, BOOTSTRAPS, FOLDS = ("all", "men", "women"), 3, 200_000, 30, 3
TAU = 1.0  # as the authors' package has it


@dataclass(frozen=True, eq=False)
class Log:
    """One log of 10,000 impressions (or the full one)."""

    item_N: Ints
    place_N: Ints  # from 0
    click_N: Floats
    propensity_N: Floats
    user_NF: Floats
    item_AF: Floats

    def take(self, rows: Ints) -> Log:
        """Some rounds, repeated ones too."""
        parts = (self.item_N, self.place_N, self.click_N, self.propensity_N, self.user_NF)
        return Log(*(part[rows] for part in parts), self.item_AF)


def read(folder: Path, policy: str, campaign: str) -> Log:
    """The log of a policy in a campaign, by time."""
    place = folder / policy / campaign
    for name in (f"{campaign}.csv", "item_context.csv"):
        if not (place / name).is_file():
            raise SourceError(f"{place / name}: no such file; --obd needs Open Bandit's folders as they are unpacked")
    with (place / f"{campaign}.csv").open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["timestamp"])
    with (place / "item_context.csv").open(newline="") as file:
        items = sorted(csv.DictReader(file), key=lambda row: int(row["item_id"]))
    users = [name for name in rows[0] if name.startswith("user_feature")]
    dummies = [
        np.array([[row[name] == kind for kind in sorted({one[name] for one in rows})[1:]] for row in rows], float)
        for name in users
    ]
    columns = []
    for name in ("item_feature_1", "item_feature_2", "item_feature_3"):
        kinds = sorted({item[name] for item in items})
        columns.append([float(kinds.index(item[name])) for item in items])
    columns.append([float(item["item_feature_0"]) for item in items])
    position = np.array([int(row["position"]) for row in rows])
    return Log(
        np.array([int(row["item_id"]) for row in rows]),
        np.unique(position, return_inverse=True)[1],
        np.array([float(row["click"]) for row in rows]),
        np.array([float(row["propensity_score"]) for row in rows]),
        np.concatenate(dummies, axis=1),
        np.array(columns).T,
    )


def thompson(campaign: str, draws: int = DRAWS, seed: int = 0) -> Floats:
    """(A, K) probability of each item at each position under Bernoulli Thompson sampling with production priors."""
    prior = json.loads(PRIORS.read_text())[campaign]
    alpha_A, beta_A = np.array(prior["alpha"]), np.array(prior["beta"])
    rng, count_AK = np.random.default_rng(seed), np.zeros((alpha_A.size, SLOTS))
    for _ in range(draws // 10_000):
        theta = rng.beta(alpha_A, beta_A, size=(10_000, alpha_A.size))
        top = np.argpartition(-theta, SLOTS, axis=1)[:, :SLOTS]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(theta, top, 1), axis=1), 1)
        for slot in range(SLOTS):
            count_AK[:, slot] += np.bincount(top[:, slot], minlength=alpha_A.size)
    return count_AK / count_AK.sum(axis=0)


def rounds_of(log: Log, target_AK: Floats, seed: int, row_N: Ints | None = None) -> Rounds:
    """Rounds with a cross-fitted reward model; `row_N`: which round of the whole log each one is a copy of."""
    n = log.item_N.size
    row_N = np.arange(n) if row_N is None else row_N
    folds = (np.random.default_rng(seed).permutation(row_N.max() + 1) % FOLDS)[row_N]
    taken_N, aimed_N = np.zeros(n), np.zeros(n)
    users, kind_N = np.unique(log.user_NF, axis=0, return_inverse=True)
    for fold in range(FOLDS):
        for place in range(SLOTS):
            learn = np.flatnonzero((folds != fold) & (log.place_N == place))
            held = np.flatnonzero((folds == fold) & (log.place_N == place))
            x_NF = np.concatenate([log.user_NF[learn], log.item_AF[log.item_N[learn]]], axis=1)
            model = RewardModel.tuned(x_NF, log.click_N[learn], row_N[learn])
            said_GA = model.predict(_pairs(users, log.item_AF))
            taken_N[held] = said_GA[kind_N[held], log.item_N[held]]
            aimed_N[held] = (said_GA @ target_AK[:, place])[kind_N[held]]
    return Rounds(log.click_N, log.propensity_N, target_AK[log.item_N, log.place_N], taken_N, aimed_N)


def _pairs(users: Floats, item_AF: Floats) -> Floats:
    """(G, A, F) features of every user kind with every item."""
    shape = (len(users), len(item_AF))
    return np.concatenate(
        [
            np.broadcast_to(users[:, None], (*shape, users.shape[1])),
            np.broadcast_to(item_AF, (*shape, item_AF.shape[1])),
        ],
        axis=2,
    )


def slot_log(log: Log) -> SlotLog:
    """Every impression as a page of one slot."""
    n = log.item_N.size
    names = tuple(f"r{at}" for at in range(n))
    return SlotLog(
        np.arange(n), log.place_N + 1, log.item_N, log.propensity_N, np.zeros(n, bool), log.click_N, np.arange(n),
        names, tuple(str(at) for at in range(len(log.item_AF))), names, 0, 0,
    )  # fmt: skip


def print_obd(folder: Path, params: OpeParams) -> None:
    """The relative value, the estimators' errors, and the gate's verdicts on all six logs."""
    log, target_AK = read(folder, "random", "all"), thompson("all")
    truth, base = (float(read(folder, policy, "all").click_N.mean()) for policy in ("bts", "random"))
    whole = rounds_of(log, target_AK, 0)
    print(
        f"real: Open Bandit, campaign all, random log of {log.item_N.size:,} rounds with {log.click_N.sum():.0f} clicks"
    )
    value = float(ESTIMATORS["IPS"](whole).mean())
    print(f"IPW of Bernoulli Thompson (production priors), relative to random: {value / base:.3f} (published 1.198)")
    errors: dict[str, list[float]] = {name: [] for name in ESTIMATORS if name != "replay"}
    for run in range(BOOTSTRAPS):
        # The authors' own bootstraps, so that their figures and these are about the same samples.
        rows = np.random.RandomState(run).choice(np.arange(log.item_N.size), log.item_N.size)
        rounds = rounds_of(log.take(rows), target_AK, run, rows)
        for name, found in errors.items():
            values = ESTIMATORS[name](rounds) if name != "Switch-DR" else _switch(rounds)
            found.append(abs(float(values.mean()) - truth) / truth)
    print(f"relative error over {BOOTSTRAPS} bootstraps against {truth:.4f} clicks a round where the policy served")
    for name, found in errors.items():
        published = f"{PUBLISHED[name]:.3f}" if name in PUBLISHED else "-"
        print(f"  {name:14} {np.mean(found):.3f} (sd {np.std(found):.3f})   published {published}")
    for policy in ("random", "bts"):
        for campaign in CAMPAIGNS:
            one = read(folder, policy, campaign)
            aim = thompson(campaign) if policy == "random" else np.full((len(one.item_AF), SLOTS), 1 / len(one.item_AF))
            told = judge(slot_log(one), aim[one.item_N, one.place_N], params)
            target = "bts" if policy == "random" else "random"
            snips = estimate(ESTIMATORS["SNIPS"](Rounds(one.click_N, one.propensity_N, aim[one.item_N, one.place_N])))
            print(f"gate, {target} on the log of {policy}/{campaign}: {told.verdict}: {'; '.join(told.reasons)} "
                  f"(SNIPS {snips.mean:.4f} [{snips.low:.4f}, {snips.high:.4f}])")  # fmt: skip


def _switch(rounds: Rounds) -> Floats:
    from models.ope.estimators import switch

    return switch(rounds, TAU)
