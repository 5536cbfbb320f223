"""The closed loop's command: simulate."""

from __future__ import annotations

import json
import signal
import sys
from typing import Annotated

import typer

from flows.commands.base import Json, app
from flows.voice import say


@app.command()
def simulate(
    days: Annotated[int, typer.Option(min=1, help="Days of the loop.")] = 7,
    sessions: Annotated[int, typer.Option(min=50, help="Sessions a day, about.")] = 2000,
    seed: Annotated[int, typer.Option(help="Another shop, other shoppers, other luck.")] = 1,
    bad_night: Annotated[
        list[str] | None, typer.Option(help="DAY:KIND, planted: labels, feature or poison. May be given again.")
    ] = None,
    as_json: Json = False,
) -> None:
    """SIMULATED shoppers against the served Bento over HTTP, with a real retrain every night; a table and a picture."""
    from flows import config, sabotage, simulate_report
    from flows.paths import REPOSITORY, Home
    from flows.simulate import Loop

    planted = sabotage.planted(bad_night or [])
    root = Home.from_environment().root / "simulate"
    params = config.load(REPOSITORY / "params.yaml").loop

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the services it started end too
    outcome = Loop(root, params, days, sessions, seed, tell).run(planted)
    told = simulate_report.table(outcome)
    (root / "loop.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    simulate_report.picture(told, root / "loop.png")
    told["picture"] = str(root / "loop.png")
    say(as_json, told, lambda: print("\n".join([*simulate_report.lines(told), f"picture: {told['picture']}"])))
