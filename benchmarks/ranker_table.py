"""From scores to ranks, lists, and the one table.

Choices. Equal scores are ordered by popularity and then by a fixed shuffle: that order is part of every model, so no
tie is left, the rank in the table is the place in the exported list, and an independent scorer of the lists gets the
same figures. (A shuffle, because item numbers may tell when an item first appeared.) Intervals and paired differences
resample users.
Shapes: N users, B users of a chunk, I items, K list places.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.ranker_data import Task
from models.interactions import Floats, Floats32, Interactions, Ints, chunks
from models.metrics import estimate

Ids = Ints | npt.NDArray[np.str_]

PLACES = 10
METRICS: dict[str, Callable[[Ints], Floats]] = {
    "Recall@5": lambda rank_N: (rank_N <= 5).astype(float),
    "Recall@10": lambda rank_N: (rank_N <= PLACES).astype(float),
    "NDCG@5": lambda rank_N: np.where(rank_N <= 5, 1 / np.log2(rank_N + 1.0), 0.0),
    "NDCG@10": lambda rank_N: np.where(rank_N <= PLACES, 1 / np.log2(rank_N + 1.0), 0.0),
    "MRR@10": lambda rank_N: np.where(rank_N <= PLACES, 1.0 / rank_N, 0.0),
}
HEAD = "NDCG@10"


@dataclass(frozen=True)
class Row:
    """One model on one task: per-user values and what they cost."""

    name: str
    values: dict[str, Floats]
    coverage: float
    seconds: float
    cores_s: float
    peak_mb: float


def tie_order(train: Interactions, seed: int = 0) -> Ints:
    """(I,) items, first the one that wins a tie."""
    shuffle = np.random.default_rng(seed).permutation(train.n_items)
    return np.lexsort((shuffle, -train.counts_I()))


def rank_all(task: Task, scores: Callable[[Interactions], Floats32], places: int = PLACES) -> tuple[Ints, Ints]:
    """(N,) rank of each target from 1, exact to the tenth, and (N, K) lists by the same order (none for K = 0).

    A list ends early (-1) where only items are left that must not stand in it; a target among those is never found.
    """
    order = tie_order(task.train)
    places = min(places, order.size)
    place_I = np.empty_like(order)
    place_I[order] = np.arange(order.size)
    ranks, lists = [np.zeros(0, dtype=np.int64)], [np.zeros((0, places), dtype=np.int64)]
    for at in chunks(len(task.asked), task.train.n_items):
        asked = task.asked.users(at)
        score_BI = np.nan_to_num(scores(asked), nan=-np.inf)
        if task.mask_seen:
            score_BI[asked.owner_R, asked.item_R] = -np.inf
        ranks.append(_ranks(score_BI, task.target_N[at], place_I))
        if places:
            best_BK = _best(score_BI, places, place_I)
            lists.append(np.where(np.isfinite(np.take_along_axis(score_BI, best_BK, 1)), best_BK, -1))
    return np.concatenate(ranks), np.concatenate(lists)


def _ranks(score_BI: npt.NDArray[np.floating], target_B: Ints, place_I: Ints) -> Ints:
    """(B,) items above the target, and equal ones that win the tie, plus one."""
    own_B = score_BI[np.arange(target_B.size), target_B]
    rank_B = 1 + (score_BI > own_B[:, None]).sum(1)
    for row in np.flatnonzero(rank_B <= PLACES):  # the place within a tie matters only where it can reach the list
        level = score_BI[row] == own_B[row]
        rank_B[row] += int((place_I[level] < place_I[target_B[row]]).sum())
    return np.where(np.isfinite(own_B), rank_B, score_BI.shape[1] + PLACES).astype(np.int64)


def _best(score_BI: npt.NDArray[np.floating], k: int, place_I: Ints) -> Ints:
    """(B, K) items with the largest scores; equal ones by their place."""
    bound_B = -np.partition(-score_BI, k - 1, axis=1)[:, k - 1]
    best = np.empty((score_BI.shape[0], k), dtype=np.int64)
    for row, (score_I, bound) in enumerate(zip(score_BI, bound_B, strict=True)):
        above = np.flatnonzero(score_I > bound)
        level = np.flatnonzero(score_I == bound)
        if level.size > k - above.size:
            level = level[np.argsort(place_I[level])[: k - above.size]]
        found = np.concatenate([above, level])
        best[row] = found[np.lexsort((place_I[found], -score_I[found]))]
    return best


def ndcg_of(task: Task, scores: Callable[[Interactions], Floats32]) -> float:
    """Mean NDCG@10: what tuning climbs."""
    return float(METRICS[HEAD](rank_all(task, scores, 0)[0]).mean()) if len(task.asked) else 0.0


def values_of(rank_N: Ints) -> dict[str, Floats]:
    """Metric -> (N,)."""
    return {name: metric(rank_N) for name, metric in METRICS.items()}


def paired(one: Floats, other: Floats) -> str:
    """`+.0012 [+.0003, +.0021]` of one minus other."""
    told = estimate(one - other)
    return f"{told.mean:+.4f} [{told.low:+.4f}, {told.high:+.4f}]"


def table_of(rows: list[Row], yardstick: str = "counting") -> str:
    """The one table, Markdown."""
    best = max(rows, key=lambda row: row.values[HEAD].mean())
    reference = next((row for row in rows if row.name == yardstick), None)
    metrics = list(rows[0].values)
    heads = [
        "model",
        *metrics,
        "95 % of " + HEAD,
        "coverage",
        "fit s",
        "cpu s",
        "peak MB",
        f"minus {yardstick}",
        "minus best",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        told = estimate(row.values[HEAD])
        cells = [row.name, *(f"{row.values[name].mean():.4f}" for name in metrics)]
        cells += [
            f"[{told.low:.4f}, {told.high:.4f}]",
            f"{row.coverage:.3f}",
            f"{row.seconds:.1f}",
            f"{row.cores_s:.1f}",
        ]
        cells += [f"{row.peak_mb:.0f}"]
        for other in (reference, best):
            same = other is None or other is row
            cells.append("" if same or other is None else paired(row.values[HEAD], other.values[HEAD]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def export(path: Path, users_N: Ids, item_NK: Ints, item_ids: Ids | None = None) -> None:
    """The lists as user, item, rank (from 1); -1 is no item. `item_ids`: the file's own name of each item."""
    n, k = item_NK.shape
    held = item_NK.ravel() >= 0
    item = item_NK.ravel()[held]
    columns = {
        "user": np.repeat(users_N, k)[held],
        "item": item if item_ids is None else item_ids[item],
        "rank": np.tile(np.arange(1, k + 1), n)[held],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)


def export_figures(path: Path, rows: list[Row]) -> None:
    """Every mean of the table as it was computed, beside the lists that another program may score."""
    told = {row.name: {name: float(values.mean()) for name, values in row.values.items()} for row in rows}
    path.write_text(json.dumps(told, indent=2) + "\n")
