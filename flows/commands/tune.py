"""The ML engineer's search: tune."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

import typer

from flows.commands.base import Json, app
from flows.voice import say


@app.command()
def tune(
    trials: Annotated[int, typer.Option(help="Trials that the study holds in the end; after a kill it goes on.")],
    timeout: Annotated[float | None, typer.Option(help="Seconds after which no new trial starts.")] = None,
    data: Annotated[str, typer.Option(help="online-retail, or a directory of canonical tables.")] = "online-retail",
    part: Annotated[str, typer.Option(help="ranker, or sequence: the network over histories.")] = "ranker",
    apply: Annotated[bool, typer.Option("--apply", help="Write the change into params.yaml.")] = False,
    as_json: Json = False,
) -> None:
    """Search for better parameters on the tune slice; shows the best as a diff of params.yaml."""
    from flows import tune as search
    from flows.paths import REPOSITORY, Home
    from flows.tune_space import changed

    def listen(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    found = search.search(Home.from_environment(), part, data, trials, timeout, listen)
    applied = apply and bool(found.change)
    if applied:
        path = REPOSITORY / "params.yaml"
        path.write_text(changed(path.read_text(), found.change))

    def words() -> None:
        print(f"study {found.name}: {len(found.trials)} trials, in {found.storage}")
        for one in found.trials[:5]:
            values = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                               for name, value in one["params"].items())  # fmt: skip
            value = "" if one["value"] is None else f"{one['value']:.4f}"
            print(f"  trial {one['trial'] + 1:3} {one['state']:9}{value}  {values}")
        for one in found.trials:
            if one["state"] == "fail":
                print(f"  trial {one['trial'] + 1:3} failed: {one['error']}")
        if found.importance:
            print("importance: " + ", ".join(f"{name} {share:.2f}" for name, share in found.importance.items()))
        print(f"history: {found.picture}")
        if found.gain is not None:
            told = found.gain
            print(
                f"best minus params.yaml, NDCG@10 on the tune slice, {told.users} users: {told.mean:+.4f} "
                f"[{told.low:+.4f}, {told.high:+.4f}] (the best of many looks better than it is; the gate judges)"
            )
        if not found.change:
            print("nothing beats what params.yaml says")
        else:
            print(found.diff, end="")
            print("written; commit it and retrain" if applied else "to accept: the same command with --apply")

    document = dataclasses.asdict(found) | {"applied": applied}
    say(as_json, document, words)
