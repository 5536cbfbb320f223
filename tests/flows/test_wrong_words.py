"""Words on the command line that cannot be meant: exit 2 at once, a sentence that says what to write, nothing done."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from features.errors import SourceError
from flows.commands.jobs import import_
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


HEADER = "event_id,event_time,event_type,user_id,item_id"


def test_an_import_of_which_nothing_is_left_fails_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    src = tmp_path / "src"
    src.mkdir()
    (src / "items.csv").write_text("item_id\ni1\n")
    local, whole = "e{0},2026-01-31 12:00:00,view,u,i1", "e{0},2026-01-31T12:00:00Z,view,u,i1"
    bad = [local.format(1), local.format(2), "e3,2026-01-31T12:00:00Z,wave,u,i1"]
    (src / "events.csv").write_text("\n".join([HEADER, *bad]))
    assert import_("canonical", src, tmp_path / "out") == 1
    said = capsys.readouterr()
    assert "events: none of 3 rows could be taken; 2 of them for 'event_time: not a time with an offset" in said.err
    assert "items: 1 in, 1 out" in said.out
    (src / "events.csv").write_text("\n".join([HEADER, *bad, whole.format(4)]))
    assert import_("canonical", src, tmp_path / "out") == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("separator", "word"), [(";", "semicolons"), ("\t", "tabs")])
@pytest.mark.parametrize("format", ["canonical", "personalize"])
def test_another_separator_than_the_comma_is_named(tmp_path: Path, format: str, separator: str, word: str) -> None:
    (tmp_path / "events.csv").write_text(f"{HEADER}\ne1,2026-01-31T12:00:00Z,view,u,i1\n".replace(",", separator))
    with pytest.raises(SourceError, match=f"events.csv: the columns are separated by {word}; write it with commas"):
        import_(format, tmp_path, tmp_path / "out")
