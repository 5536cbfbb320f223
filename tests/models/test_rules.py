"""What a merchandiser gets of the rules file: clear errors, and rules that match what they name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.errors import UsageError
from models.rules import ItemFacts, Rules, compile_rules, load_rules

FACTS = ItemFacts(
    ["a", "b", "c"],
    ["X", None, "Y"],
    ["home > lamp", "home", "homes"],
    np.array([1.0, np.nan, 9.0]),
    np.zeros(3, np.int64),
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("boost: [{brand: X}]", r"boost.0.by: Field required"),
        ("boots: []", r"boots: Extra inputs"),
        ("exclude: [{}]", r"names no item"),
        ("pin: [{item: a, position: 0}]", r"pin.0.position"),
        ("pin: [{item: a, position: 1}, {item: b, position: 1}]", r"two pins share"),
        ("cap: [", r"no valid YAML"),
        ("cap: [{per: colour, most: 1}]", r"cap.0.per"),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_fault(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=told):
        load_rules(path)


def test_no_file_and_an_empty_file_are_no_rules(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_rules(tmp_path / "none.yaml") == load_rules(tmp_path / "empty.yaml") == Rules()


def test_a_rule_matches_what_it_names() -> None:
    rules = Rules.model_validate(
        {
            "exclude": [{"category": "home", "price_below": 5}],
            "boost": [{"brand": "Y", "by": 0.5}],
            "bury": [{"category": "home", "by": 0.2}],
            "pin": [{"item": "c", "position": 4}, {"item": "unknown", "position": 5}],
        }
    )
    compiled = compile_rules(rules, FACTS, 0)
    assert compiled.excluded_I.tolist() == [True, False, False]
    assert compiled.lift_I.tolist() == [-0.2, -0.2, 0.5]
    assert compiled.pins == {4: 2}
