"""docs/reference.md, made from the code: commands, HTTP calls, parameters, exit codes, tables, variables.

`python -m flows.reference` writes it; a test keeps the two equal, so the page cannot say what is no longer true.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import click
import typer
from pydantic import BaseModel

from features import errors
from features.schema import TABLES
from flows.cli import COMMANDS
from flows.commands.base import app
from flows.config import Params
from flows.paths import REPOSITORY

PLACE = REPOSITORY / "docs" / "reference.md"
HEAD = """# Reference

Made by `python -m flows.reference`; a test keeps it equal to the code. What other programs may rely on is the HTTP
interface (`/openapi.json`, browsable at `/docs`), the tables and the commands; the rest may change.
"""
VARIABLES = {
    "HOMERANKER_HOME": "where runs, registry, online store and log are kept; default `.homeranker`",
    "HOMERANKER_REDIS_URL": "online store and sessions in Redis instead of SQLite",
    "HOMERANKER_API_KEYS": "keys of the HTTP interface, separated by spaces or commas; unset: 127.0.0.1 only",
    "HOMERANKER_API_KEYS_FILE": "the same from a file",
    "HOMERANKER_WORKERS": "processes of an image's service",
    "HOMERANKER_HOST": "where an image's service listens",
    "HOMERANKER_PORT": "its port, default 3000",
    "HOMERANKER_DRAIN_SECONDS": "how long `/readyz` says 503 before the sockets close",
    "HOMERANKER_REPLAY": "1 lets `Homeranker-Now` replace the clock: simulations and tests only",
    "HOMERANKER_ACCESS_LOG": "1 writes one JSON line a request",
    "HOMERANKER_SECRET": "signs request ids; by default made once and kept in the home",
    "HOMERANKER_PSEUDONYM_KEY": "turns user ids into keyed pseudonyms (HMAC) at `import`",
    "HOMERANKER_SIGNING_KEY": "a reviewer's private key: decisions are signed",
    "HOMERANKER_TRUSTED_KEYS": "folder of public keys: only decisions that they signed count",
    "HOMERANKER_WEBHOOK_URL": "gets a notice when a run failed or was refused",
    "HOMERANKER_WEBHOOK_KEY": "signs the notices",
    "PREFECT_API_URL": "a Prefect server of your own; without it a run starts one for itself",
}


def _commands() -> Iterator[str]:
    yield "## Commands\n\n`--json` gives one JSON document on stdout; `--help` tells the same as here.\n\n"
    assert COMMANDS  # noqa: S101 - importing them registered them
    group = typer.main.get_command(app)
    yield from _of_group(group, "homeranker")


def _of_group(group: Any, prefix: str) -> Iterator[str]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _of_group(command, f"{prefix} {name}")
            continue
        arguments = [p for p in command.params if isinstance(p, click.Argument) or p.param_type_name == "argument"]
        words = " ".join(f"[{p.name.upper()}]" if not p.required else p.name.upper() for p in arguments)
        yield f"### `{prefix} {name}{' ' if words else ''}{words}`\n\n{(command.help or '').strip()}\n\n"
        options = [p for p in command.params if p not in arguments and p.name not in ("help", "as_json")]
        for option in options:
            told = getattr(option, "help", None) or ""
            required = " (required)" if option.required else ""
            yield f"- `{max(option.opts, key=len)}`{required}: {told}".rstrip(": ") + "\n"
        if options:
            yield "\n"


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n\n| code | when |\n|---|---|\n| 0 | done |\n"
    by_code: dict[int, list[str]] = {}
    for one in vars(errors).values():
        if isinstance(one, type) and issubclass(one, errors.HomerankerError) and one is not errors.HomerankerError:
            by_code.setdefault(one.exit_code, []).append(" ".join((one.__doc__ or "").split()))
    for code, texts in sorted(by_code.items()):
        yield f"| {code} | {' '.join(texts)} |\n"


def _parameters() -> Iterator[str]:
    yield "## Parameters\n\nSections of `params.yaml`; what is not named there has this default.\n"
    for section in Params.model_fields:
        yield f"\n### `{section}`\n\n| key | default |\n|---|---|\n"
        for key, value in _flat(getattr(Params(), section), ""):
            yield f"| `{key}` | `{value!r}` |\n"


def _flat(owner: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    names = (
        [one.name for one in dataclasses.fields(owner)]
        if dataclasses.is_dataclass(owner)
        else list(type(owner).model_fields)
    )
    for name in names:
        value = getattr(owner, name)
        if dataclasses.is_dataclass(value) or isinstance(value, BaseModel):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _tables() -> Iterator[str]:
    yield "## Tables\n\nParquet, one directory a table; `events` and `slates` in folders `date=YYYY-MM-DD`.\n"
    for name, table in TABLES.items():
        yield f"\n### `{name}`\n\n{(table.__doc__ or '').strip()}\n\n| column | type | rules |\n|---|---|---|\n"
        for column in table.COLUMNS:
            rules = [] if column.nullable else ["not null"]
            rules += ["unique"] if column.unique else []
            rules += ["1 to 256 characters"] if column.is_id else []
            if column.values:
                rules.append("an ISO 4217 code" if len(column.values) > 50 else "one of " + ", ".join(column.values))
            if column.minimum is not None:
                rules.append(f"{'>' if column.exclusive_minimum else '>='} {column.minimum:g}")
            rules += [] if column.maximum is None else [f"<= {column.maximum:g}"]
            yield f"| `{column.name}` | {column.type} | {'; '.join(rules)} |\n"


def _http() -> Iterator[str]:
    from serving.openapi import document

    yield "## HTTP\n\n| call | what | answers |\n|---|---|---|\n"
    for path, calls in sorted(document("1")["paths"].items()):
        for method, call in calls.items():
            what = re.sub(r"\s+", " ", call.get("summary") or call.get("description", "")).split(". ")[0]
            yield f"| `{method.upper()} {path}` | {what} | {', '.join(sorted(call['responses']))} |\n"


def _environment() -> Iterator[str]:
    yield "## Environment variables\n\n| variable | what |\n|---|---|\n"
    for name, what in VARIABLES.items():
        yield f"| `{name}` | {what} |\n"


def text() -> str:
    """The whole page."""
    parts = (_commands, _exit_codes, _http, _parameters, _environment, _tables)
    return HEAD + "".join("\n" + "".join(part()) for part in parts)


if __name__ == "__main__":
    PLACE.parent.mkdir(exist_ok=True)
    PLACE.write_text(text())
