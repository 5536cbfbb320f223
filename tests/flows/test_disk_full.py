"""A full disk: the run says where and how much it needs, and the next one works after room is made."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.checkout import Checkout, make_checkout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 30 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here (needs root)")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_named_and_room_heals_it(small_disk: Path, shop: Path, tmp_path: Path) -> None:
    whole = make_checkout(tmp_path)
    cramped = Checkout(whole.root, small_disk / "home")
    status, _, err = cramped.run("retrain", "--data", str(shop))
    assert status == 1
    assert str(small_disk) in err
    assert "disk is full" in err
    assert "MB" in err
    shutil.rmtree(cramped.home / "work", ignore_errors=True)
    subprocess.run(["mount", "-o", "remount,size=3g", str(small_disk)], check=True)
    told = cramped.retrain(shop)
    assert told["status"] == "done"


def test_too_little_room_is_refused_before_anything_starts(tmp_path: Path) -> None:
    from features.errors import HomerankerError
    from flows.runs import _need_space

    free = shutil.disk_usage(tmp_path).free // 2**20
    with pytest.raises(HomerankerError, match=r"MB free, a run needs about \d+ MB; make room"):
        _need_space(tmp_path, free + 1_000_000)
