"""The reviewer's commands: approve, reject, promote, rollback."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.base import Json, app, registry
from flows.voice import say


def promote_run(run: str, as_json: bool, quiet: bool = False) -> int:
    """Make a run the champion and bring its histories online."""
    from flows import config
    from flows.online import bring_online
    from flows.paths import REPOSITORY

    register = registry()
    run = register.run_dir(run).name
    required = config.load(REPOSITORY / "params.yaml").run.approval == "required"
    register.check_promotable(run, required)
    told = bring_online(register.home, register.run_dir(run) / "history.parquet")
    champion = register.promote(run, required)
    if quiet:
        return 0

    def words() -> None:
        print(f"champion: run {run}, model {champion['version']}; {told.written} histories online")
        print("next: homeranker serve")

    say(as_json, champion | {"histories": told.written}, words)
    return 0


@app.command()
def promote(run: Annotated[str, typer.Argument(help="A run, or `last`.")], as_json: Json = False) -> int:
    """Make a run the champion: the gate must have passed it, and a person too where approval is required."""
    return promote_run(run, as_json)


@app.command()
def rollback(as_json: Json = False) -> None:
    """Make the previous champion the champion again."""
    champion = registry().rollback()
    say(as_json, champion, lambda: print(f"champion: run {champion['run']}, model {champion['version']}"))


def _decide(run: str, decision: str, by: str, why: str, as_json: bool) -> None:
    register = registry()
    run = register.run_dir(run).name
    register.decide(run, decision, by, why)
    say(as_json, {"run": run, "decision": decision, "by": by}, lambda: print(f"run {run}: {decision} by {by}"))


By = Annotated[str, typer.Option(help="Your name; it stands in the register.")]
Why = Annotated[str, typer.Option(help="The reason; it stands in the register.")]


@app.command()
def approve(run: str, by: By, why: Why, as_json: Json = False) -> None:
    """Approve a run: bound to the bytes of its manifest and report, valid for 14 days."""
    _decide(run, "approved", by, why, as_json)


@app.command()
def reject(run: str, by: By, why: Why, as_json: Json = False) -> None:
    """Reject a run: it cannot be promoted."""
    _decide(run, "rejected", by, why, as_json)
