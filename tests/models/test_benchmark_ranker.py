"""The benchmark: what its table says is what its lists say, its slices hide the future, its tuning sees no test row."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import ranker
from benchmarks.ranker_data import Table, by_time, leave_out, read_table, tasks
from benchmarks.ranker_table import rank_all, values_of
from features.errors import SchemaError, SourceError, UsageError

DAY = 86_400
SCORER = Path(__file__).resolve().parents[3] / "shared" / "check" / "score_topk.py"  # beside the repository
N_ITEMS = 40


def write(path: Path, seed: int = 0, users: int = 60, buys_again: bool = False) -> Path:
    """A shop in which item n + 1 follows item n, and each user starts somewhere."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        length, day = int(rng.integers(4, 9)), int(rng.integers(0, 300))
        start = int(rng.integers(0, N_ITEMS))
        for pos in range(length):
            item = start if buys_again else (start + pos) % N_ITEMS
            rows.append((user + 100, item * 3 + 5, pos, (day + 10 * pos) * DAY))
    user, item, pos, ts = (np.array(column) for column in zip(*rows, strict=True))
    pq.write_table(pa.table({"user": user, "item": item, "pos": pos, "ts": ts}), path)
    return path


def independent_ndcg(data: Path, lists: Path) -> float:
    """Leave-one-out NDCG@10 straight from the two files."""
    rows = pq.read_table(data).to_pylist()
    last = {}
    for row in sorted(rows, key=lambda row: row["pos"]):
        last[row["user"]] = row["item"]
    listed = {(row["user"], row["item"]): row["rank"] for row in pq.read_table(lists).to_pylist()}
    gains = [1 / np.log2(listed[pair] + 1) if listed.get(pair, 99) <= 10 else 0.0 for pair in last.items()]
    return float(np.mean(gains))


def test_the_table_says_what_the_exported_lists_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "shop.parquet")
    words = ["--data", str(data), "--protocol", "loo", "--models", "popular,counting", "--export-topk", str(tmp_path)]
    assert ranker.main(words) == 0
    table = capsys.readouterr().out
    for name in ("popular", "counting"):
        cells = next(line for line in table.splitlines() if line.startswith(f"| {name} ")).split("|")
        assert float(cells[5]) == pytest.approx(independent_ndcg(data, tmp_path / f"{name}.parquet"), abs=1e-4)
        figures = json.loads((tmp_path / "figures.json").read_text())[name]
        assert figures["NDCG@10"] == pytest.approx(independent_ndcg(data, tmp_path / f"{name}.parquet"), abs=1e-9)
        if SCORER.is_file():
            asked = [sys.executable, SCORER, data, tmp_path / f"{name}.parquet", "--protocol", "loo", "--json"]
            scored = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
            means = {metric: told["mean"] for metric, told in scored["scores"][0]["metrics"].items()}
            assert {metric: means[metric] for metric in figures} == pytest.approx(figures, abs=1e-6)
    assert "own items are left out of lists" in table


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_ranks_and_lists_agree_whatever_is_tied(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(20), 3)
    item = np.concatenate([rng.choice(N_ITEMS, 3, replace=False) for _ in range(20)])
    task = leave_out(Table(user, item, np.zeros(60, dtype=np.int64), np.arange(N_ITEMS)), 0)
    rank_N, list_NK = rank_all(task, lambda asked: rng.integers(0, levels, (len(asked), N_ITEMS)).astype(np.float32))
    hit_NK = list_NK == task.target_N[:, None]
    np.testing.assert_array_equal(rank_N <= 10, hit_NK.any(1))
    np.testing.assert_array_equal(rank_N[hit_NK.any(1)], hit_NK.argmax(1)[hit_NK.any(1)] + 1)
    assert all(np.unique(row).size == 10 for row in list_NK)


def test_under_time_nothing_after_the_cut_is_learned_from(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "shop.parquet"))
    tuning, task = tasks(table, "time", dt.date(1970, 7, 1))
    end = int(dt.datetime(1970, 7, 2, tzinfo=dt.UTC).timestamp())
    assert task.train.ts_R.max() < end
    assert tuning.train.ts_R.max() < task.train.ts_R.max()
    changed = by_time(table, end)
    np.testing.assert_array_equal(changed.target_N, task.target_N)


def test_a_shop_that_buys_again_keeps_own_items_in_its_lists(tmp_path: Path) -> None:
    again = read_table(write(tmp_path / "again.parquet", buys_again=True))
    never = read_table(write(tmp_path / "never.parquet"))
    assert not tasks(again, "time", dt.date(1970, 7, 1))[1].mask_seen
    assert tasks(never, "time", dt.date(1970, 7, 1))[1].mask_seen


def test_the_target_of_leave_one_out_is_the_last_by_place_and_the_slice_is_the_one_before(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "shop.parquet"))
    last, before = leave_out(table, 0), leave_out(table, 1)
    first_user = table.item[table.user == 100]
    assert last.target_N[0] == first_user[-1]
    assert before.target_N[0] == first_user[-2]
    assert before.train.item_R.size == table.item.size - 2 * len(last.asked)


def test_values_are_per_user() -> None:
    values = values_of(np.array([1, 3, 11]))
    np.testing.assert_allclose(values["NDCG@10"], [1.0, 0.5, 0.0])
    np.testing.assert_allclose(values["MRR@10"], [1.0, 1 / 3, 0.0])


def test_wrong_words_are_told(tmp_path: Path) -> None:
    data = write(tmp_path / "shop.parquet")
    words = [sys.executable, "-m", "benchmarks.ranker", "--data", str(data), "--protocol", "loo", "--models", "magic"]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert told.stderr.startswith("ranker: --models: unknown magic") and "Traceback" not in told.stderr
    (tmp_path / "note.parquet").write_text("not a table")
    with pytest.raises(SourceError, match="cannot be read as Parquet"):
        read_table(tmp_path / "note.parquet")
    with pytest.raises(UsageError, match="needs --cut"):
        tasks(read_table(data), "time", None)
    pq.write_table(pa.table({"user": [1], "item": [2]}), tmp_path / "short.parquet")
    with pytest.raises(SchemaError, match="no column pos, ts"):
        read_table(tmp_path / "short.parquet")
