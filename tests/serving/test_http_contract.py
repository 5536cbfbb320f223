"""The black-box checker of the contract passes on a built Bento, with and without keys, with one and two workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serving.package import served

CHECKER = Path(__file__).resolve().parents[3] / "shared" / "check" / "http_contract.py"
needs_checker = pytest.mark.skipif(not CHECKER.is_file(), reason="the checker lies beside the repository, not in it")


def run_checker(base: str, items: Path, *more: str) -> str:
    command = [sys.executable, str(CHECKER), base, "--items", str(items), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_checker
def test_every_check_passes_on_a_built_bento_without_keys(service: str, items_file: Path) -> None:
    assert " 0 FAIL, 0 warn" in run_checker(service, items_file)


@needs_checker
@pytest.mark.slow
def test_every_check_passes_on_two_workers_with_a_key(tmp_path: Path, bento: Path, items_file: Path) -> None:
    with served(bento, tmp_path, workers=2, HOMERANKER_API_KEYS="k1 k2") as (base, _):
        assert " 0 FAIL, 0 warn" in run_checker(base, items_file, "--key", "k2")
