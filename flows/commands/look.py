"""Commands that change nothing: status, report, verify, package, doctor."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from features.errors import HomerankerError, UsageError
from flows.commands.base import Json, app, registry
from flows.voice import say


@app.command()
def status(as_json: Json = False) -> None:
    """Champion, previous champion and the last runs, with what each stage cost."""
    from flows.status import document, show

    told = document(registry())
    say(as_json, told, lambda: show(told))


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="A run, or `last`.")] = "last",
    compare: Annotated[tuple[str, str] | None, typer.Option(help="Two runs: one page about both.")] = None,
    as_json: Json = False,
) -> None:
    """Where the report of a run is; opened in a browser on a terminal. With --compare, two runs side by side."""
    if compare is not None:
        _compare(*compare, as_json)
        return
    path = registry().run_dir(run) / "report.html"
    if not path.exists():
        raise UsageError(f"run {run} has no report: it did not finish (homeranker status)")
    say(as_json, {"report": str(path)}, lambda: print(path))
    if not as_json and sys.stdout.isatty():
        typer.launch(str(path))


def _compare(one: str, other: str, as_json: bool) -> None:
    from flows.report.compare import compare, lines, write_comparison

    register = registry()
    told = compare(register, one, other)
    names = "-".join(run["run"] for run in told["runs"])
    page = write_comparison(told, register.home.runs / f"compare-{names}.html")
    say(as_json, told | {"page": str(page)}, lambda: print("\n".join([*lines(told), "", str(page)])))


@app.command()
def verify(run: Annotated[str, typer.Argument(help="A run, or `last`.")] = "last", as_json: Json = False) -> int:
    """Recompute every hash of a run and name each file that changed."""
    from flows.status import made_differently

    register = registry()
    wrong = register.verify(run)
    differs = made_differently(register.manifest(run))

    def words() -> None:
        print("\n".join(wrong) if wrong else "every file is as it was written")
        for line in differs:
            print(f"note: {line}")

    say(as_json, {"changed": wrong, "made_with_differs": differs}, words)
    return 1 if wrong else 0


@app.command()
def package(run: Annotated[str, typer.Argument(help="A run, or `last`.")] = "last", as_json: Json = False) -> None:
    """Where the Bento of a run is, checked against its hashes."""
    register = registry()
    wrong = [line for line in register.verify(run) if line.startswith("bento/")]
    if wrong:
        raise HomerankerError(f"the Bento of run {run} changed: {'; '.join(wrong[:5])}; retrain with --force")
    told = {"bento": register.manifest(run)["content"]["bento"], "path": str(register.run_dir(run) / "bento")}
    say(as_json, told, lambda: print(f"{told['bento']}\n{told['path']}"))


@app.command()
def doctor(as_json: Json = False) -> int:
    """Check this machine: Python, disk, memory, versions, Redis; each line with its cure."""
    from flows.doctor import look

    lines = look(registry().home)

    def words() -> None:
        for line in lines:
            print(
                f"{'ok  ' if line['ok'] else 'BAD '} {line['what']}: {line['found']}"
                + ("" if line["ok"] else f" -> {line['cure']}")
            )

    say(as_json, lines, words)
    return 0 if all(line["ok"] for line in lines) else 1
