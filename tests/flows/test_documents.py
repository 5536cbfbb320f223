"""The documents are true: the reference is made from the code, and every command in them runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from flows import reference
from serving.params import from_environment
from tests.flows.checkout import REPOSITORY, Checkout, make_checkout

DOCS = ("docs/tutorial.md", "docs/how-to.md", "deploy/runbook.md")
NOT_RUN, BEHIND = "# not run here", "# second terminal"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\((?!http)([^)#]+)")


def blocks(path: str) -> list[str]:
    return BLOCK.findall((REPOSITORY / path).read_text())


def test_the_reference_is_what_the_code_says() -> None:
    assert (REPOSITORY / "docs" / "reference.md").read_text() == reference.text(), "run `python -m flows.reference`"


def test_every_variable_that_the_code_reads_is_in_the_reference() -> None:
    code = "\n".join(
        p.read_text() for name in ("serving", "flows", "features") for p in (REPOSITORY / name).rglob("*.py")
    )
    inner = {"COSTS", "ERRORS", "PARENT", "STARTED_BY", "PROGRESS", "STAGES", "FALLBACK", "MODEL", ""}
    read = {
        name for name in re.findall(r'"(HOMERANKER_[A-Z_]*)"', code) if name.removeprefix("HOMERANKER_") not in inner
    }
    assert read - set(reference.VARIABLES) == set()
    assert from_environment({}).workers == 1


@pytest.mark.parametrize("path", ["README.md", *DOCS, "docs/why.md"])
def test_every_link_leads_somewhere(path: str) -> None:
    place = (REPOSITORY / path).parent
    assert [to for to in LINK.findall((REPOSITORY / path).read_text()) if not (place / to).exists()] == []


def workplace(checkout: Checkout, shop: Path) -> dict[str, str]:
    """The environment of somebody who sits in a checkout whose `make` has installed already."""
    here = checkout.root / ".venv"
    here.mkdir()
    (here / "bin").symlink_to(Path(sys.executable).parent)
    for stamp in (".installed", ".installed-dev"):
        (here / stamp).touch()
    keep = {name: value for name, value in os.environ.items() if not name.startswith("HOMERANKER_")}
    path = f"{here / 'bin'}:{os.environ['PATH']}"
    own = {
        "PYTHONPATH": str(checkout.root),
        "HOMERANKER_HOME": str(checkout.home),
        "DATA": str(shop),
    }
    return keep | checkout.environment() | own | {"PATH": path}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", DOCS)
def test_every_command_in_the_documents_runs(path: str, shop: Path, tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path)
    environment = workplace(checkout, shop)
    if path == "docs/how-to.md":  # begins where the tutorial ends: with a finished run
        words = ["homeranker", "retrain", "--json"]
        told = subprocess.run(words, cwd=checkout.root, env=environment, check=True, capture_output=True).stdout
        environment["RUN"] = json.loads(told)["run"]
    background: list[subprocess.Popen[bytes]] = []
    try:
        for block in blocks(path):
            if block.startswith(NOT_RUN):
                continue
            words = ["bash", "-euo", "pipefail", "-c", block]
            if block.startswith(BEHIND):
                words[-1] = block.replace("homeranker serve", "exec homeranker serve")
                background.append(
                    subprocess.Popen(words, cwd=checkout.root, env=environment, stdout=subprocess.DEVNULL)
                )
                continue
            done = subprocess.run(
                words, cwd=checkout.root, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    finally:
        for process in background:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
    assert blocks(path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["look-into-the-data", "compare-two-runs"])
def test_the_notebooks_run(name: str, shop: Path, tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path)
    if name == "compare-two-runs":
        checkout.retrain(shop)
        checkout.retrain(shop, "--until", "2011-11-20")
    notebook = nbformat.read(REPOSITORY / "docs" / f"{name}.ipynb", as_version=4)
    os.environ["HOMERANKER_HOME"] = str(checkout.home)
    try:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(checkout.root)}}).execute()
    finally:
        del os.environ["HOMERANKER_HOME"]
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert len(shown) >= 3
