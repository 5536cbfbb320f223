"""The benchmark meets files that it was not made for: it says what is wrong, or tunes with what little there is."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import ranker_basket
from benchmarks.ranker_data import Table, leave_out, read_attributes, read_table, repeats, tasks
from benchmarks.ranker_models import Job, lightgbm
from benchmarks.ranker_table import export, rank_all
from features.errors import SchemaError, SourceError, UsageError
from models.interactions import CELLS, chunks

DAY = 86_400
FIRST = dt.date(2020, 9, 14)
START = int(dt.datetime(2020, 9, 14, tzinfo=dt.UTC).timestamp())


def write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
    return path


def table(days: list[int], users: int = 40, items: int = 25, length: int = 4, seed: int = 0) -> Table:
    """Users who act on the given days alone."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), length)
    ts = START + np.sort(rng.choice(days, (users, length)), axis=1).ravel() * DAY + np.tile(np.arange(length), users)
    return Table(user, rng.integers(0, items, user.size), ts, np.arange(items) * 7 - 3)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"user": [1, 1], "item": [1, 2], "pos": [0, 0], "ts": [1, 2]}, "user 1 has two rows with one pos"),
        ({"user": [1], "item": [1], "pos": [0], "ts": [1_600_000_000_000]}, "Unix seconds.*milliseconds"),
        ({"user": [1], "item": [1.5], "pos": [0], "ts": [1]}, "item must be integers without nulls; it is double"),
        ({"user": [1, None], "item": [1, 2], "pos": [0, 1], "ts": [1, 2]}, "user must be .*; it is int64 with 1 nulls"),
        ({"user": pa.array([], pa.int64()), "item": pa.array([], pa.int64()), "pos": pa.array([], pa.int64()),
          "ts": pa.array([], pa.int64())}, "no rows"),
    ],
    ids=["pos", "milliseconds", "fractions", "nulls", "empty"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_told_why(tmp_path: Path, columns: dict[str, object], told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        read_table(write(tmp_path / "x.parquet", **columns))


def test_a_cut_that_leaves_nobody_is_told_with_the_days_that_there_are() -> None:
    with pytest.raises(UsageError, match="runs from 2020-09-14 to 2020-09-19"):
        tasks(table([0, 5]), "time", FIRST - dt.timedelta(days=3))
    alone = table([0, 5], length=1)
    with pytest.raises(UsageError, match="no user has rows both up to it and after it"):
        tasks(alone, "time", FIRST)
    with pytest.raises(UsageError, match="no user has two rows"):
        tasks(alone, "loo", None)
    with pytest.raises(UsageError, match="no user has three rows"):
        tasks(table([0, 5], length=2), "loo", None)
    with pytest.raises(UsageError, match="holds 2 items; with fewer than 3"):
        tasks(table([0, 5], items=2), "loo", None)


def test_who_has_no_candidate_is_told_popular_things() -> None:
    for items in (3, 4):  # the lowest score of a source names nobody, nor do ties with its bound
        tuning, task = tasks(table(list(range(9)), users=200, items=items), "loo", None)
        model = lightgbm(Job(tuning, task.train, None, 0))
        assert np.isfinite(model.scores(task.asked)).any(axis=1).all()


def test_the_protocol_says_which_form_it_wants(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a directory, which --protocol next-basket takes"):
        read_table(tmp_path)
    path = write(tmp_path / "x.parquet", user=[1], item=[1], pos=[0], ts=[1])
    with pytest.raises(SourceError, match="next-basket takes canonical tables"):
        ranker_basket.read(path)


def test_where_one_day_is_all_there_is_before_the_cut_each_users_last_row_tunes() -> None:
    tuning, task = tasks(table([0, 1]), "time", FIRST)
    assert len(tuning.asked) > 5 and len(task.asked) > 5
    assert tuning.train.ts_R.max() < START + DAY
    few, _ = tasks(table([0, 1, 2, 9]), "time", FIRST + dt.timedelta(days=2))
    assert len(few.asked) > 5


def test_a_handful_of_users_and_items_still_gets_lists(tmp_path: Path) -> None:
    tiny = table([0, 1, 2, 3], users=12, items=6)
    tuning, task = tasks(tiny, "loo", None)
    model = lightgbm(Job(tuning, task.train, None, 0))  # too few users to learn trees from: counting
    rank_N, list_NK = rank_all(task, model.scores)
    assert list_NK.shape == (12, 6)  # shorter than ten: there are no more items
    own = [set(row.tolist()) for row in task.asked.sequences()]
    assert all(not held & set(row[row >= 0].tolist()) for held, row in zip(own, list_NK, strict=True))
    found = np.array([target in row.tolist() for target, row in zip(task.target_N, list_NK, strict=True)])
    np.testing.assert_array_equal(rank_N <= 6, found)
    export(tmp_path / "top.parquet", task.users_N, list_NK, tiny.item_ids)
    rows = pq.read_table(tmp_path / "top.parquet").to_pylist()
    assert len(rows) == (list_NK >= 0).sum() and {row["item"] for row in rows} <= set(tiny.item_ids.tolist())


def test_items_seen_only_after_the_cut_are_eligible_and_cold() -> None:
    whole = table([0, 1, 2, 3], items=200, users=60)
    _, task = tasks(whole, "time", FIRST + dt.timedelta(days=1))
    assert task.train.n_items == 200
    assert task.cold_N.any() and not task.cold_N.all()
    assert repeats(task) < 1


def test_attributes_that_do_not_fit_are_told(tmp_path: Path) -> None:
    whole, path = table([0, 1]), tmp_path / "a.json"
    for text, told in (("{", "as JSON"), ("[1]", "expected {item"), ('{"x": [1]}', "no item of the data")):
        path.write_text(text)
        with pytest.raises(SourceError, match=told):
            read_attributes(path, whole)
    path.write_text(json.dumps({"-3": [5, 9], "4": [5]}))
    assert read_attributes(path, whole).sum() == 3


def test_scores_in_memory_are_bounded_whatever_the_catalogue() -> None:
    assert [part.size for part in chunks(1000, 100)] == [512, 488]
    assert all(part.size * 2_000_000 <= CELLS for part in chunks(10, 2_000_000))
    assert sum(part.size for part in chunks(3, 10**9)) == 3


def test_leaving_out_asks_nobody_where_histories_are_too_short() -> None:
    assert len(leave_out(table([0], length=2), 1).asked) == 0


def test_with_too_few_lists_for_trees_what_the_slice_likes_best_stands_in() -> None:
    """Twenty people who each take one thing of their own, again and again."""
    user = np.repeat(np.arange(20), 10)
    ts = START + np.tile(np.arange(10), 20) * DAY
    told = Table(user, user.copy(), ts, np.arange(20))
    tuning, task = tasks(told, "time", FIRST + dt.timedelta(days=7))
    assert len(tuning.asked) < 30 and not task.mask_seen
    scores = lightgbm(Job(tuning, task.train, None, 0)).scores(task.asked)
    assert (scores.argmax(axis=1) == task.target_N).all()
