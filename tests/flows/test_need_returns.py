"""A log in which nobody comes back is refused before hours of training, with what it is good for and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.cleaning import clean
from features.errors import TrainingError
from features.split import SplitParams
from flows.stages.load import choose_times
from flows.stages.run import _need_returns
from models.examples import ExampleParams
from models.history import TYPE_CODE
from models.items import ItemTable
from models.log import ActionLog
from models.recipe import Times
from models.simulator import SimulatorParams, generate

SHOP = SimulatorParams(users=60, items=80, sessions_per_day=60, days=6, page_size=10)

DAY_US = 86_400_000_000


def log_of(days: list[int], users_a_day: int) -> ActionLog:
    """The same people on every day of the list (counted from 1 March 2026), one view an hour."""
    hour = np.arange(users_a_day)
    midnight = 20_513 * DAY_US + np.array(days)[:, None] * DAY_US
    times = (midnight + hour * 3_600_000_000).ravel()
    n, user = times.size, np.tile(hour, len(days))
    names = tuple(f"u{at}" for at in hour)
    zeros, guest = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=bool)
    codes = np.full(n, TYPE_CODE["view"])
    return ActionLog(user, guest, np.arange(n), zeros, codes, times, np.ones(n), np.ones(n), names, 1)


@pytest.mark.parametrize("strays", [[-9_000], [-9_000, -2_000, -30], [4_000], [-730, 59 + 400]])
def test_strays_do_not_move_the_slices(strays: list[int]) -> None:
    plain = log_of(list(range(60)), 20)
    more = log_of(strays, 1)
    whole = {
        name: np.concatenate([getattr(more, name), getattr(plain, name)])
        for name in ("user", "is_guest", "session", "item", "type_code", "time_us", "quantity", "price")
    }
    with_strays = replace(plain, **whole).rows(np.argsort(whole["time_us"], kind="stable"))
    times = choose_times(with_strays, SplitParams())
    assert times == choose_times(plain, SplitParams())
    _need_returns(with_strays, times, ExampleParams())


def test_what_follows_a_gap_of_two_years_is_split_as_it_would_be_alone() -> None:
    newer = list(range(41))
    times = choose_times(log_of([day - 760 for day in range(19)] + newer, 20), SplitParams())
    assert times == choose_times(log_of(newer, 20), SplitParams())


def test_who_does_not_come_back_is_counted() -> None:
    """A tune slice within a gap: the message says how many are known, and that nobody acts there."""
    log = log_of([*range(30), *range(60, 90)], 20)
    start, cut = int(log.time_us[0]), int(log.time_us[0]) + 55 * DAY_US
    told = (
        r"of 20 users with a user_id none comes back in time: 20 came before 2026-04-2.* 0 of 1,200 actions lie between"
    )
    with pytest.raises(TrainingError, match=told):
        _need_returns(log, Times(start, cut, cut + 2 * DAY_US, cut + 4 * DAY_US), ExampleParams())


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
