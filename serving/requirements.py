"""What a Bento needs installed: the packages that serving imports and what those need; nothing that only trains.

Choices. The lock pins everything that the project ever installs; an image of the service needs half of it. The roots
are named here, the rest is read from the installed packages' own metadata, so nobody keeps a second list. Versions
are the lock's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from features.errors import ArtifactError

ROOTS = (
    "bentoml",
    "feast[duckdb,redis]",
    "jinja2",
    "lightgbm",
    "numpy",
    "orjson",
    "pandas",
    "prometheus-client",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "redis",
    "safetensors",
    "scipy",
    "threadpoolctl",
    "torch",
    "xxhash",
)
# Required by Feast's own requirements, for checking types; nothing imports them.
UNUSED = frozenset({"ast-serialize", "librt", "mypy", "mypy-extensions", "types-greenlet"})


def serving_requirements(lock: Path) -> list[str]:
    """`name==version` lines of the lock that a service needs, sorted; ArtifactError where the lock lacks a root."""
    pins = _pins(lock)
    missing = [root for root in ROOTS if canonicalize_name(Requirement(root).name) not in pins]
    if missing:
        raise ArtifactError(f"{lock}: {', '.join(missing)} not pinned; run `make lock`")
    return [pins[name] for name in sorted(set(needed_by(ROOTS)) - UNUSED) if name in pins]


def needed_by(roots: Sequence[str]) -> Mapping[str, frozenset[str]]:
    """Canonical name -> extras of every package that the roots need here, themselves included."""
    found: dict[str, frozenset[str]] = {}
    todo = [Requirement(root) for root in roots]
    while todo:
        one = todo.pop()
        name, extras = canonicalize_name(one.name), frozenset(one.extras)
        if name in found and extras <= found[name]:
            continue
        found[name] = found.get(name, frozenset()) | extras
        try:
            needs = [Requirement(text) for text in requires(one.name) or ()]
        except PackageNotFoundError:
            continue
        wanted = ("", *found[name])
        todo += [
            need for need in needs if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in wanted)
        ]
    return found


def _pins(lock: Path) -> dict[str, str]:
    try:
        lines = lock.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ArtifactError(f"{lock}: cannot be read ({error.strerror}); it pins what a Bento installs") from error
    return {canonicalize_name(line.split("==")[0]): line for line in lines if "==" in line and line[0] != "#"}
