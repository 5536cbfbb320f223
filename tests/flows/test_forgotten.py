"""An erased user leaves no trace in what the next retrain makes: its bytes are those without the user."""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pytest

from features.tables import read_table, write_rows
from tests.flows.checkout import make_checkout


def busiest(shop: Path) -> str:
    """The user with the most events, whom counts and networks would remember most of."""
    counts = read_table(shop, "events")["user_id"].value_counts().to_pylist()
    return str(max(counts, key=lambda one: (one["counts"], one["values"]))["values"])


@pytest.mark.slow
def test_erased_and_retrained_is_byte_for_byte_as_if_the_user_had_never_come(shop: Path, tmp_path: Path) -> None:
    user, without = busiest(shop), tmp_path / "without" / shop.name  # a manifest names its data
    events = read_table(shop, "events")
    write_rows(without, "events", [events.filter(pc.not_equal(events["user_id"], user))])
    write_rows(without, "items", [read_table(shop, "items")])
    made = {}
    for name, data in (("erased", shop), ("never", without)):
        (tmp_path / name).mkdir()
        checkout = make_checkout(tmp_path / name)
        if name == "erased":
            status, told, err = checkout.run("erase", user)
            assert status == 0, f"{told}{err}"
        run = checkout.retrain(data)["run"]
        model = checkout.home / "runs" / run / "model"
        made[name] = (
            checkout.manifest(run)["content"],
            {path.relative_to(model): path.read_bytes() for path in sorted(model.rglob("*")) if path.is_file()},
        )
    (erased, erased_files), (never, never_files) = made["erased"], made["never"]
    assert erased_files.keys() == never_files.keys() and erased_files
    assert [str(name) for name in never_files if erased_files[name] != never_files[name]] == []
    assert erased == never
