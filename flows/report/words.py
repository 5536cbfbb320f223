"""The report's sentences: the verdict, the question, what the data cannot teach, what nobody checked, what to type.

Choices. A figure alone does not say what follows from it, so each of these is a sentence made from the facts, and each
says "cannot be told apart" where the interval holds zero. The list of what was not checked is part of the result: a
reviewer who has to guess it cannot decide.
"""

from __future__ import annotations

import shlex
from datetime import datetime, timedelta
from typing import Any

from flows.report import policy
from models.gate import CANNOT_TELL, ORDERS, PASS

Json = dict[str, Any]
DECIDING = "ndcg@10"
FEW = 30  # users; of fewer no bootstrap is to be believed
LABELS = {
    "challenger": "challenger",
    "champion": "champion",
    "own_counts": "user's own counts",
    "item_knn": "ItemKNN",
    "lightgbm": "LightGBM on the same features",
    "popular": "popular",
    "recently_popular": "recently popular",
    "counting": "counting alone",
    "without_sequence": "without the sequence network",
}
METRICS = {
    "ndcg@10": "NDCG@10",
    "recall@10": "Recall@10",
    "new_ndcg@10": "NDCG@10, new items",
    "hit_rate@10": "Hit rate@10",
    "precision@10": "Precision@10",
    "mrr@10": "MRR@10",
    "map@10": "MAP@10",
}
AGAINST_CHAMPION = "NDCG@10 against champion"
DAY = timedelta(days=1)
NO_RUN = "RUN"  # stands for the run's id in a report that must not name it
CANNOT_TEACH = {
    "views and carts": "No views or carts: the order of browsing cannot be learned, only that of purchases.",
    "impressions with positions": (
        "No impressions: what was shown and passed over is unknown, so clicks, the effect of a position and the page"
        " policy cannot be learned. The probabilities in this report are of a purchase on the next visit, and the"
        " decline over positions that the service uses is an assumption."
    ),
    "propensities": "No propensities: no other policy can be judged from this log.",
}


def label(name: str) -> str:
    """A model's name for readers."""
    return LABELS.get(name, name.replace("_", " "))


def estimate(value: Json) -> str:
    """0.338 [0.324, 0.352]"""
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def difference(value: Json) -> str:
    """+0.024 [+0.018, +0.030]"""
    return f"{value['mean']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]"


def of(facts: Json) -> Json:
    """All sentences."""
    return {
        "verdict": _verdict(facts),
        "decides": "the off-policy proof decides" if policy.proof(facts) else "the yardsticks decide",
        "scores": _scores(facts),
        "question": _question(facts),
        "tie": _tie(facts),
        "against": [
            _against(one, policy.proof(facts) is not None)
            for one in facts["models"]
            if one["name"] in ("champion", "lightgbm")
        ],
        "sequence": _sequence(facts),
        "cannot_teach": [_cannot_teach(one) for one in _shut(facts) if one["name"] in CANNOT_TEACH],
        "policy": policy.sentences(facts),
        "not_checked": _not_checked(facts),
        "commands": _commands(facts),
    }


def _cannot_teach(tier: Json) -> str:
    """What is missing for good where there is nothing; how little there is where there is some."""
    if tier["why"].startswith("0"):
        return CANNOT_TEACH[tier["name"]]
    return f"Too little of {tier['name']} for {tier['allows']}: {tier['why']}."


def _named(facts: Json, name: str) -> Json | None:
    return next((one for one in facts["models"] if one["name"] == name), None)


def _shut(facts: Json) -> list[Json]:
    return [tier for tier in facts["data"]["tiers"] if not tier["open"]]


def _verdict(facts: Json) -> str:
    rules, failed = len(facts["gates"]), [gate["rule"] for gate in facts["gates"] if gate["verdict"] != PASS]
    if not failed:
        few = sum(not gate["judged"] for gate in facts["gates"])
        idle = f" ({few} of them not judged: too few users)" if few else ""
        decided = "the off-policy proof" if policy.proof(facts) else "the yardsticks"
        kind = f", as a first model (there is no champion; {decided} decided)"
        return (
            f"Pass{kind if facts['verdict']['kind'] == 'bootstrap' else ''}: all {rules} rules of the gate hold{idle}."
        )
    said = "Cannot tell, which is a refusal" if facts["verdict"]["verdict"] == CANNOT_TELL else "Refused"
    return f"{said}: {len(failed)} of {rules} rules of the gate did not hold ({', '.join(failed)})."


def _scores(facts: Json) -> str:
    """The deciding metric beside the champion's, or beside the strongest rival's where there is none."""
    rivals = [one for one in facts["models"] if one["name"] not in ("challenger", "counting", "without_sequence")]
    beside = _named(facts, "champion") or max(rivals, key=lambda one: float(one["metrics"][DECIDING]["mean"]))
    mine = facts["models"][0]["metrics"][DECIDING]
    lists = (
        f"on the next visits of {facts['users']:,} users, none of which it learned from, its NDCG@10 is"
        f" {estimate(mine)}; that of {beside['label']} is {estimate(beside['metrics'][DECIDING])}; paired difference"
        f" {difference(beside['challenger_minus'][DECIDING])}."
    )
    proof, order = policy.proof(facts), facts["policy"]["learned"].get("against")
    if proof is None:
        return f"O{lists[1:]}"
    said = f"Value of a page against the logging policy: {proof['verdict']}, {'; '.join(proof['reasons'])}. "
    if order:
        rival = ORDERS[policy.rival(facts["policy"]["learned"])]
        said += f"Order of what was shown against {rival}: {order['verdict']}, {'; '.join(order['reasons'])}. "
    return f"{said}Told, not judged, since what is clicked next follows what was shown: {lists}"


def _question(facts: Json) -> str:
    if facts["verdict"]["verdict"] == PASS:
        if facts["champion"] is None:
            return "May this model become the first champion and meet shoppers?"
        return f"May this model replace the champion {facts['champion']}?"
    if tied(facts):
        return "Wait for more evidence, or take the fresher model on a person's word?"
    return "Is the data or the model at fault? There is nothing to promote; what serves now goes on serving."


def tied(facts: Json) -> Json | None:
    """The comparison with the champion, where it is all that is undecided: neither data nor model is at fault then."""
    open_ = [gate for gate in facts["gates"] if gate["verdict"] != PASS]
    if [gate["rule"] for gate in open_] != [AGAINST_CHAMPION] or open_[0]["verdict"] != CANNOT_TELL:
        return None
    gate: Json = open_[0]
    return gate if gate["low"] <= 0 <= gate["high"] else None


def _tie(facts: Json) -> list[str]:
    """What a tie means, what would decide it, and who may go on all the same; empty where there is none."""
    gate = tied(facts)
    if gate is None:
        return []
    run = NO_RUN if facts["run"] is None else facts["run"]["run"]
    slice_ = facts["windows"][-1]
    length = datetime.fromisoformat(slice_["until"]) - datetime.fromisoformat(slice_["from"])
    return [
        f"The challenger and the champion {facts['champion']} cannot be told apart: NDCG@10 {difference(gate)}, an"
        " interval around 0. Nothing else stands against the challenger.",
        "The champion stays, and keeps learning live from what shoppers do.",
        f"What would decide it: a longer gate slice (split.gate_days in params.yaml; here {length / DAY:.1f} days of"
        f" {facts['users']:,} users), or more data.",
        f"A named person may still promote the fresher one: {_override(run)}. It stays on record.",
    ]


def _override(run: str) -> str:
    return f'homeranker promote {run} --override --by "NAME" --why "TEXT"'


def _against(one: Json, only_told: bool) -> str:
    """Whether the challenger beats a rival, in words."""
    value = one["challenger_minus"][DECIDING]
    if value["users"] < FEW:
        users = "one user is" if value["users"] == 1 else f"{value['users']} users are"
        return f"Whether the challenger beats {one['label']}: {users} too few to say."
    if only_told and value["low"] <= 0:
        place = "behind" if value["high"] < 0 else "not surely ahead of"
        return f"In lists of next visits, which do not decide here, it is {place} {one['label']}: {difference(value)}."
    if value["low"] > 0:
        return f"The challenger beats {one['label']}: NDCG@10 {difference(value)}."
    if value["high"] < 0:
        return f"The challenger DOES NOT beat {one['label']}, it is worse: NDCG@10 {difference(value)}."
    return f"The challenger does not beat {one['label']}: the two cannot be told apart, NDCG@10 {difference(value)}."


def _sequence(facts: Json) -> str:
    if not facts["training"]["sequence_kept"]:
        return "The sequence network is not part of this model: counting and the ranker's features carry it alone."
    without = _named(facts, "without_sequence")
    if without is not None:
        value = without["challenger_minus"][DECIDING]
        sure = "surely helps" if value["low"] > 0 else "surely harms" if value["high"] < 0 else "adds nothing certain"
        return f"The sequence network is part of this model and {sure}: NDCG@10 {difference(value)} with it."
    return (
        "The sequence network is part of this model, as a source of candidates and as features of the ranker. What it"
        " adds alone was not measured in this run."
    )


def _not_checked(facts: Json) -> list[str]:
    data, training = facts["data"], facts["training"]
    told = ["How shoppers answer: everything here is measured on a past log, nothing on live traffic."]
    if facts["simulated"]:
        told.append("Any real shop: all of this data is simulated.")
    told.append(
        f"The very model that {policy.ships(facts)}: it keeps the judged weights, over counts and statistics refreshed"
        " up to the end of the data; no later data is left to judge it on."
    )
    told.append(
        "The page as composed: what is judged is the ranker's own top 10. What modules, diversity and exploration cost"
        " or bring on top of it was not measured."
    )
    told.append("The joint error of all rules: each bound is for its own rule, without correction for their number.")
    told += [f"What {tier['name']} would teach ({tier['allows']}): {tier['why']}." for tier in _shut(facts)]
    if not data["freshness_judged"]:
        told.append(
            "Freshness and future dates: the run names no day of loading (data.as_of), so the newest event counts as"
            " now and the rule on age says nothing."
        )
    if not data["compared_with_run"]:
        told.append(
            "Drift against an accepted run: there is none yet. The measures of drift compare the newest week with the"
            " days before it in the same data."
        )
    if data["guests"]:
        told.append(
            f"Guests: {data['guests']:,} events without a user feed counts, but no guest is among the judged users."
        )
    small = [one for one in facts["segments"] if one["mean"] is None]
    told += [f"Segment {one['name']}: {one['users']} users are too few to say." for one in small]
    if not training["calibration"]["judged"]:
        told.append("Calibration: there was nothing to fit it on; the probabilities are a default.")
    elif not training["calibration"]["bins"]:
        told.append("The shape of calibration: only its mean error is stored, so there is no plot of it.")
    if training["sequence_kept"] and _named(facts, "without_sequence") is None:
        told.append("What the sequence network adds alone.")
    if facts["champion_note"]:
        told.append(f"The champion: {facts['champion_note']}.")
    told.append("Latency under load, titles and pictures of items, fairness between groups of people.")
    return told


def _again(facts: Json) -> str:
    """The command that makes such a run once more, on the same data."""
    run = facts["run"] or {}
    given = {"--data": run.get("data"), "--until": run.get("until")}
    return " ".join(["homeranker retrain", *(f"{name} {shlex.quote(word)}" for name, word in given.items() if word)])


def _commands(facts: Json) -> list[Json]:
    """What to type, and what it does."""
    run = NO_RUN if facts["run"] is None else facts["run"]["run"]
    verify = {"does": "Recompute every hash of this run", "type": f"homeranker verify {run}"}
    if facts["verdict"]["verdict"] != PASS:
        fresher = [{"does": "Take the fresher one all the same, under your name", "type": _override(run)}]
        return [
            *(fresher if tied(facts) else []),
            {"does": "See which runs there are and what serves", "type": "homeranker status"},
            verify,
            {"does": "After the data or params.yaml were corrected", "type": _again(facts)},
        ]
    return [
        {"does": "Yes: make it the champion (services take it within 30 s)", "type": f"homeranker promote {run}"},
        {"does": "No: write down why", "type": f'homeranker reject {run} --by "NAME" --why "TEXT"'},
        {
            "does": "Where approval is required, before promote",
            "type": f'homeranker approve {run} --by "NAME" --why "TEXT"',
        },
        verify,
        {"does": "Undo a promotion", "type": "homeranker rollback"},
    ]
