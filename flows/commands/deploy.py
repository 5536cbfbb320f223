"""The deployer's release commands: image, release verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.base import Json, app, registry
from flows.voice import say

release = typer.Typer(help="What a deployer checks before shipping.", no_args_is_help=True)
app.add_typer(release, name="release")
Run = Annotated[str, typer.Argument(help="A run, or `last`.")]


@app.command()
def image(
    run: Run = "last",
    out: Annotated[Path, typer.Option(help="The file to write: a tar of an OCI image.")] = Path("homeranker.oci"),
    as_json: Json = False,
) -> None:
    """An OCI image of a run's service, without Docker; the same run gives the same digest. Its SBOM lies beside it."""
    from flows.image import build_image

    told = build_image(registry(), run, out)

    def words() -> None:
        print(f"{told['image']}: {told['digest']}\n{told['sbom']}: CycloneDX, {told['packages']} packages")

    say(as_json, told, words)


@release.command("verify")
def verify(
    run: Run = "last",
    keys: Annotated[Path | None, typer.Option(help="Folder of the reviewers' public keys (*.pub).")] = None,
    image: Annotated[Path | None, typer.Option(help="The image that is to be shipped.")] = None,
    as_json: Json = False,
) -> int:
    """Hashes, gate, approval, signature, golden requests, safe versions, image: one line each; exit 1 if one fails."""
    from flows import config
    from flows.paths import REPOSITORY
    from flows.release import verify_release

    required = config.load(REPOSITORY / "params.yaml").run.approval == "required"
    lines = verify_release(registry(), run, keys, image, required)

    def words() -> None:
        for line in lines:
            print(f"{'ok  ' if line['ok'] else 'BAD '} {line['what']}: {line['says']}")

    say(as_json, lines, words)
    return 0 if all(line["ok"] for line in lines) else 1
