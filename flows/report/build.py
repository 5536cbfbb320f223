"""The reviewer's report of a run: report.json, report.html and report.md from the same facts, and the short summary.

Choices. One HTML file without script, font or address of the outside, closed by its own Content-Security-Policy; every
text is escaped by Jinja2 unless this package made it itself. `write_report` without `RunFacts` is a stage's output and
has to give the same bytes again; the flow calls it once more with them, for the reviewer.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flows.paths import Artifacts, Home
from flows.report import charts, policy, words
from flows.report.facts import CHALLENGER, DECIDING, METRIC_ORDER, Json, RunFacts, collect, passed

__all__ = ["RunFacts", "summary_lines", "write_report"]

SHOWN = ("ndcg@10", "recall@10", "new_ndcg@10")
BANNER = "SIMULATED DATA: every figure here comes from the project's own generator, none from a real shop."
MARKDOWN_SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]|~#"})


def write_report(artifacts: Artifacts, out: Path, *, run: RunFacts | None = None) -> Path:
    """Write report.json, report.html and report.md to `out`; returns the HTML file's path.

    ArtifactError names a missing artifact. Without `run` the bytes depend on the artifacts only.
    """
    facts = collect(artifacts, run)
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "report.json", json.dumps(facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    _write(out / "report.md", _templates().get_template("report.md").render(facts=facts, **_shared()))
    page = out / "report.html"
    _write(page, _templates().get_template("report.html").render(facts=facts, pictures=_pictures(facts), **_shared()))
    return page


def summary_lines(artifacts: Artifacts, run: RunFacts) -> list[str]:
    """What `make retrain` prints at its end: window, rows, metrics, verdict, report, Bento and the next command."""
    facts = collect(artifacts, run)
    data, content = facts["data"], facts["lineage"]["content"]
    merged = sum(one["merged"] for report in ("imported", "cleaned") for one in data[report].values())
    lines = [BANNER] if facts["simulated"] else []
    lines += [
        f"data      {facts['data_name']}, {data['first'][:10]} to {data['last'][:10]};"
        f" judged on what followed {facts['windows'][-1]['from'][:10]}",
        f"rows      {data['rows_in']:,} in, {data['quarantined']:,} quarantined, {merged:,} merged as retries",
        "",
        *_metric_lines(facts),
        "",
        f"verdict   {facts['words']['verdict']}",
        f"          {facts['words']['scores']}",
        *(f"          - {reason}" for reason in facts["verdict"]["reasons"]),
        *(f"          {sentence}" for sentence in [*facts["words"]["against"], *policy.unlearned(facts)]),
        f"report    {_place(run.run)} (homeranker report {run.run} opens it)",
        f"bento     {content['bento']}",
        f"next      {_next(facts)}",
    ]
    return lines


def _place(run: str) -> Path:
    """Where the flow writes the run's report, as short as it can be typed here."""
    page = Home.from_environment().runs / run / "report.html"
    return page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page


def _next(facts: Json) -> str:
    if passed(facts):
        return f"homeranker promote {facts['run']['run']}"
    if words.tied(facts):
        return "nothing: the champion stays; more data or a longer gate slice decides (split.gate_days; see the report)"
    return "look at the gates and the data in the report; the champion, if any, goes on serving"


def _metric_lines(facts: Json) -> list[str]:
    """One line a model: three metrics and the paired difference, each with its 95 % interval."""
    head = ["", *(words.METRICS[name] for name in SHOWN), "challenger minus it"]
    rows = [head]
    for one in facts["models"]:
        values = [words.estimate(one["metrics"][name]) for name in SHOWN]
        own = one["name"] == CHALLENGER
        rows.append([one["label"], *values, "" if own else words.difference(one["challenger_minus"][DECIDING])])
    wide = [max(len(row[at]) for row in rows) for at in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows]


def _write(path: Path, text: str) -> None:
    # A lone surrogate in a title must not end a run that is otherwise done.
    path.write_bytes(text.encode("utf-8", "replace"))


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("flows.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "estimate": words.estimate,
        "difference": words.difference,
        "count": lambda value: f"{value:,}",
        "three": lambda value: f"{value:.3f}",
        "day": lambda moment: str(moment)[:10],
        "minute": lambda moment: str(moment)[:16].replace("T", " "),
        "md": markdown,
        "cell": _cell,
    }
    return environment


def markdown(value: Any) -> Markup:
    """Text as one line of Markdown that means only itself: no markup, HTML, link or table cell comes out of it."""
    text = " ".join(str(value).split()).translate(MARKDOWN_SIGNS)
    return Markup(text.replace("&", "&amp;").replace("<", "&lt;"))  # noqa: S704


def _cell(value: Any) -> str:
    """One field of a sample row."""
    return "(null)" if value is None else str(value)


def _shared() -> dict[str, Any]:
    return {"metric_names": words.METRICS, "metric_order": METRIC_ORDER, "shown": SHOWN, "banner": BANNER}


def _pictures(facts: Json) -> dict[str, Any]:
    """All SVG of the page; bars of one table share their scale."""
    training = facts["training"]
    rivals = [one for one in facts["models"] if one["name"] != CHALLENGER]
    compared = [gate for gate in facts["gates"] if gate["mean"] is not None]
    parts = [(WINDOW_NAMES[one["name"]], one["from"][:10], one["until"][:10], one["share"]) for one in facts["windows"]]
    curves = {
        "sequence_loss": (training["sequence"], "train_loss", "Sequence network: loss"),
        "sequence_validation": (training["sequence"], "validation", "Sequence network: next-item NDCG@10"),
        "tune_loss": (training["tune"], "train_loss", "Ranker: loss, tuning"),
        "tune_validation": (training["tune"], "validation", "Ranker: NDCG@10 on the tune slice"),
        "refit_loss": (training["refit"], "train_loss", "Ranker: loss, refit up to the cut"),
    }
    rows, bins = facts["data"]["rows_by_day"], training["calibration"]["bins"]
    return {
        "gates": _bars({gate["rule"]: (gate, gate["verdict"]) for gate in compared}),
        "models": _bars({one["name"]: (one["challenger_minus"][DECIDING], _sure(one)) for one in rivals}),
        "curves": [
            charts.curve(values[key], title, values["best_epoch"], values["stopped_early"])
            for values, key, title in curves.values()
            if values[key]
        ],
        "windows": charts.windows(parts),
        "volume": charts.volume(rows) if rows else Markup(""),
        "calibration": charts.calibration(bins) if bins else Markup(""),
        "style": Markup(_style()),  # noqa: S704
    }


WINDOW_NAMES = {"train": "learned from", "tune": "tuned on", "gate": "judged on"}


def _style() -> str:
    source, _, _ = PackageLoader("flows.report").get_source(_templates(), "style.css")
    return source


def _sure(one: Json) -> str:
    """As the gate would colour it, at a margin of 0."""
    value = one["challenger_minus"][DECIDING]
    return "pass" if value["low"] > 0 else "refuse" if value["high"] < 0 else "cannot tell"


def _bars(values: dict[str, tuple[Json, str]]) -> dict[str, Markup]:
    # The scale follows the closest comparison, where the decision lies; far ones become arrows.
    closest = min((max(abs(value["low"]), abs(value["high"])) for value, _ in values.values()), default=0.0)
    span = max(0.02, 3.5 * closest)
    return {
        name: charts.interval_bar(
            charts.Bar(value["mean"], value["low"], value["high"], value.get("margin")), span, verdict
        )
        for name, (value, verdict) in values.items()
    }
