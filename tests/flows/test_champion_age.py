"""What the gate is told of the champion's age, from the champion's run to the rule that may refuse a newer one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.stages.judging import newer_than
from flows.workspace import bring_champion

END = "2026-03-31T23:59:30Z"
END_US = 1_775_001_570_000_000  # the same moment


def champion(folder: Path, **model: str) -> dict[str, str]:
    """champion.json, as a retrain brings it in from a run directory."""
    run_dir, place = folder / "run", folder / "place"
    documents = {
        "manifest.json": {"content": {"model_version": "v1"}},
        "model/manifest.json": model,
        "validation.json": {"profile": {}},
        "judged/model.json": {},
    }
    for name, document in documents.items():
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).write_text(json.dumps(document))
    bring_champion(run_dir, place)
    told: dict[str, str] = json.loads((place / "champion.json").read_text())
    return told


@pytest.mark.parametrize(
    ("end_us", "newer"),
    [
        (END_US, False),
        (END_US + 400_000, False),  # a manifest holds whole seconds: the same data is not newer by a fraction
        (END_US - 86_400_000_000, False),
        (END_US + 86_400_000_000, True),
    ],
)
def test_one_more_day_of_an_archive_is_newer_than_the_champion(tmp_path: Path, end_us: int, newer: bool) -> None:
    assert newer_than(champion(tmp_path, trained_until=END), end_us) is newer


def test_a_champion_that_does_not_say_and_none_at_all_excuse_no_age(tmp_path: Path) -> None:
    assert not newer_than(champion(tmp_path), END_US) and not newer_than(None, END_US)
