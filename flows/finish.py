"""The last step of a run: copy out, start the Bento and ask it, write the reviewer's report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.history import History
from flows.online import bring_online
from flows.paths import Home
from flows.registry import Registry
from flows.report.build import RunFacts, summary_lines, write_report
from flows.runs import SMOKE_USERS, copy_out, costs_of
from models import checkpoint
from models.checkpoint import sha256_of
from serving.package import smoke


def finish_run(registry: Registry, record: dict[str, Any], worktree: Path, seconds: float) -> dict[str, Any]:
    """Everything after the stages; the facts that the record and Prefect's artifacts need."""
    run = record["run"]
    run_dir = registry.home.runs / run
    artifacts = copy_out(worktree, run_dir)
    smoked = smoke_test(run_dir)
    champion = registry.pointer("champion")
    facts = RunFacts(
        run=run,
        started_at=record["started_at"],
        by=record["by"],
        why=record["why"],
        commit=record["commit"],
        costs=costs_of(run_dir),
        smoke=smoked,
        champion=None if champion is None else champion["version"],
        data=record.get("data"),
        until=record.get("until"),
        total_seconds=round(seconds, 1),
    )
    write_report(artifacts, run_dir, run=facts)
    manifest = json.loads((run_dir / "manifest.json").read_text())
    # Who and when are no content: the hash above them stays what the same commit and data give again.
    manifest["record"] = {
        "run": run,
        "commit": record["commit"],
        "started_at": record["started_at"],
        "by": record["by"],
        "why": record["why"],
        "report_sha256": sha256_of(run_dir / "report.html"),
    }
    checkpoint.write_json(run_dir / "manifest.json", manifest)
    metrics = json.loads((run_dir / "evaluation" / "metrics.json").read_text())
    return {
        "verdict": manifest["content"]["verdict"],
        "bento": manifest["content"]["bento"],
        "model_version": manifest["content"]["model_version"],
        "manifest_hash": manifest["hash"],
        "costs": facts.costs,
        "summary": summary_lines(artifacts, facts),
        "markdown": (run_dir / "report.md").read_text(),
        "table": [
            {"model": name, **{metric: round(value["mean"], 4) for metric, value in told["metrics"].items()}}
            for name, told in metrics["models"].items()
        ],
    }


def smoke_test(run_dir: Path) -> dict[str, Any]:
    """The built Bento from its directory, over HTTP: users with a history out of the online store, and a stranger."""
    history = run_dir / "history.parquet"
    users = sorted(set(pq.read_table(history, columns=[History.USER_ID])[History.USER_ID].to_pylist()))[:SMOKE_USERS]
    home = Home(run_dir / "smoke")
    few = pq.read_table(history)
    few = few.filter(pc.is_in(few[History.USER_ID], value_set=pc.cast(users, few[History.USER_ID].type)))
    home.root.mkdir(exist_ok=True)
    pq.write_table(few, home.root / "history.parquet")
    bring_online(home, home.root / "history.parquet")
    told = smoke(run_dir / "bento", home.root, users)
    shutil.rmtree(home.root)
    return {"ready_s": told["ready_s"], "model_version": told["model_version"], "pages": len(told["pages"])}
