"""The scheduler's commands: schedule, monitor."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.base import Json, app, registry
from flows.voice import say


@app.command()
def schedule(
    cron: Annotated[str, typer.Option(help="When, as cron writes it.")],
    data: Annotated[str, typer.Option(help="online-retail, or a directory of canonical tables.")] = "online-retail",
    promote: Annotated[bool, typer.Option(help="Promote what the gate passes (and a person, where required).")] = True,
    timezone: Annotated[str, typer.Option(help="Of the cron line.")] = "UTC",
    watch_minutes: Annotated[int, typer.Option(min=1, help="How often to look for new data, drift, dead runs.")] = 5,
    worker: Annotated[bool, typer.Option("--worker", help="Then work here until Ctrl-C.")] = False,
    as_json: Json = False,
) -> int:
    """Make the Prefect deployments: retrain by the clock, on new data and on drift."""
    from flows.paths import Home
    from flows.retrain import prefect_settings

    prefect_settings(Home.from_environment().root)
    from flows.schedule import POOL, deploy, work

    told = deploy(cron, data, promote, timezone, watch_minutes)

    def words() -> None:
        print(f"scheduled: retrain on {data} at {cron!r} ({timezone}); watch every {watch_minutes} min")
        print(f"next: prefect worker start --pool {POOL} --type process   (or homeranker schedule ... --worker)")

    say(as_json, told, words)
    return work() if worker else 0


@app.command()
def monitor(
    days: Annotated[float | None, typer.Option(help="How much of the live log; by default params.yaml's.")] = None,
    as_json: Json = False,
) -> int:
    """Compare the live log with what the champion learned from; exit 3 where something drifted."""
    from flows.monitor import look, show

    told = look(registry(), days)
    say(as_json, told, lambda: show(told))
    return 3 if told["alarms"] else 0
