"""The reviewer's commands: approve, reject, promote, rollback, history, prune, keygen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.errors import UsageError
from flows.commands.base import Json, app, registry
from flows.voice import say


def promote_run(run: str, as_json: bool, quiet: bool = False, override: dict[str, str] | None = None) -> int:
    """Make a run the champion and bring its histories online."""
    from flows import approval, config
    from flows.online import bring_online
    from flows.paths import REPOSITORY

    register = registry()
    run = register.run_dir(run).name
    required = config.load(REPOSITORY / "params.yaml").run.approval == "required"
    if override is None:
        approval.check(register, run, required)
    told = bring_online(register.home, register.run_dir(run) / "history.parquet")
    champion = register.promote(run, required, override)
    if quiet:
        return 0

    def words() -> None:
        print(f"champion: run {run}, model {champion['version']}; {told.written:,} rows of history brought online")
        if override is not None:
            print(f"past the gate or a missing approval, by {override['by']}: {override['why']} (this stays on record)")
        print("next: homeranker serve")

    say(as_json, champion | {"histories": told.written}, words)
    return 0


@app.command()
def promote(
    run: Annotated[str, typer.Argument(help="A run, or `last`.")],
    shadow: Annotated[float | None, typer.Option(help="Rank this per cent of pages beside it, show none.")] = None,
    canary: Annotated[float | None, typer.Option(help="Show it to this per cent of people first.")] = None,
    override: Annotated[bool, typer.Option("--override", help="Past the gate or a missing approval.")] = False,
    by: Annotated[str, typer.Option(help="With --override: your name.")] = "",
    why: Annotated[str, typer.Option(help="With --override: the reason; it stays on record.")] = "",
    as_json: Json = False,
) -> int:
    """Make a run the champion: the gate must have passed it, and a person too where approval is required."""
    if not override and (by or why):
        raise UsageError("--by and --why go with --override; a decision is `homeranker approve RUN --by ... --why ...`")
    given = {mode: share for mode, share in (("shadow", shadow), ("canary", canary)) if share is not None}
    if len(given) > 1 or (given and override):
        raise UsageError("one of --shadow, --canary and --override at a time")
    for mode, share in given.items():
        return _roll_out(run, mode, share, as_json)
    return promote_run(run, as_json, override={"by": by, "why": why} if override else None)


def _roll_out(run: str, mode: str, share: float, as_json: bool) -> int:
    from flows import config
    from flows.paths import REPOSITORY

    register = registry()
    run = register.run_dir(run).name
    required = config.load(REPOSITORY / "params.yaml").run.approval == "required"
    told = register.roll_out(run, mode, share, required)

    def words() -> None:
        print(f"{mode}: run {run}, model {told['version']}, {share:g} %; services take it up within 30 s")
        print(f"it goes back by itself for a reason (homeranker status); for good: homeranker promote {run}")

    say(as_json, told, words)
    return 0


@app.command()
def rollback(as_json: Json = False) -> None:
    """Make the previous champion the champion again."""
    champion = registry().rollback()
    say(as_json, champion, lambda: print(f"champion: run {champion['run']}, model {champion['version']}"))


def _decide(run: str, decision: str, by: str, why: str, as_json: bool) -> None:
    from flows import approval, config
    from flows.paths import REPOSITORY

    register = registry()
    run = register.run_dir(run).name
    allowed = config.load(REPOSITORY / "params.yaml").run.self_approval
    told = approval.decide(register, run, decision, by, why, self_approval=allowed)
    signed = f", signed with key {told['key_id']}" if "key_id" in told else ""

    def words() -> None:
        print(f"run {run}: {decision} by {by}{signed}")
        if decision == "rejected" and (register.pointer("champion") or {}).get("run") == run:
            print("it is the champion and goes on serving until another is; homeranker rollback brings the one before")

    say(as_json, told, words)


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


@app.command()
def history(as_json: Json = False) -> None:
    """The whole register: every start, end, decision, promotion, override and rollback, oldest first."""
    from flows.status import show_history

    lines = registry().lines()
    say(as_json, lines, lambda: show_history(lines))


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=0, help="How many of the newest finished runs stay.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Remove old runs: their files, branches and cache; never what champion or previous need."""
    from flows.prune import prune as remove

    told = remove(registry(), keep, dry_run)

    def words() -> None:
        verb = "would remove" if dry_run else "removed"
        print(f"{verb} {len(told['removed'])} runs, {told['freed_mb']:.1f} MB: {' '.join(told['removed']) or 'none'}")
        for run, why in told["kept"].items():
            print(f"kept {run}: {why}")

    say(as_json, told, words)


@app.command()
def keygen(folder: Path, name: str, as_json: Json = False) -> None:
    """A reviewer's key pair (Ed25519): NAME.key to sign with, NAME.pub for the deployers' folder of trusted keys."""
    from flows.signing import SIGNING_KEY, TRUSTED_KEYS, make_keys

    private, public = make_keys(folder, name)

    def words() -> None:
        print(f"{private}: keep it secret; {SIGNING_KEY}={private} signs your decisions")
        print(f"{public}: give it to the deployers; {TRUSTED_KEYS}=FOLDER checks decisions against it")

    say(as_json, {"private": str(private), "public": str(public)}, words)
