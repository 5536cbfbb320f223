"""A checkout of its own with a quarter of the real shop's customers: small enough to retrain in a test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from features.importers import import_data
from features.tables import read_table, write_rows

REPOSITORY = Path(__file__).resolve().parents[2]
AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@localhost")
SMALL = {
    "tune_users": 150,
    "examples": {"cuts": 3, "tune_cuts": 1, "places": 160},
    "ranker": {"loop": {"epochs": 4}},
    "sequence": {"loop": {"epochs": 1}, "max_windows": 600},
}


@dataclass(frozen=True)
class Checkout:
    """A clone with small parameters, and a home of its own."""

    root: Path
    home: Path

    def environment(self) -> dict[str, str]:
        """Variables of a command in this checkout."""
        return {
            **os.environ,
            "HOMERANKER_HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONWARNINGS": "ignore",
            "OMP_WAIT_POLICY": "PASSIVE",
            "GOMP_SPINCOUNT": "0",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command in the background."""
        command = [sys.executable, "-m", "flows.cli", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.root, env=self.environment(), stdout=pipe, stderr=pipe, text=True)

    def run(self, *words: str) -> tuple[int, dict[str, Any] | str, str]:
        """(exit status, the JSON document or the words on stdout, stderr)."""
        process = self.start(*words)
        out, err = process.communicate(timeout=580)
        return process.returncode, json.loads(out) if "--json" in words and out.strip() else out, err

    def retrain(self, data: Path, *words: str) -> dict[str, Any]:
        """A retrain that ends well or is refused; its record."""
        status, told, err = self.run("retrain", "--data", str(data), "--json", *words)
        assert status in (0, 3), f"{told}\n{err}"
        assert isinstance(told, dict)
        return told

    def manifest(self, run: str) -> dict[str, Any]:
        """The manifest of a run."""
        told: dict[str, Any] = json.loads((self.home / "runs" / run / "manifest.json").read_text())
        return told


def git(*words: str, cwd: Path) -> str:
    """A git command that must succeed."""
    return subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


def make_checkout(place: Path) -> Checkout:
    """A clone of this working tree as it stands, with small parameters, all committed."""
    root = place / "checkout"
    git("clone", "--quiet", "--no-hardlinks", str(REPOSITORY), str(root), cwd=place)
    tracked = git("ls-files", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY).splitlines()
    for name in tracked:
        source = REPOSITORY / name
        if source.is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, root / name)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["train"] = {"threads": 1, **SMALL}
    params["run"] = {"retry_delay_s": 0.2, "free_disk_mb": 1}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    git("add", "--all", cwd=root)
    git(*AUTHOR, "commit", "--quiet", "--allow-empty", "-m", "small", cwd=root)
    return Checkout(root, place / "home")


def ask(port: int, path: str, service: subprocess.Popen[str]) -> Any:
    """The answer of a service to GET, once it is ready."""
    for _ in range(240):
        assert service.poll() is None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                break
        except OSError:
            time.sleep(0.25)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return json.loads(answer.read())


def quarter_of_the_shop(place: Path) -> Path:
    """Canonical tables: every fourth customer of Online Retail, without guests."""
    whole, part = place / "whole", place / "shop"
    import_data("online-retail", REPOSITORY / "data" / "online_retail.parquet", whole)
    events = read_table(whole, "events")
    known = events.filter(pc.is_valid(events["user_id"]))
    quarter = pc.equal(pc.bit_wise_and(pc.cast(known["user_id"], pa.int64()), 3), 0)
    write_rows(part, "events", [known.filter(quarter)])
    write_rows(part, "items", [read_table(whole, "items")])
    return part
