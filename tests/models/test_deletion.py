"""A user who was deleted and a retrain: the same bytes as if they had never been there; no user is a parameter."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from features.schema import Events
from models.homepage import HomepageModel, fit_simple
from models.training import deterministic
from tests.models.conftest import events_table, items_table

GONE = "u007"


def trained(events: pa.Table, place: Path) -> dict[str, bytes]:
    """File name -> bytes of the saved model."""
    deterministic(1, 0)
    fit_simple(events, items_table()).save(place)
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def test_deleted_and_retrained_equals_never_there_byte_for_byte(tmp_path: Path) -> None:
    whole = events_table(users=60)
    deleted = whole.filter(pc.not_equal(whole[Events.USER_ID], GONE))
    never = pa.Table.from_pylist(  # a log that was written without them, in another order
        [row for row in reversed(whole.to_pylist()) if row[Events.USER_ID] != GONE], schema=whole.schema
    ).sort_by([(Events.EVENT_TIME, "ascending"), (Events.EVENT_ID, "ascending")])
    with_them = trained(whole, tmp_path / "with")
    after = trained(deleted, tmp_path / "deleted")
    assert after == trained(never, tmp_path / "never")
    assert after != with_them


def test_no_array_of_the_model_grows_with_the_users(tmp_path: Path) -> None:
    few, many = (fit_simple(events_table(users=users), items_table()) for users in (40, 60))

    def sizes(model: HomepageModel) -> dict[str, tuple[int, ...]]:
        from models.packing import pack

        return {name: array.shape for name, array in pack(model)[0].items() if not name.startswith("relation/")}

    assert sizes(few) == sizes(many)
    assert not any(GONE.encode() in data for data in trained(events_table(users=60), tmp_path / "all").values())
