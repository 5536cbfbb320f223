"""The deployer's commands: serve, demo, export, erase, why-not, unlearn."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.base import Json, app, registry
from flows.voice import say


@app.command()
def serve(
    host: str = "127.0.0.1",
    port: int = 3000,
    workers: int = 1,
    fallback: Annotated[bool, typer.Option(help="Serve popular items where there is no champion.")] = False,
    as_json: Json = False,
) -> int:
    """Serve the champion over HTTP until SIGTERM."""
    from flows.serving import serve_champion

    def beginning() -> None:
        if as_json:
            told = {"url": f"http://{host}:{port}", "ready": f"http://{host}:{port}/readyz", "workers": workers}
            say(True, told, lambda: None)
            sys.stdout.flush()
            os.dup2(2, 1)  # the service's own words are none of the document

    return serve_champion(registry(), host, port, workers, fallback, beginning)


@app.command()
def demo(
    port: int = 3000,
    worse: Annotated[bool, typer.Option("--worse", help="Show the gate refuse a deliberately worse model.")] = False,
) -> int:
    """A live shop page on the data that ships: the champion's, or a quick unjudged model's where there is none."""
    from flows.demo import show_refusal, show_shop
    from flows.paths import Home

    home = Home.from_environment()
    return show_refusal(home) if worse else show_shop(home, port)


@app.command()
def export(dest: Path, until: str | None = None, as_json: Json = False) -> None:
    """Merge the service's log and catalogue into canonical tables at DEST; run again, it adds what is new."""
    from flows.serving import export as write

    told = write(registry().home.root, dest, until)
    say(as_json, told, lambda: print(json.dumps(told, indent=1)))


@app.command()
def erase(user: str, as_json: Json = False) -> None:
    """Erase a user online and from the log; later training sets leave them out."""
    from flows.serving import erase as forget

    told = forget(registry().home.root, user)
    say(as_json, told, lambda: print(json.dumps(told, indent=1)))


@app.command("why-not")
def why_not(item: str, user: str | None = None, as_json: Json = False) -> None:
    """What keeps an item off the page (of a user, or a stranger): the filter, the rule or the score."""
    from flows.serving import why_not as ask

    told = ask(registry().home.root, item, user)
    say(as_json, {"item_id": item, "user_id": user, "because": told}, lambda: print(told))


@app.command()
def unlearn(since: str, until: str | None = None, as_json: Json = False) -> None:
    """Roll online learning back: forget what arrived SINCE a time (RFC 3339) until another, or until now."""
    from flows.serving import unlearn as leave_out

    told = leave_out(registry().home.root, since, until)
    say(as_json, told, lambda: print(f"not learned from any more: {told['since']} to {told['until']}"))
