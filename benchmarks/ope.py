"""Off-policy evaluation against known truth, and on the Open Bandit Dataset.

    python -m benchmarks.ope                       coverage, gate and faults, all simulated
    python -m benchmarks.ope --coverage [--runs N] how often each 95 % interval covers the truth
    python -m benchmarks.ope --gate [--runs N]     how often better, equal and worse policies pass
    python -m benchmarks.ope --faults              planted faults and the reason of each refusal
    python -m benchmarks.ope --obd DIR             real: Bernoulli Thompson on the random logs, and back
    python -m benchmarks.ope --log DIR             a directory of canonical tables: is its log fit for any of this?

DIR of --obd holds `random/all/all.csv` and so on, as in the obp package.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.command import finish
from benchmarks.ope_obd import print_obd
from benchmarks.ope_shop import Corner, Sample
from models.ope import ESTIMATORS, OpeParams, Rounds, SlotLog, compare, estimate, faults, judge
from models.ope.estimators import CLAIMS_COVERAGE, Floats
from models.ope.regression import cross_fitted
from models.ope.slates import ASSUMES, cascade_dr, iips, rips, sips

PAGES = 4_000
IMPRESSIONS = 50_000
ORDERED = 2_500  # pages that judge in a retrain
BROKEN = {
    "": "every assumption holds",
    "cascade": "shoppers leave after a click",
    "page": "the last slot lifts the first",
}


def slot_rounds(corner: Corner, sample: Sample, logging_BPK: Floats, target_BPK: Floats, seed: int) -> Rounds:
    """The first slots as rounds, with a cross-fitted reward model that knows item popularity alone."""
    at = (sample.context_N, sample.page_N)
    item_N = corner.page_PK[sample.page_N, 0]
    liked_BC1 = np.stack([corner.popular_BC, corner.popular_BC**2], axis=2)
    first_BC = corner.marginals(target_BPK)[:, 0]
    taken_N, aimed_N = np.zeros(len(item_N)), np.zeros(len(item_N))
    x_NF = liked_BC1[sample.context_N, item_N]
    for held, model in cross_fitted(x_NF, sample.click_NK[:, 0], 3, seed):
        said_BC = model.predict(liked_BC1)
        taken_N[held] = said_BC[sample.context_N[held], item_N[held]]
        aimed_N[held] = (said_BC * first_BC).sum(axis=1)[sample.context_N[held]]
    return Rounds(sample.click_NK[:, 0], logging_BPK[at][:, 0], target_BPK[at][:, 0], taken_N, aimed_N)


def coverage(runs: int, effect: str = "", pages: int = PAGES, seed: int = 0) -> dict[str, float]:
    """Estimator -> share of the runs in which the 95 % interval holds the truth."""
    corner = Corner(effect=effect, seed=seed)
    logging, target = 0.5 * corner.popular_BC, 0.8 * np.log(corner.attract_BC)
    log_BPK, aim_BPK = corner.slot_probabilities(logging), corner.slot_probabilities(target)
    ratio_BKC = corner.marginals(aim_BPK) / corner.marginals(log_BPK)
    truth = corner.value(aim_BPK)
    click_BPK = corner.expected_clicks()
    first = float((aim_BPK.prod(axis=2) * click_BPK[..., 0]).sum(axis=1).mean())
    best_BC = (corner.popular_BC == corner.popular_BC.max(axis=1, keepdims=True)).astype(float)
    flat_BPK = corner.slot_probabilities(np.zeros_like(logging))
    best = float((corner.attract_BC * best_BC).sum(axis=1).mean() * corner.look_K[0])
    hits: dict[str, list[bool]] = {}
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        sample = corner.draw(log_BPK, pages, rng)
        at = (sample.context_N, sample.page_N)
        weight_NK = aim_BPK[at] / log_BPK[at]
        place_NK = corner.page_PK[sample.page_N]
        marginal_NK = ratio_BKC[sample.context_N[:, None], np.arange(corner.slots), place_NK]
        said = {"SIPS": sips(sample.click_NK, weight_NK), "RIPS": rips(sample.click_NK, weight_NK)}
        said["IIPS"] = iips(sample.click_NK, marginal_NK)
        said["cascade-DR"] = cascade_dr(sample.click_NK, weight_NK, *_to_come(corner, sample, aim_BPK))
        for name, value_N in said.items():
            found = estimate(value_N)
            hits.setdefault(name, []).append(found.low <= truth <= found.high)
        rounds = slot_rounds(corner, sample, log_BPK, aim_BPK, run)
        for name, value in ESTIMATORS.items():
            if name != "replay":
                found = estimate(value(rounds))
                hits.setdefault(name, []).append(found.low <= first <= found.high)
        even = corner.draw(flat_BPK, pages, rng)
        item_N = corner.page_PK[even.page_N, 0]
        same = Rounds(even.click_NK[:, 0], np.full(pages, 1 / 8), best_BC[even.context_N, item_N])
        found = estimate(ESTIMATORS["replay"](same))
        hits.setdefault("replay", []).append(found.low <= best <= found.high)
    return {name: float(np.mean(hit)) for name, hit in hits.items()}


def _to_come(corner: Corner, sample: Sample, aim_BPK: Floats) -> tuple[Floats, Floats]:
    """A rough model of the clicks from each slot on: popularity of what is left, under the target."""
    liked_BC = 0.1 / (1 + np.exp(-corner.popular_BC + corner.popular_BC.mean()))
    place_NK = corner.page_PK[sample.page_N]
    taken_NK = liked_BC[sample.context_N[:, None], place_NK] + 0.05
    weight_BC = np.exp(0.8 * np.log(corner.attract_BC))
    left_NC = weight_BC[sample.context_N].copy()
    aimed_NK = np.zeros_like(taken_NK)
    rows = np.arange(len(left_NC))
    for slot in range(corner.slots):
        aimed_NK[:, slot] = (left_NC * liked_BC[sample.context_N]).sum(axis=1) / left_NC.sum(axis=1) + 0.05
        left_NC[rows, place_NK[:, slot]] = 0.0
    return taken_NK, aimed_NK


def mixture(corner: Corner, change: float) -> tuple[Floats, Floats, Floats]:
    """(utilities, logging, target) of single slots, the target worth 1 + `change` of the logging policy, exactly."""
    logging = 0.5 * corner.popular_BC
    log_BPK = corner.slot_probabilities(logging)
    good, bad = (corner.slot_probabilities(sign * 1.5 * np.log(corner.attract_BC)) for sign in (1.0, -1.0))
    base = corner.value(log_BPK)

    def blend(up: float, down: float) -> Floats:
        return (1 - up - down) * log_BPK + up * good + down * bad

    # An equal policy is another one: as much of the better as makes up for a fifth of the worse.
    down = 0.2 if change <= 0 else 0.0
    lost = down * (base - corner.value(bad))
    up = (change * base + lost) / (corner.value(good) - base)
    if up < 0:
        down, up = -change * base / (base - corner.value(bad)), 0.0
    return logging, log_BPK, blend(up, down)


def _shares(told: list[str]) -> dict[str, float]:
    return {verdict: told.count(verdict) / len(told) for verdict in ("pass", "cannot tell", "refuse")}


def gate(change: float, runs: int, impressions: int = IMPRESSIONS, seed: int = 0) -> dict[str, float]:
    """Shares of verdicts over the runs, of a policy worth 1 + `change` of the logging one."""
    corner = Corner(slots=1, seed=seed)
    utility, log_BPK, aim_BPK = mixture(corner, change)
    told = []
    for run in range(runs):
        sample = corner.draw(log_BPK, impressions, np.random.default_rng([seed, 7, run]))
        log = corner.log(sample, log_BPK, utility)
        told.append(judge(log, aim_BPK[sample.context_N, sample.page_N].ravel()).verdict)
    return _shares(told)


def order_gate(change: float, runs: int, steep: float = 1.0, pages: int = ORDERED, seed: int = 0) -> dict[str, float]:
    """Shares of verdicts by the order of what was shown, of an order worth 1 + `change` of the served one, exactly.

    The order is that of the truth on some pages and its reverse on the others. `steep`: the looks that the test
    believes in are the true ones to this power.
    """
    corner = Corner(slots=4, seed=seed)
    served, true = 0.5 * corner.popular_BC, corner.attract_BC
    log_BPK = corner.slot_probabilities(served)

    def worth(score_BC: Floats) -> float:
        order_BPK = np.argsort(-score_BC[:, corner.page_PK], axis=2)
        true_BPK = np.take_along_axis(true[:, corner.page_PK], order_BPK, axis=2)
        return float((log_BPK.prod(axis=2) * (true_BPK * corner.look_K).sum(axis=2)).sum(axis=1).mean())

    right = ((1 + change) * worth(served) - worth(-true)) / (worth(true) - worth(-true))
    assert 0 <= right <= 1, f"no order is worth {change:+.0%}"  # noqa: S101 - asked of a benchmark
    look_S = np.concatenate([[1.0], corner.look_K**steep])
    params, told = OpeParams(alpha=OpeParams.alpha / 2), []  # half of the error: the weights have the other half
    for run in range(runs):
        rng = np.random.default_rng([seed, 8, run])
        sample = corner.draw(log_BPK, pages, rng)
        at = (sample.context_N[:, None], corner.page_PK[sample.page_N])
        sign_N1 = np.where(rng.random(pages) < right, 1.0, -1.0)[:, None]
        log = corner.log(sample, log_BPK, served)
        told.append(compare(log, (sign_N1 * true[at]).ravel(), served[at].ravel(), look_S, params, 0.0).verdict)
    return _shares(told)


def spoilt(kind: str, pages: int = 20_000, seed: int = 0) -> tuple[SlotLog, Floats]:
    """A log of the corner with a planted fault, and the target's probabilities of its slots."""
    corner = Corner(slots=4, seed=seed)
    utility, rng = 0.5 * corner.popular_BC, np.random.default_rng([seed, 3])
    log_BPK = corner.slot_probabilities(utility)
    aim_BPK = 0.7 * log_BPK + 0.3 * corner.slot_probabilities(0.8 * np.log(corner.attract_BC))
    sample = corner.draw(log_BPK, pages, rng)
    log = corner.log(sample, log_BPK, utility)
    target_N = aim_BPK[sample.context_N, sample.page_N].ravel()
    fields = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in vars(log).items()}
    if kind == "re-rank after sampling":
        place_NK = corner.page_PK[sample.page_N]
        order = np.argsort(-utility[sample.context_N[:, None], place_NK], axis=1) + np.arange(pages)[:, None] * 4
        for name in ("item_N", "propensity_N", "explored_N"):
            fields[name] = fields[name][order.ravel()]
        target_N = target_N[order.ravel()]
    elif kind == "rules swap after sampling":
        swapped_N = (rng.random(log.item_N.size) < 0.08) & (log.position_N == 2)
        fields["item_N"][swapped_N], fields["explored_N"][swapped_N] = log.item_N[0], True
        target_N[swapped_N] = 0.0  # hardly anybody's candidate
    elif kind == "duplicated rows":
        twice = np.concatenate([np.arange(log.item_N.size), np.arange(4 * pages // 20)])
        fields = {n: v[twice] if n.endswith("_N") else v for n, v in fields.items()}
        fields["page_N"][log.item_N.size :] += pages
        fields["request_ids"] = (*log.request_ids, *(f"again{at}" for at in range(pages // 20)))
        target_N = target_N[twice]
    elif kind == "bots":
        bot = np.arange(4 * 200)
        fields["reward_N"][bot] = rng.random(bot.size) < 0.9
        fields["who_N"][bot] = 0
    elif kind == "clipped 1e-6 propensity":
        fields["propensity_N"][4_000] = 1e-6
    return SlotLog(**fields), target_N


FAULTS = (
    "none", "re-rank after sampling", "rules swap after sampling", "duplicated rows", "bots", "clipped 1e-6 propensity",
)  # fmt: skip


def print_coverage(runs: int) -> None:
    """A column for each broken assumption."""
    columns = {effect: coverage(runs, effect) for effect in BROKEN}
    print(f"simulated: share of {runs} runs of {PAGES:,} pages in which the 95 % interval covers the truth")
    print(f"{'estimator':14}" + "".join(f"{title:>32}" for title in BROKEN.values()) + "  assumes")
    for name in columns[""]:
        claim = ASSUMES.get(name, "" if name in CLAIMS_COVERAGE else "claims no coverage: biased on purpose")
        print(f"{name:14}" + "".join(f"{column[name]:>32.3f}" for column in columns.values()) + f"  {claim}")


def print_gate(runs: int) -> None:
    """Verdicts of policies whose value is known."""
    print(f"simulated: verdicts over {runs} runs of {IMPRESSIONS:,} impressions")
    for change in (-0.1, 0.0, 0.1, 0.3):
        shares = gate(change, runs)
        print(f"{change:+5.0%}  " + "  ".join(f"{name} {share:6.1%}" for name, share in shares.items()))
    print(f"simulated: the second chance of a first policy, over {runs} runs of {ORDERED:,} pages of four")
    for steep, looks in ((1.0, "looks as they are"), (1.5, "looks that fall too steeply")):
        for change in (-0.1, 0.0, 0.05):
            shares = order_gate(change, runs, steep)
            told = "  ".join(f"{name} {share:6.1%}" for name, share in shares.items())
            print(f"order {change:+5.0%}, {looks}: {told}")


def print_faults() -> None:
    """Each planted fault and what the gate says of it."""
    for kind in FAULTS:
        told = judge(*spoilt(kind))
        print(f"simulated, planted: {kind}: {told.verdict}: {'; '.join(told.reasons)}")


def print_log(folder: Path) -> None:
    """Faults of a log, and the verdict on the uniform policy over its candidates."""
    from features.tables import read_table

    slates = read_table(folder, "slates")
    log = SlotLog.from_tables(slates, read_table(folder, "events"))
    found = faults(log)
    print(json.dumps({"pages": log.pages, "slots": log.item_N.size, "left out": log.left_out,
                      "faults": [fault.to_json() for fault in found]}, indent=1))  # fmt: skip


def main() -> None:
    """Parse the command line and print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("coverage", "gate", "faults"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--runs", type=int, default=None)
    parser.add_argument("--obd", type=Path, help="directory of the Open Bandit Dataset")
    parser.add_argument("--log", type=Path, help="directory of canonical tables")
    args = parser.parse_args()
    everything = not (args.coverage or args.gate or args.faults or args.obd or args.log)
    if args.coverage or everything:
        print_coverage(args.runs or 500)
    if args.gate or everything:
        print_gate(args.runs or 300)
    if args.faults or everything:
        print_faults()
    if args.obd:
        print_obd(args.obd, OpeParams())
    if args.log:
        print_log(args.log)


if __name__ == "__main__":
    finish(main)
