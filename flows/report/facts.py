"""What the report knows: every figure of a run's artifacts, read once and put into the order in which it is shown.

Choices. The page, the Markdown and report.json are three views of one dictionary, so that they cannot differ. Without
`RunFacts` it holds nothing that a second run of the same commit and data would tell otherwise. What a stage did not
write is absent here and named under "not checked", never filled in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from features.schema import Slates
from flows.graph import STAGES
from flows.paths import Artifacts
from flows.report import words
from flows.stages.load import read_json
from models.gate import PASS
from models.homepage import utc
from models.policy.plackett_luce import PlackettLuce, PlackettLuceParams
from serving.params import ServingParams, load_settings

Json = dict[str, Any]
DECIDING, CHALLENGER, SIMULATED = "ndcg@10", "challenger", "simulated"
METRIC_ORDER = ("ndcg@10", "recall@10", "new_ndcg@10", "hit_rate@10", "precision@10", "mrr@10", "map@10")
SHOWN_ALWAYS = ("drift:", "volume:", "unit:", "freshness")
COMPARED = (*SHOWN_ALWAYS, "nulls:", "in-set:")
AGAINST = re.compile(r"NDCG@10 against (\w+)$")
SEGMENT = "segment "


@dataclass(frozen=True)
class RunFacts:
    """What a run knows of itself and its bytes must not: who, when, how long, how it was tried.

    `costs`: stage to {"seconds", "peak_mb"}; a stage that is absent came from the cache. `smoke`: what the started
    Bento answered, figure by figure. `champion`: its version, None where there is none.
    """

    run: str
    started_at: str
    by: str
    why: str
    commit: str
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    smoke: Mapping[str, Any] = field(default_factory=dict)
    champion: str | None = None
    data: str | None = None  # as --data was given
    until: str | None = None
    total_seconds: float | None = None


def collect(artifacts: Artifacts, run: RunFacts | None = None) -> Json:
    """All facts of a run; ArtifactError names the artifact that is missing and what writes it."""
    metrics = read_json(artifacts.evaluation / "metrics.json")
    verdict = read_json(artifacts.verdict)
    evidence = read_json(artifacts.evaluation / "evidence.json")
    told = read_json(artifacts.package / "model" / "manifest.json")
    told_run = None if run is None else asdict(run)
    facts: Json = {
        "data_name": told["data"],
        "simulated": told["data"] == SIMULATED,
        "run": told_run,
        "champion": evidence["champion"],
        "champion_note": evidence["champion_note"],
        "users": metrics["users"],
        "users_with_new_items": metrics["users_with_new_items"],
        "models": _models(metrics),
        "verdict": {key: verdict[key] for key in ("verdict", "kind", "reasons")},
        "gates": [_gate(check, metrics) for check in verdict["checks"]],
        "windows": _windows(artifacts),
        "training": _training(artifacts, metrics, evidence),
        "data": _data(artifacts, verdict["kind"]),
        "policy": _policy(artifacts),
        "pages": [_page(page) for page in read_json(artifacts.evaluation / "pages.json")],
        "cost": _cost(run),
        "lineage": read_json(artifacts.package / "manifest.json"),
    }
    facts["segments"] = _segments(facts["gates"], metrics)
    facts["words"] = words.of(facts)
    return facts


def _models(metrics: Json) -> list[Json]:
    """The challenger, the champion, then the others from the best down."""
    found = []
    for name, values in metrics["models"].items():
        one = {"name": name, "label": words.label(name), **values}
        one["metrics"] = {metric: values["metrics"][metric] for metric in METRIC_ORDER}
        found.append(one)
    first = (CHALLENGER, "champion")
    return sorted(
        found,
        key=lambda one: (
            first.index(one["name"]) if one["name"] in first else len(first),
            -one["metrics"][DECIDING]["mean"],
            one["name"],
        ),
    )


def _gate(check: Json, metrics: Json) -> Json:
    """A rule with, where it is a comparison, both sides' values, the mean difference and the margin.

    `judged` false: a segment of too few users, which the gate lets pass and nobody may read as held.
    """
    judged = not (check["rule"].startswith(SEGMENT) and check["low"] is None)
    told = {
        **check,
        "judged": judged,
        "mean": None,
        "margin": None,
        "challenger": None,
        "other": None,
        "other_name": None,
    }
    if check["low"] is None:
        return told
    told["mean"] = float(check["observed"].split(" ", 1)[0])
    margin = re.search(r"[+-]\d+\.\d+", check["limit"])
    told["margin"] = None if margin is None else float(margin.group())
    against = AGAINST.match(check["rule"])
    if against is not None:
        values = {name: one["metrics"][DECIDING]["mean"] for name, one in metrics["models"].items()}
        name = against.group(1)
    else:
        segment = metrics["segments"].get(check["rule"].removeprefix(SEGMENT), {})
        values = {name: one["mean"] for name, one in segment.items()}
        beside = re.search(r"against (\w+),", check["observed"])
        name = "" if beside is None else beside.group(1)
    told |= {"challenger": values.get(CHALLENGER), "other": values.get(name), "other_name": words.label(name)}
    return told


def _segments(gates: list[Json], metrics: Json) -> list[Json]:
    """Worst difference first; segments too small to be judged last."""
    found = []
    for gate in gates:
        if gate["rule"].startswith(SEGMENT):
            name = gate["rule"].removeprefix(SEGMENT)
            values = metrics["segments"][name]
            found.append({**gate, "name": name, "values": values, "users": values[CHALLENGER]["users"]})
    return sorted(found, key=lambda one: (one["mean"] is None, one["mean"] or 0.0, one["name"]))


def _windows(artifacts: Artifacts) -> list[Json]:
    """What was learned from, what tuned it, what judged it: dates and shares of the time between."""
    told = read_json(artifacts.features / "windows.json")
    moments = [told[name] for name in ("start_us", "tune_cut_us", "gate_cut_us", "end_us")]
    whole = max(moments[-1] - moments[0], 1)
    names = ("train", "tune", "gate")
    return [
        {"name": name, "from": utc(start), "until": utc(end), "share": (end - start) / whole}
        for name, start, end in zip(names, moments, moments[1:], strict=False)
    ]


def _training(artifacts: Artifacts, metrics: Json, evidence: Json) -> Json:
    """Curves, calibration, and whether the judged model holds a sequence network."""
    curves = read_json(artifacts.model / "curves.json")
    config = read_json(artifacts.model / "judged" / "model.json")
    return {
        "sequence": read_json(artifacts.sequence / "curves.json"),
        "sequence_kept": config["sequence"] is not None,
        "tune": curves["tune"],
        "refit": curves["refit"],
        "calibration": {
            **curves["calibration"],
            "judged": evidence["calibration_error"] is not None,
            "error": metrics["calibration_error"],
            "bins": metrics.get("calibration_bins", []),
        },
    }


def _data(artifacts: Artifacts, kind: str) -> Json:
    imported = read_json(artifacts.import_report)
    cleaned = read_json(artifacts.clean / "cleaning.json")
    validation = read_json(artifacts.validation)
    failed = [check for check in validation["checks"] if not check["passed"]]
    compared = [check for check in validation["checks"] if check["observed"] and check["rule"].startswith(COMPARED)]
    severities = ("critical", "warning", "info")
    reasons = [
        {"step": step, "table": table, "reason": reason, "rows": rows, "of": counts["rows_in"]}
        for step, report in (("import", imported), ("cleaning", cleaned))
        for table, counts in report["tables"].items()
        for reason, rows in counts["quarantined"].items()
    ]
    return {
        "source": imported["source"],
        "format": imported["format"],
        "imported": imported["tables"],
        "cleaned": {table: counts for table, counts in cleaned["tables"].items() if counts["rows_in"]},
        "sessions_derived": cleaned["sessions_derived"],
        "guests": cleaned["guests"],
        "first": cleaned["first"],
        "last": cleaned["last"],
        # Without a load time cleaning takes the newest event for now, and nothing can be said of freshness.
        "freshness_judged": cleaned["load_time"] != cleaned["last"],
        "load_time": cleaned["load_time"],
        "rows_in": sum(one["rows_in"] for one in imported["tables"].values() if not one["derived"]),
        "quarantined": sum(one["rows"] for one in reasons),
        "reasons": sorted(reasons, key=lambda one: (-one["rows"], one["reason"])),
        "validation": validation["verdict"],
        "checks": len(validation["checks"]),
        "failed": sorted(failed, key=lambda one: severities.index(one["severity"])),
        "compared": [one for one in compared if not one["passed"] or one["rule"].startswith(SHOWN_ALWAYS)],
        "compared_more": sum(one["passed"] and not one["rule"].startswith(SHOWN_ALWAYS) for one in compared),
        "compared_with_run": kind != "bootstrap",
        "tiers": validation["tiers"],
        "rows": validation["rows"],
        "rows_by_day": validation["profile"]["rows_by_day"],
    }


def _policy(artifacts: Artifacts) -> Json:
    """What draws the page: the service's settings as they travel with the model, or its defaults."""
    settings = _serving(artifacts.package)
    name = PlackettLuce(PlackettLuceParams(settings.temperature, settings.floor)).name
    rows = read_json(artifacts.validation)["rows"].get(Slates.TABLE, 0)
    told = {"name": name, "temperature": settings.temperature, "floor": settings.floor, "slates": rows}
    return told | {"learned": read_json(artifacts.policy / "policy.json")}


def _serving(package: Path) -> ServingParams:
    return load_settings(package / "bento" / "src" / "model")


def _page(page: Json) -> Json:
    """One fixed user, with what a reader looks for first."""
    slots = [{**slot, "moved": slot["was"] != place} for place, slot in enumerate(page["challenger"], start=1)]
    places = max(len(slots), len(page["before"]))
    empty: list[None] = [None] * places
    rows = [
        {"place": place, "challenger": new, "before": old}
        for place, new, old in zip(range(1, places + 1), [*slots, *empty], [*page["before"], *empty], strict=False)
    ]
    return {
        "user": page["user"],
        "sessions": int(page["sessions"]),
        "other": words.label(page["other"]),
        "rows": rows,
        "taken": sum(slot["taken"] for slot in slots),
        "taken_before": sum(slot["taken"] for slot in page["before"]),
        "moved": sum(slot["moved"] for slot in slots),
    }


def _cost(run: RunFacts | None) -> Json | None:
    """Seconds and memory a stage, None where nobody measured."""
    if run is None:
        return None
    stages: list[Json] = [
        {"stage": stage.name, "says": stage.says, **run.costs.get(stage.name, {})} for stage in STAGES
    ]
    measured = [one for one in stages if "seconds" in one]
    return {
        "stages": stages,
        "seconds": round(sum((one["seconds"] for one in measured), 0.0), 2),
        "peak_mb": max((one["peak_mb"] for one in measured), default=None),
        "cached": len(stages) - len(measured),
        "total_seconds": run.total_seconds,
    }


def passed(facts: Json) -> bool:
    """Whether the gate lets it through."""
    return bool(facts["verdict"]["verdict"] == PASS)
