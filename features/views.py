"""EDGE: the Feast objects: entity `user`, the view `user_history`, the service `homepage_v1`, and a store made in code.

Choices. The store is built in Python and never from a repository folder, which Feast would import file by file. DuckDB
reads the history offline; online is one SQLite file by default, or Redis where `HOMERANKER_REDIS_URL` is set. Redis
writes with Feast's own comparison of times switched off, because that one drops a tie; `store.write_online` compares.
The library is imported when first used, and without what it does to itself then: it has its classes recompiled with
checks of types, three of the four seconds that its import takes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from features.errors import UsageError
from features.history import History

if TYPE_CHECKING:
    from feast import FeatureStore

REDIS_URL = "HOMERANKER_REDIS_URL"
PROJECT = "homeranker"
VIEW = "user_history"
SERVICE = "homepage_v1"


@contextmanager
def _as_written() -> Iterator[None]:
    """Feast is imported inside this as it was written. Typeguard's decorator is for development, its manual says."""
    import typeguard

    checks = typeguard.typechecked
    typeguard.typechecked = lambda target=None, **_: target or (lambda same: same)  # type: ignore[assignment]
    try:
        yield
    finally:
        typeguard.typechecked = checks


@dataclass(frozen=True)
class ViewParams:
    """`ttl_days`: in training, a state older than this at the time of its row counts as missing."""

    ttl_days: int = 730


def objects(offline_path: Path, params: ViewParams | None = None) -> list[Any]:
    """The entity, the feature view over the history Parquet file, and the feature service."""
    with _as_written():
        from feast import Entity, FeatureService, FeatureView, Field, FileSource
        from feast.types import Array, FeastType, Float64, Int64, String
        from feast.value_type import ValueType

    params = params or ViewParams()
    types: dict[str, FeastType] = {
        "string": String, "int64": Int64, "double": Float64, "list<item: string>": Array(String),
        "list<item: int64>": Array(Int64), "list<item: double>": Array(Float64),
    }  # fmt: skip
    user = Entity(name="user", join_keys=[History.USER_ID], value_type=ValueType.STRING)
    schema = [Field(name=name, dtype=types[_arrow_name(name)]) for name in History.FEATURES]
    view = FeatureView(
        name=VIEW,
        entities=[user],
        ttl=timedelta(days=params.ttl_days),
        schema=[*schema, Field(name=History.USER_ID, dtype=String)],
        source=FileSource(name=VIEW, path=str(offline_path.resolve()), timestamp_field=History.EVENT_TIMESTAMP),
        online=True,
    )
    return [user, view, FeatureService(name=SERVICE, features=[view])]


def _arrow_name(name: str) -> str:
    return str(History.SCHEMA.field(name).type).replace("element", "item")


def redis_connection(url: str, timeout_s: float | None = None) -> str:
    """`redis[s]://[user:password@]host[:port][/db]` as Feast spells it; UsageError for anything else."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise UsageError(f"{REDIS_URL} must look like redis://host:6379/0 (or rediss:// for TLS)")
    words = [f"{parts.hostname}:{parts.port or 6379}", f"db={parts.path.strip('/') or 0}"]
    if parts.username:
        words.append(f"username={unquote(parts.username)}")
    if parts.password:
        words.append(f"password={unquote(parts.password)}")
    if "," in "".join(words[1:]):
        raise UsageError(f"{REDIS_URL}: Feast cannot take a user name or password with a comma")
    if timeout_s is not None:
        words += [f"socket_timeout={timeout_s}", f"socket_connect_timeout={timeout_s}"]
    return ",".join([*words, *(["ssl=true"] if parts.scheme == "rediss" else [])])


def store_for(
    root: Path,
    *,
    offline_path: Path,
    redis_url: str | None = None,
    timeout_s: float | None = None,
    params: ViewParams | None = None,
) -> FeatureStore:
    """The feature store kept under `root` (registry and SQLite file), with the objects applied.

    `offline_path` is the history Parquet file (`history.write_history`); `redis_url` puts the online values into Redis,
    which then has `timeout_s` seconds for each command.
    """
    os.environ.setdefault("FEAST_USAGE", "False")
    with _as_written():
        from feast import FeatureStore, RepoConfig

    root.mkdir(parents=True, exist_ok=True)
    online: dict[str, Any] = {"type": "sqlite", "path": str(root.resolve() / "online.db")}
    if redis_url:
        online = {"type": "redis", "connection_string": redis_connection(redis_url, timeout_s), "skip_dedup": True}
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"path": str(root.resolve() / "registry.db"), "cache_ttl_seconds": 0},
        offline_store={"type": "duckdb"},
        online_store=online,
        entity_key_serialization_version=3,
        repo_path=root.resolve(),
    )
    store = FeatureStore(config=config)
    store.apply(objects(offline_path, params))
    return store


def redis_url_from_environment() -> str | None:
    """The value of `HOMERANKER_REDIS_URL`, None where it is unset or empty."""
    return os.environ.get(REDIS_URL) or None
