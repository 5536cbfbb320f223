"""Two runs side by side: what differs in inputs, what in figures, and whether the same users fare better.

Choices. Values by user are stored by every run, so where both runs judged the same users the difference is paired and
has an interval; where they did not, the page says so and shows the means alone. What made the runs differ comes first:
a better figure on other data is no better model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.registry import Registry
from flows.report import words
from models.metrics import estimate

Json = dict[str, Any]
INPUTS = ("data_hash", "params_hash", "lock_hash", "features_hash", "weights_hash", "bento")
SHOWN = ("ndcg@10", "recall@10", "new_ndcg@10")


def compare(registry: Registry, one: str, other: str) -> Json:
    """What two finished runs have in common and what not; UsageError where one is unknown or unfinished."""
    runs = [registry.run_dir(run).name for run in (one, other)]
    records, manifests = [registry.record(run) for run in runs], [registry.manifest(run) for run in runs]
    places = [registry.run_dir(run) for run in runs]
    rows = [_row("commit", *(record["commit"][:12] for record in records))]
    rows += [_row("data", *(f"{r['data']} until {r.get('until') or 'its end'}" for r in records))]
    rows += [_row(name.replace("_", " "), *(str(m["content"].get(name))[:24] for m in manifests)) for name in INPUTS]
    rows += [_row("verdict", *(m["content"]["verdict"] for m in manifests))]
    rows += [_row("seconds", *(str(record.get("seconds")) for record in records))]
    return {
        "runs": [{"run": r["run"], "by": r["by"], "why": r["why"], "started_at": r["started_at"]} for r in records],
        "rows": rows,
        "metrics": _metrics(places),
        "paired": _paired(places),
    }


def _row(what: str, first: str, second: str) -> Json:
    return {"what": what, "values": [first, second], "same": first == second}


def _metrics(places: list[Path]) -> list[Json]:
    """Model by model, the deciding metrics of both runs; a model that one run lacks has None there."""
    told = [json.loads((place / "evaluation" / "metrics.json").read_text())["models"] for place in places]
    names = [*told[0], *(name for name in told[1] if name not in told[0])]
    return [
        {
            "model": words.label(name),
            "values": [
                {metric: models[name]["metrics"][metric] for metric in SHOWN} if name in models else None
                for models in told
            ],
        }
        for name in names
    ]


def _paired(places: list[Path]) -> Json:
    """The second run's challenger minus the first's, by user, over the users that both judged."""
    tables = [pq.read_table(place / "evaluation" / "per_user.parquet").to_pydict() for place in places]
    at = [{user: row for row, user in enumerate(table["user_id"])} for table in tables]
    common = sorted(set(at[0]) & set(at[1]))
    windows = [json.loads((place / "model" / "manifest.json").read_text())["judged_from"] for place in places]
    told: Json = {"users": len(common), "judged_from": windows, "same_window": windows[0] == windows[1]}
    if not common or not told["same_window"]:
        return told | {"differences": {}}
    differences = {}
    for metric in SHOWN:
        first, second = (
            np.array([table[f"challenger/{metric}"][rows[user]] for user in common], dtype=np.float64)
            for table, rows in zip(tables, at, strict=True)
        )
        both = np.isfinite(first) & np.isfinite(second)
        if both.any():
            differences[metric] = estimate((second - first)[both]).to_json()
    return told | {"differences": differences}


def write_comparison(told: Json, out: Path) -> Path:
    """One HTML page, self-contained."""
    environment = Environment(
        loader=PackageLoader("flows.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"estimate": words.estimate, "difference": words.difference}
    source, _, _ = PackageLoader("flows.report").get_source(environment, "style.css")
    page = environment.get_template("compare.html").render(
        told=told, metric_names=words.METRICS, shown=SHOWN, style=source
    )
    out.write_bytes(page.encode("utf-8", "replace"))
    return out


def lines(told: Json) -> list[str]:
    """The short version for a terminal."""
    first, second = (one["run"] for one in told["runs"])
    said = [f"A {first}", f"B {second}", ""]
    said += [f"{row['what']:<14} {'same' if row['same'] else ' | '.join(row['values'])}" for row in told["rows"]]
    said.append("")
    for metric, value in told["paired"]["differences"].items():
        said.append(f"B minus A, {words.METRICS[metric]}: {words.difference(value)}, {value['users']} users, paired")
    if not told["paired"]["differences"]:
        why = "other users" if told["paired"]["same_window"] else "another window"
        said.append(f"not paired: the runs judged {why}; only means can be set side by side")
    return said
