"""A model on disk: safetensors for the arrays, JSON for the rest, and a digest over both. Never pickle.

Choices. The digest file names the sha256 of every other file, so that one flipped byte is found and named at load.
Arrays are written in order of their names: the same model gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from features.errors import ArtifactError

ARRAYS, CONFIG, DIGEST = "arrays.safetensors", "model.json", "digest.json"
Array = npt.NDArray[Any]


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Stable JSON: sorted keys, one trailing newline."""
    path.write_text(json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def save(directory: Path, arrays: Mapping[str, Array], config: Mapping[str, Any]) -> str:
    """Write a model directory; returns its version, the first 16 hex digits of the digest of its content."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}, directory / ARRAYS)
    write_json(directory / CONFIG, config)
    return seal(directory)


def seal(directory: Path) -> str:
    """Write the digest of every file in the directory; returns the version (of arrays and config alone)."""
    names = sorted(path.name for path in directory.iterdir() if path.is_file() and path.name != DIGEST)
    files = {name: sha256_of(directory / name) for name in names}
    version = hashlib.sha256((files[ARRAYS] + files[CONFIG]).encode()).hexdigest()[:16]
    write_json(directory / DIGEST, {"version": version, "files": files})
    return version


def load(directory: Path) -> tuple[dict[str, Array], dict[str, Any], str]:
    """Arrays, config and version.

    Raises ArtifactError naming the file that is missing or changed, or the array that holds a value that is not finite.
    """
    try:
        digest = json.loads((directory / DIGEST).read_text())
        for name, expected in digest["files"].items():
            if sha256_of(directory / name) != expected:
                raise ArtifactError(
                    f"{directory / name}: changed since it was written; take the model from its run again"
                )
        arrays = load_file(directory / ARRAYS)
        config = json.loads((directory / CONFIG).read_text())
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"{directory}: not a whole model ({error}); take the model from its run again") from error
    for name, value in arrays.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ArtifactError(f"{directory / ARRAYS}: {name} holds a value that is not finite; retrain")
    return arrays, config, str(digest["version"])
