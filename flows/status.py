"""What `homeranker status` and `verify` say."""

from __future__ import annotations

from typing import Any

from flows.approval import OVERRIDE
from flows.config import load
from flows.lease import bury
from flows.paths import REPOSITORY
from flows.registry import ROLLOUT, Registry

LAST_RUNS = 8


def document(registry: Registry) -> dict[str, Any]:
    """Champion, previous, and the last runs, newest first."""
    bury(registry, load(REPOSITORY / "params.yaml").run.lease_s)
    keep = ("run", "status", "started_at", "seconds", "verdict", "data", "by", "why", "error", "bento", "costs")
    runs = [{name: run[name] for name in keep if name in run} for run in reversed(registry.runs()[-LAST_RUNS:])]
    champion, previous = registry.pointer("champion"), registry.pointer("previous")
    promoted = {one["run"] for one in (champion, previous) if one}
    waiting = [run["run"] for run in runs if run.get("verdict") == "pass" and run["run"] not in promoted]
    return {
        "home": str(registry.home.root),
        "champion": champion,
        "previous": previous,
        "rollout": registry.pointer(ROLLOUT),
        "waiting": waiting,
        "runs": runs,
    }


def show(told: dict[str, Any]) -> None:
    """As tables for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name in ("champion", "previous"):
        one = told[name]
        console.print(
            f"{name}: " + (f"run {one['run']}, model {one['version']}, since {one['since']}" if one else "none")
        )
        if one and "override" in one:
            console.print(f"  OVERRIDE by {one['override']['by']}: {one['override']['why']}", markup=False)
    rollout = told["rollout"]
    if rollout:
        more = f"ended: {rollout['why']}" if rollout["mode"] == "ended" else f"{rollout['share']:g} %"
        console.print(f"{rollout.get('was', rollout['mode'])}: run {rollout['run']}, {more}", markup=False)
    for run in told["waiting"]:
        console.print(f"waiting: run {run} passed the gate; homeranker report {run}, then approve, promote or reject")
    table = Table("status", "seconds", "verdict", "started", "by")
    table.add_column("run", no_wrap=True)
    table.add_column("data", overflow="fold")
    for run in told["runs"]:
        cells = (run["status"], run.get("seconds", ""), run.get("verdict", ""), run["started_at"], run["by"])
        table.add_row(*map(str, cells), run["run"], str(run["data"]))
    console.print(table)
    newest = next((run for run in told["runs"] if run.get("costs")), None)
    if newest:
        costs = Table(
            "stage", "seconds", "peak MB", title=f"what run {newest['run']} cost (stages from the cache: none)"
        )
        for stage, cost in newest["costs"].items():
            costs.add_row(stage, f"{cost['seconds']:.1f}", f"{cost['peak_mb']:.0f}")
        console.print(costs)
    for run in told["runs"]:
        if run.get("error"):
            console.print(f"{run['run']} failed: {run['error'].splitlines()[0]}", markup=False)


def made_differently(manifest: dict[str, Any]) -> list[str]:
    """What here differs from where a run was made: why a new run may give other bytes."""
    from flows import config
    from flows.paths import REPOSITORY
    from flows.stages.packaging import made_with

    was, now = manifest["made_with"], made_with(config.load(REPOSITORY / "params.yaml").train.threads)
    found = [
        f"{name} was {was[name]}, is {now[name]}" for name in was if name != "libraries" and was[name] != now[name]
    ]
    libraries = was["libraries"]
    return found + [
        f"{name} was {libraries[name]}, is {now['libraries'].get(name)}"
        for name in libraries
        if libraries[name] != now["libraries"].get(name)
    ]


def show_history(lines: list[dict[str, Any]]) -> None:
    """The register as a table: when, what, which run, who and why."""
    from rich.console import Console
    from rich.table import Table

    table = Table("at", "what", "run", "by", "more")
    for line in lines:
        what = str(line.get("decision") or line["kind"])
        more = line.get("why") or line.get("verdict") or line.get("error") or line.get("version") or ""
        table.add_row(
            line["at"], what.upper() if what == OVERRIDE else what, line["run"], line.get("by", ""), str(more)
        )
    Console().print(table)
