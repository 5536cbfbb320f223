"""Settings of the service that a shop may change in params.yaml; addresses and secrets are environment, read here once.

Choices. A frozen dataclass holds the defaults; `from_environment` is the one place that reads variables, so that the
rest of the service is given values. A Bento carries its settings as `model/serving.json` where params.yaml set any.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from features.errors import UsageError
from models.live import LearningParams
from models.page import PageParams
from models.policy.plackett_luce import PlackettLuceParams

SETTINGS_FILE = "serving.json"


@dataclass(frozen=True)
class AdsParams:
    """reserve: least price a click; attention: click share of slot s against slot 1 is ((1 + s) / 2) ** -attention.

    head_start: share of a daily budget that may be spent ahead of the day.
    """

    reserve: float = 0.0
    attention: float = 0.5
    relevance_floor: float = 0.0
    head_start: float = 0.05


@dataclass(frozen=True)
class ServingParams:
    """Defaults of the service; see each field's use."""

    candidates: int = 500
    module_size: int = 6
    temperature: float = PlackettLuceParams.temperature
    floor: float = PlackettLuceParams.floor
    diversity: float = PageParams.diversity
    search_weight: float = 0.25  # share of the person in a search's order
    live_events: int = 500  # newest live events of a person that a request looks at
    rate_per_key: float = 1000.0  # requests a second and key, each worker
    concurrency: int = 64  # requests at work or waiting in one worker; more are refused with 503
    standing: int = 32  # the same where the line has not been empty for a while
    deadline_s: float = 0.25  # how long a page waits for what is known of its person
    drain_s: float = 1.0  # how long /readyz says 503 before the sockets close
    watch_s: float = 2.0  # how often a worker looks for another champion
    refresh_s: float = 0.25  # how often a worker looks for changed items
    explanation_hours: float = 24.0
    ads: AdsParams = field(default_factory=AdsParams)
    learning: LearningParams = field(default_factory=LearningParams)


@dataclass(frozen=True)
class Environment:
    """What the process was told from outside."""

    home: Path
    keys: frozenset[str]
    replay: bool
    redis_url: str | None
    fallback: bool
    workers: int
    drain_s: float | None


def host_and_port(variables: Mapping[str, str] | None = None) -> tuple[str, int]:
    """Where a service of its own listens: everywhere with keys, 127.0.0.1 without; UsageError for a bad port."""
    given = os.environ if variables is None else variables
    host = given.get("HOMERANKER_HOST") or ("0.0.0.0" if _keys(given) else "127.0.0.1")  # noqa: S104 - only with keys
    port = given.get("HOMERANKER_PORT", "3000")
    if not port.isdigit():
        raise UsageError(f"HOMERANKER_PORT={port}: not a port number")
    return host, int(port)


def _keys(given: Mapping[str, str]) -> frozenset[str]:
    """API keys of HOMERANKER_API_KEYS and of the file that HOMERANKER_API_KEYS_FILE names."""
    text, path = given.get("HOMERANKER_API_KEYS", ""), given.get("HOMERANKER_API_KEYS_FILE")
    if path:
        try:
            text += " " + Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"HOMERANKER_API_KEYS_FILE={path}: cannot be read ({error.strerror})") from error
    return frozenset(text.replace(",", " ").split())


def from_environment(variables: Mapping[str, str] | None = None) -> Environment:
    """Read the variables; UsageError names a value that makes no sense."""
    given = os.environ if variables is None else variables
    try:
        workers = int(given.get("HOMERANKER_WORKERS", "1"))
        drain = float(given["HOMERANKER_DRAIN_SECONDS"]) if given.get("HOMERANKER_DRAIN_SECONDS") else None
    except ValueError as error:
        raise UsageError(f"HOMERANKER_WORKERS and HOMERANKER_DRAIN_SECONDS must be numbers: {error}") from error
    return Environment(
        home=Path(given.get("HOMERANKER_HOME") or ".homeranker").absolute(),
        keys=_keys(given),
        replay=given.get("HOMERANKER_REPLAY") == "1",
        redis_url=given.get("HOMERANKER_REDIS_URL") or None,
        fallback=given.get("HOMERANKER_FALLBACK") == "1",
        workers=max(1, workers),
        drain_s=drain,
    )


def load_settings(model_dir: Path) -> ServingParams:
    """The settings that travel with a model, or the defaults; UsageError names an unknown or wrong one."""
    path = model_dir / SETTINGS_FILE
    if not path.exists():
        return ServingParams()
    return settings(json.loads(path.read_text(encoding="utf-8")), str(path))


def settings(values: Mapping[str, Any], source: str = "params.yaml: serving") -> ServingParams:
    """Settings from plain values; `ads` and `learning` may be mappings of their own."""
    given = dict(values)
    try:
        ads = replace(AdsParams(), **given.pop("ads", {}))
        learning = replace(LearningParams(), **given.pop("learning", {}))
        return replace(ServingParams(ads=ads, learning=learning), **given)
    except TypeError as error:
        known = ", ".join(one.name for one in fields(ServingParams))
        raise UsageError(f"{source}: {error}; known are {known}") from error
