"""Stages from one warm process: the same output and status as by hand, and nothing left behind when it is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flows.paths import REPOSITORY
from flows.stages.warm import SOCKET, warmed


@pytest.fixture
def found(tmp_path: Path) -> Iterator[dict[str, str]]:
    told = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "HOMERANKER_PARENT": str(os.getpid()),
        "HOMERANKER_ERRORS": str(tmp_path / "error.json"),
        "HOMERANKER_COSTS": str(tmp_path / "costs"),
    }
    with warmed(tmp_path, told) as variables:
        yield variables


def stage(name: str, variables: dict[str, str], place: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.stages", name]
    return subprocess.Popen(
        command, cwd=place, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def at(place: Path) -> set[int]:
    """Processes that work in a directory."""
    return {one.pid for one in psutil.process_iter(["cwd"]) if one.info["cwd"] == str(place)}


def until(true: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_a_stage_says_the_same_as_by_hand_and_its_cost_is_noted(found: dict[str, str], tmp_path: Path) -> None:
    by_hand = {name: value for name, value in found.items() if name != SOCKET}
    alone = stage("gate", by_hand, tmp_path)
    said = alone.communicate()[0]
    (told,) = tmp_path.glob("error.json")
    why = told.read_text()
    assert alone.returncode != 0 and "gate" in said and why
    for _ in range(2):  # each is a fork of its own
        told.unlink()
        warm = stage("gate", found, tmp_path)
        assert (warm.communicate()[0], warm.returncode, told.read_text()) == (said, alone.returncode, why)
    assert (tmp_path / "costs" / "gate.json").exists()
    assert stage("nothing", found, tmp_path).communicate()[0] == stage("nothing", by_hand, tmp_path).communicate()[0]


def test_where_nobody_answers_the_command_does_the_work_itself(found: dict[str, str], tmp_path: Path) -> None:
    (warm,) = at(tmp_path)
    os.kill(warm, signal.SIGKILL)
    until(lambda: not at(tmp_path))
    alone = stage("gate", found, tmp_path)
    assert "gate" in alone.communicate()[0] and alone.returncode != 0


@pytest.mark.parametrize("victim", ["command", "warm process", "stage"])
def test_whoever_is_killed_the_stage_ends_with_all_that_it_started(
    found: dict[str, str], tmp_path: Path, victim: str
) -> None:
    (warm,) = at(tmp_path)
    os.mkfifo(tmp_path / "params.yaml")  # whoever reads it waits for ever
    asked = stage("import", found, tmp_path)
    until(lambda: len(at(tmp_path)) == 3)
    (forked,) = at(tmp_path) - {warm, asked.pid}
    os.kill({"command": asked.pid, "warm process": warm, "stage": forked}[victim], signal.SIGKILL)
    until(lambda: forked not in at(tmp_path))
    asked.communicate(timeout=20)
    assert asked.returncode != 0
    assert (warm in at(tmp_path)) == (victim != "warm process")
