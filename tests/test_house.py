"""Ratchets: what keeps the house in order is a test, not a habit."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from flows.graph import BY_NAME, dvc_text

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("features", "models", "serving", "flows")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FORBIDDEN = re.compile(r"\bpickle\b|torch\.load\(|joblib|yaml\.load\(|shell=True|(?<![.\w])eval\(")
NEGATION = re.compile(r"[Nn]ever pickle")


def test_the_import_arrows_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_dvc_yaml_equals_the_code() -> None:
    assert (ROOT / "dvc.yaml").read_text() == dvc_text(), "run `python -m flows.graph` and commit dvc.yaml"


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("judging", ("evaluate", "gate")),
        ("policy", ("policy",)),
        ("training", ("train_sequence", "train_ranker")),
        ("packaging", ("package",)),
    ],
)
def test_a_stage_is_run_again_where_a_parameter_that_it_reads_changed(module: str, stages: tuple[str, ...]) -> None:
    read = set(re.findall(r"params\(\)\.(\w+)", (ROOT / "flows" / "stages" / f"{module}.py").read_text()))
    known = {section for stage in stages for section in BY_NAME[stage].sections}
    whole = all(Path("params.yaml") in BY_NAME[stage].deps for stage in stages)
    assert read <= known or whole, f"flows/graph.py: {module} reads {sorted(read - known)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_stays_small_documented_and_safe(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300, "over 300 lines: a file that is hard to name is two files"
    tree = ast.parse(text)
    if text.strip():
        assert ast.get_docstring(tree) or path.name == "__init__.py", "says nothing of itself"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"
    lines = [line for line in text.splitlines() if FORBIDDEN.search(line) and not NEGATION.search(line)]
    assert lines == []


def test_what_is_installed_is_what_the_lock_pins() -> None:
    wrong = []
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        name, _, pinned = line.partition("==")
        try:
            have = version(name)
        except PackageNotFoundError:
            continue
        if have.split("+")[0] != pinned:
            wrong.append(f"{name}: {have}, pinned {pinned}")
    assert wrong == []
