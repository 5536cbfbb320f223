"""A log in which nobody comes back is refused before hours of training, with what it is good for and what to do."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.cleaning import clean
from features.errors import TrainingError
from features.split import SplitParams
from flows.stages.load import choose_times
from flows.stages.run import _need_returns
from models.examples import ExampleParams
from models.items import ItemTable
from models.log import ActionLog
from models.simulator import SimulatorParams, generate

SHOP = SimulatorParams(users=60, items=80, sessions_per_day=60, days=6, page_size=10)


def test_a_log_of_strangers_is_refused_with_what_to_do(tmp_path: Path) -> None:
    generate(SHOP, tmp_path / "tables")
    clean(tmp_path / "tables", tmp_path / "clean")
    events = pq.read_table(tmp_path / "clean" / "events.parquet")
    items = ItemTable.from_arrow(pq.read_table(tmp_path / "clean" / "items.parquet"))
    log = ActionLog.from_arrow(events, items.index, len(items))
    _need_returns(log, choose_times(log, SplitParams()), ExampleParams())
    place = events.schema.get_field_index("user_id")
    strangers = events.set_column(place, "user_id", pa.nulls(events.num_rows, pa.string()))
    log = ActionLog.from_arrow(strangers, items.index, len(items))
    with pytest.raises(
        TrainingError, match=r"1,234 events were left out for want of consent .* the 0 other users none"
    ):
        _need_returns(log, choose_times(log, SplitParams()), ExampleParams(), 1_234)
    with pytest.raises(TrainingError, match=r"nobody to learn from: of 0 users.*benchmarks\.ope"):
        _need_returns(log, choose_times(log, SplitParams()), ExampleParams())
