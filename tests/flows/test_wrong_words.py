"""Words on the command line that cannot be meant: exit 2 at once, a sentence that says what to write, nothing done."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.flows.checkout import Checkout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["erase", ""], "ids are 1 to 256 characters; nothing was erased"),
        (["erase", "u" * 257], "ids are 1 to 256 characters; nothing was erased"),
        (["retrain", "--data", ""], "--data is empty: name one of online-retail, simulated, open-bandit, or a"),
        (["schedule", "--cron", "bad"], 'write minute, hour, day, month and weekday, as "0 3 * * *" for every day at'),
    ],
)
def test_it_is_refused_at_once_with_what_to_write(
    checkout: Checkout, tmp_path: Path, words: list[str], said: str
) -> None:
    began, home = time.monotonic(), tmp_path / "home"
    status, told, err = Checkout(checkout.root, home).run(*words)
    assert status == 2 and not told
    assert said in err and "http" not in err
    assert len(err.strip().splitlines()) == 1
    assert time.monotonic() - began < 25
    assert not home.exists() or {path.name for path in home.iterdir()} <= {"prefect"}
