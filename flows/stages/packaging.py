"""The package stage: the model that ships, with what the service tells about it, as a Bento; and the run's manifest.

Choices. The manifest's `content` is everything that the same commit and data must give again, and nothing else: no
time, path or machine. What bytes can depend on besides (library versions, threads, CPU) stands in `made_with`, so
that a difference is explained and not blamed on the data.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from flows.paths import Artifacts
from flows.stages import load
from models import checkpoint
from models.homepage import utc
from serving import consent
from serving.package import build_bento

A = Artifacts()
LOCK = Path("requirements.lock")
DECIDING_LIBRARIES = ("torch", "numpy", "scipy", "pyarrow", "duckdb", "ibis-framework", "lightgbm", "safetensors")


def package(no_consent: list[str]) -> None:
    """Write package/model, package/bento and package/manifest.json."""
    shutil.rmtree(A.package, ignore_errors=True)
    model_dir = A.package / "model"
    shutil.copytree(A.policy / "final", model_dir)
    verdict, metrics = load.read_json(A.verdict), load.read_json(A.evaluation / "metrics.json")
    times = load.times()
    told = {
        "trained_from": utc(times.start_us),
        "trained_until": utc(times.end_us),
        "judged_from": utc(times.gate_cut_us),
        "data_hash": load.digest_of(A.tables),
        "data": load.params().data.name,
        "verdict": verdict["verdict"],
        "metrics": {name: values["mean"] for name, values in metrics["models"]["challenger"]["metrics"].items()},
        consent.REFUSED: consent.marks(no_consent),
    }
    checkpoint.write_json(model_dir / "manifest.json", told)
    model_version = checkpoint.seal(model_dir)
    settings = asdict(load.params().serving)
    bento = build_bento(model_dir, A.package / "bento", version=model_version, settings=settings)
    load.write_json(A.package / "manifest.json", manifest(model_version, bento, told))


def manifest(model_version: str, bento: Path, told: dict[str, Any]) -> dict[str, Any]:
    """What this run is, by hashes; `hash` is the digest of `content`."""
    content = {
        "model_version": model_version,
        "bento": bento_tag(bento),
        "bento_hash": load.digest_of(bento),
        "data_hash": told["data_hash"],
        "clean_hash": load.digest_of(A.clean),
        "features_hash": load.digest_of(A.features),
        "weights_hash": load.digest_of(A.policy),
        "metrics_hash": load.digest_of(A.evaluation),
        "verdict_hash": load.digest_of(A.verdict),
        "verdict": told["verdict"],
        "params_hash": load.digest_of(Path("params.yaml")),
        "lock_hash": checkpoint.sha256_of(LOCK) if LOCK.exists() else None,
    }
    text = json.dumps(content, sort_keys=True)
    return {
        "hash": hashlib.sha256(text.encode()).hexdigest(),
        "content": content,
        "made_with": made_with(load.params().train.threads),
    }


def made_with(threads: int) -> dict[str, Any]:
    """What bytes can depend on besides code, data and parameters."""
    return {
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in DECIDING_LIBRARIES},
        "threads": threads,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
    }


def bento_tag(bento: Path) -> str:
    """name:version of a Bento directory."""
    import yaml

    told = yaml.safe_load((bento / "bento.yaml").read_text())
    return f"{told['name']}:{told['version']}"
