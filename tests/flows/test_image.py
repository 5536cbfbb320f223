"""The image: the same run gives the same digest, nothing of training is inside, and it answers a homepage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from serving.package import free_port
from tests.flows.checkout import Checkout

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
FORBIDDEN = ("prefect", "dvc", "great_expectations", "mypy", "pytest", "pip", "setuptools")


@pytest.fixture(scope="module")
def image(checkout: Checkout, first_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("image") / "service.oci"
    status, told, err = checkout.run("image", first_run["run"], "--out", str(out), "--json")
    assert status == 0, err
    assert isinstance(told, dict)
    (out.parent / "told.json").write_text(json.dumps(told))
    return out


@pytest.fixture(scope="module")
def root(image: Path) -> Path:
    """The unpacked root of the image."""
    layout, bundle = image.parent / "layout", image.parent / "bundle"
    with tarfile.open(image) as archive:
        archive.extractall(layout, filter="data")
    words = ["umoci", "unpack", "--image", f"{layout}:champion", str(bundle)]
    if os.getuid() != 0:
        words.insert(2, "--rootless")
    subprocess.run(words, check=True, capture_output=True)
    config = json.loads((bundle / "config.json").read_text())
    assert config["process"]["user"]["uid"] == 10001
    return bundle / "rootfs"


def test_the_same_run_gives_the_same_digest(
    checkout: Checkout, first_run: dict[str, Any], image: Path, tmp_path: Path
) -> None:
    status, told, err = checkout.run("image", first_run["run"], "--out", str(tmp_path / "again.oci"), "--json")
    assert status == 0, err
    assert isinstance(told, dict)
    assert told["digest"] == json.loads((image.parent / "told.json").read_text())["digest"]
    assert (tmp_path / "again.oci").read_bytes() == image.read_bytes()


def test_only_what_serving_needs_is_inside(root: Path) -> None:
    site = next((root / "opt").rglob("site-packages"))
    names = {path.name.lower() for path in site.iterdir()}
    assert {"torch", "bentoml", "feast"} <= names
    assert [name for name in FORBIDDEN if name in names] == []
    programs = [path for path in root.rglob("*") if path.name in ("gcc", "cc", "sh", "bash", "pip3.11")]
    assert programs == []
    bill = json.loads((root / "sbom.cdx.json").read_text())
    listed = {one["name"].lower().replace("_", "-") for one in bill["components"]}
    assert bill["bomFormat"] == "CycloneDX" and {"python", "torch", "bentoml"} <= listed
    installed = {path.name.split("-")[0].lower().replace("_", "-") for path in site.glob("*.dist-info")}
    assert installed - listed == set()


def test_it_answers_a_homepage_as_a_plain_process(root: Path, tmp_path: Path) -> None:
    state, port = tmp_path / "state", free_port()
    state.mkdir()
    told = {
        "LD_LIBRARY_PATH": str(root / "lib" / "x86_64-linux-gnu"),
        "PYTHONHOME": str(root / "opt" / "python"),
        "PYTHONPATH": str(root / "bento" / "src"),
        "PYTHONPYCACHEPREFIX": str(state / "pycache"),
        "HOMERANKER_HOME": str(state),
        "HOMERANKER_PORT": str(port),
        "HOME": str(state),
    }
    words = [str(root / "opt" / "python" / "bin" / "python3.11"), "-m", "serving", str(root / "bento")]
    if os.getuid() == 0:
        for place in (tmp_path, *list(tmp_path.parents)[:-2]):
            place.chmod(0o755)
        for place in (root, *list(root.parents)[:-2]):
            place.chmod(0o755)
        os.chown(state, 10001, 10001)
        words = ["/usr/bin/setpriv", "--reuid=10001", "--regid=10001", "--clear-groups", *words]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(words, env=told, stdout=log, stderr=log)
        try:
            page = ask(f"http://127.0.0.1:{port}/v1/homepage", process, (tmp_path / "log"))
        finally:
            process.terminate()
            process.wait(60)
    assert sum(len(module["slots"]) for module in page["modules"]) == 24
    assert process.returncode == 0


def ask(url: str, process: subprocess.Popen[bytes], log: Path) -> Any:
    headers = {"content-type": "application/json"}
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            request = urllib.request.Request(url, b'{"session_id": "s"}', headers)
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.loads(answer.read())
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def test_a_release_is_verified_and_a_foreign_image_is_refused(
    checkout: Checkout, first_run: dict[str, Any], image: Path, tmp_path: Path
) -> None:
    words = ["release", "verify", first_run["run"], "--image", str(image), "--json"]
    status, lines, _ = checkout.run(*words)
    told = {line["what"]: line for line in lines}  # type: ignore[index, union-attr]
    assert told["the image holds this run's Bento"]["ok"], told
    assert told["every file has the hash that was written"]["ok"], told
    assert told["the model loads and answers its golden requests"]["ok"], told
    assert (status == 0) == all(line["ok"] for line in told.values())
    victim = checkout.home / "runs" / first_run["run"] / "bento" / "src" / "model" / "model.json"
    kept = victim.read_bytes()
    victim.write_bytes(kept + b" ")
    try:
        status, lines, _ = checkout.run(*words)
    finally:
        victim.write_bytes(kept)
    told = {line["what"]: line for line in lines}  # type: ignore[index, union-attr]
    assert status == 1
    assert "model.json" in told["the image holds this run's Bento"]["says"]
    assert sys.version_info[:2] == (3, 11)
