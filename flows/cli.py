"""`homeranker`: every command, its exit status and its two voices (words for people, one JSON document for programs).

Choices. Heavy libraries are imported inside the commands, so that --help answers at once. With --json stdout holds one
JSON document and everything else goes to stderr. Exit: 0 done, 1 failed, 2 wrong usage, 3 refused by a gate, 4 waiting
for approval.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from features.errors import HomerankerError, UsageError
from flows.voice import run, say

app = typer.Typer(
    name="homeranker",
    help="A shop's behaviour logs into a gated, reproducible, deployable homepage ranker.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")]


def main() -> None:
    """The entry point."""
    run(app)


def _registry() -> Any:
    from flows.paths import Home
    from flows.registry import Registry

    return Registry(Home.from_environment())


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, dict[str, Any] | None], None]]:
    """A bar on a terminal, a line a stage elsewhere; always on stderr."""
    from flows.progress import bar, lines

    with bar() if sys.stderr.isatty() and not quiet else lines() as listen:
        yield listen


@app.command()
def retrain(
    data: Annotated[str, typer.Option(help="online-retail, or a directory of canonical tables.")] = "online-retail",
    until: Annotated[str | None, typer.Option(help="UTC date, inclusive: leave out what came later.")] = None,
    promote: Annotated[bool, typer.Option(help="Make it the champion if the gate passes.")] = False,
    by: Annotated[str, typer.Option(help="Who starts it.")] = "",
    why: Annotated[str, typer.Option(help="Why.")] = "by hand",
    force: Annotated[bool, typer.Option(help="Run although nothing changed.")] = False,
    as_json: Json = False,
) -> int:
    """The main job: data in, validated, trained, judged, gated, packaged, reported."""
    from flows.paths import Home
    from flows.runs import Request, start

    home = Home.from_environment()
    with _progress(as_json) as listen:
        outcome = start(home, Request(data, until, by, why, force), listen)
    record = outcome.record

    def words() -> None:
        if outcome.unchanged:
            print(f"nothing changed since run {record['run']}: same code, parameters and data (--force runs again)\n")
        print("\n".join(record["summary"]))

    document = {name: value for name, value in record.items() if name != "summary"}
    document |= {"unchanged": outcome.unchanged, "report": str(home.runs / record["run"] / "report.html")}
    say(as_json, document, words)
    if record["verdict"] != "pass":
        return 3
    if promote:
        return _promote(record["run"], as_json=False, quiet=as_json)
    return 0


@app.command(name="import")
def import_(
    format: Annotated[str, typer.Argument(help="canonical, personalize, ga4, segment, open-bandit, online-retail")],
    src: Path,
    dest: Path,
    as_json: Json = False,
) -> None:
    """Turn a shop's export into canonical tables; every row that is left out is named with its reason."""
    import os

    from features.importers import import_data
    from features.integrity import write_manifest

    key = os.environ.get("HOMERANKER_PSEUDONYM_KEY")
    report = import_data(format, src, dest, pseudonym_key=key.encode() if key else None)
    write_manifest(dest)

    def words() -> None:
        for table, count in report.tables.items():
            aside = sum(count.quarantined.values())
            print(
                f"{table}: {count.rows_in} in, {count.rows_out} out, {count.merged} retries merged, {aside} set aside"
            )
            for reason, rows in count.quarantined.items():
                print(f"  {rows} {reason}")

    say(as_json, report.as_dict(), words)


@app.command()
def validate(directory: Path, as_json: Json = False) -> int:
    """Check a directory of canonical tables; says in tiers what the data allows."""
    from datetime import UTC

    from features.expectations import validate as check
    from features.validation import render_text

    if not as_json:
        print(f"checking {directory} ...", file=sys.stderr)
    report = check(directory, load_time=datetime.now(UTC))
    say(as_json, json.loads(report.to_json()), lambda: print(render_text(report)))
    return 1 if report.verdict == "fail" else 0


def _promote(run: str, as_json: bool, quiet: bool = False) -> int:
    from flows import config
    from flows.online import bring_online
    from flows.paths import REPOSITORY

    registry = _registry()
    run = registry.run_dir(run).name
    required = config.load(REPOSITORY / "params.yaml").run.approval == "required"
    registry.check_promotable(run, required)
    told = bring_online(registry.home, registry.run_dir(run) / "history.parquet")
    champion = registry.promote(run, required)
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
    return _promote(run, as_json)


@app.command()
def rollback(as_json: Json = False) -> None:
    """Make the previous champion the champion again."""
    champion = _registry().rollback()
    say(as_json, champion, lambda: print(f"champion: run {champion['run']}, model {champion['version']}"))


def _decide(run: str, decision: str, by: str, why: str, as_json: bool) -> None:
    registry = _registry()
    run = registry.run_dir(run).name
    registry.decide(run, decision, by, why)
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


@app.command()
def status(as_json: Json = False) -> None:
    """Champion, previous champion and the last runs, with what each stage cost."""
    from flows.status import document, show

    told = document(_registry())
    say(as_json, told, lambda: show(told))


@app.command()
def report(run: Annotated[str, typer.Argument(help="A run, or `last`.")] = "last", as_json: Json = False) -> None:
    """Where the report of a run is; opened in a browser on a terminal."""
    path = _registry().run_dir(run) / "report.html"
    if not path.exists():
        raise UsageError(f"run {run} has no report: it did not finish (homeranker status)")
    say(as_json, {"report": str(path)}, lambda: print(path))
    if not as_json and sys.stdout.isatty():
        typer.launch(str(path))


@app.command()
def verify(run: Annotated[str, typer.Argument(help="A run, or `last`.")] = "last", as_json: Json = False) -> int:
    """Recompute every hash of a run and name each file that changed."""
    from flows.status import made_differently

    registry = _registry()
    wrong = registry.verify(run)
    differs = made_differently(registry.manifest(run))

    def words() -> None:
        print("\n".join(wrong) if wrong else "every file is as it was written")
        for line in differs:
            print(f"note: {line}")

    say(as_json, {"changed": wrong, "made_with_differs": differs}, words)
    return 1 if wrong else 0


@app.command()
def serve(
    host: str = "127.0.0.1",
    port: int = 3000,
    workers: int = 1,
    fallback: Annotated[bool, typer.Option(help="Serve popular items where there is no champion.")] = False,
) -> int:
    """Serve the champion over HTTP until SIGTERM."""
    from flows.serving import serve_champion

    return serve_champion(_registry(), host, port, workers, fallback)


@app.command()
def export(dest: Path, until: str | None = None, as_json: Json = False) -> None:
    """Merge the service's log and catalogue into canonical tables at DEST; run again, it adds what is new."""
    from flows.serving import export as write

    told = write(_registry().home.root, dest, until)
    say(as_json, told, lambda: print(json.dumps(told, indent=1)))


@app.command()
def erase(user: str, as_json: Json = False) -> None:
    """Erase a user online and from the log; later training sets leave them out."""
    from flows.serving import erase as forget

    told = forget(_registry().home.root, user)
    say(as_json, told, lambda: print(json.dumps(told, indent=1)))


@app.command()
def package(run: Annotated[str, typer.Argument(help="A run, or `last`.")] = "last", as_json: Json = False) -> None:
    """Where the Bento of a run is, checked against its hashes."""
    registry = _registry()
    wrong = [line for line in registry.verify(run) if line.startswith("bento/")]
    if wrong:
        raise HomerankerError(f"the Bento of run {run} changed: {'; '.join(wrong[:5])}; retrain with --force")
    told = {"bento": registry.manifest(run)["content"]["bento"], "path": str(registry.run_dir(run) / "bento")}
    say(as_json, told, lambda: print(f"{told['bento']}\n{told['path']}"))


@app.command()
def doctor(as_json: Json = False) -> int:
    """Check this machine: Python, disk, memory, versions, Redis; each line with its cure."""
    from flows.doctor import look

    lines = look(_registry().home)

    def words() -> None:
        for line in lines:
            print(
                f"{'ok  ' if line['ok'] else 'BAD '} {line['what']}: {line['found']}"
                + ("" if line["ok"] else f" -> {line['cure']}")
            )

    say(as_json, lines, words)
    return 0 if all(line["ok"] for line in lines) else 1


if __name__ == "__main__":
    main()
