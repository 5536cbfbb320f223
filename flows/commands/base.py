"""What the commands share: the app that they register with, the registry, progress, the `--json` option."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="homeranker",
    help="A shop's behaviour logs into a gated, reproducible, deployable homepage ranker.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, everything else on stderr.")]


def registry() -> Any:
    """The register of this HOMERANKER_HOME."""
    from flows.paths import Home
    from flows.registry import Registry

    return Registry(Home.from_environment())


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, dict[str, Any] | None], None]]:
    """A bar on a terminal, a line a stage elsewhere; always on stderr."""
    from flows.progress import bar, lines

    with bar() if sys.stderr.isatty() and not quiet else lines() as listen:
        yield listen
