"""The ML engineer's commands: retrain, import, pictures, validate."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.base import Json, app, progress
from flows.commands.decisions import promote_run
from flows.voice import say


@app.command()
def retrain(
    data: Annotated[
        str, typer.Option(help="online-retail, simulated, open-bandit, or a directory of canonical tables.")
    ] = "online-retail",
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
    with progress(as_json) as listen:
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
        return promote_run(record["run"], as_json=False, quiet=as_json)
    return 0


@app.command(name="import")
def import_(
    format: Annotated[str, typer.Argument(help="canonical, personalize, ga4, segment, open-bandit, online-retail")],
    src: Path,
    dest: Path,
    as_json: Json = False,
) -> int:
    """Turn a shop's export into canonical tables; every row that is left out is named with its reason.

    Exit status 1 where all rows of a table were left out.
    """
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
    for sentence in report.lost:
        print(f"homeranker: {sentence}", file=sys.stderr)
    return 1 if report.lost else 0


@app.command()
def pictures(
    folder: Annotated[Path, typer.Argument(help="Pictures named ITEM_ID.jpg, .png, .webp, .gif or .bmp.")],
    tables: Annotated[Path, typer.Argument(help="Canonical tables; their item_vectors get the modality `image`.")],
    as_json: Json = False,
) -> None:
    """Colour and texture of pictures as item vectors: what a new item looks like, before anybody has clicked it."""
    from features.pictures import add_pictures

    told = add_pictures(folder, tables)

    def words() -> None:
        print(f"item_vectors: {told.rows.num_rows} pictures in, {len(told.left_out)} left out")
        for reason in told.left_out.values():
            print(f"  {reason}")

    say(as_json, {"pictures": told.rows.num_rows, "left_out": told.left_out}, words)


@app.command()
def validate(directory: Path, as_json: Json = False) -> int:
    """Check a directory of canonical tables; says in tiers what the data allows."""
    from datetime import UTC, datetime

    from features.expectations import validate as check
    from features.validation import render_text

    if not as_json:
        print(f"checking {directory} ...", file=sys.stderr)
    report = check(directory, load_time=datetime.now(UTC))
    say(as_json, json.loads(report.to_json()), lambda: print(render_text(report)))
    return 1 if report.verdict == "fail" else 0
