"""What a protocol asks: training rows, the histories that are asked about, and one target for each.

Choices. The rules are those of the independent scorer: all items of the file are eligible, order is by `pos`, under
`time` training ends with the last second of the cut's day. Tuning has a slice of its own before the cut: the item
before the last one (loo), or the newest whole days before the cut (time; a tenth of the rows where that asks about
enough users). Whether own items may be listed is
read from that slice, never from the targets.
Shapes: N asked users, R rows, I items.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from features.errors import SchemaError, SourceError, UsageError
from models.interactions import Interactions, Ints

COLUMNS = ("user", "item", "pos", "ts")
SLICE_SHARES = (0.1, 0.2, 0.35, 0.5)  # of the rows before the cut: the first that asks about enough users
ENOUGH_USERS = 300
LATEST_S = 1 << 34  # a later time is in milliseconds
LEAST_ITEMS = 3
LEAST_REPEATS = 0.01  # of the slice's targets that are own items, to let own items stand in lists


@dataclass(frozen=True)
class Table:
    """R rows sorted by user and place; items as codes in the order of their ids."""

    user: Ints
    item: Ints
    ts: Ints
    item_ids: Ints  # (I,)

    @property
    def n_items(self) -> int:
        """Every item of the file is eligible."""
        return self.item_ids.size


@dataclass(frozen=True)
class Task:
    """Fit on `train`, rank for `asked`, be judged on `target_N`."""

    train: Interactions
    asked: Interactions
    users_N: Ints  # the file's numbers
    target_N: Ints
    mask_seen: bool

    def some(self, n: int, seed: int) -> Task:
        """At most n of the asked users, drawn."""
        if len(self.asked) <= n:
            return self
        return self.users(np.sort(np.random.default_rng(seed).choice(len(self.asked), n, replace=False)))

    def users(self, at: Ints) -> Task:
        """Some of the asked users."""
        return replace(self, asked=self.asked.users(at), users_N=self.users_N[at], target_N=self.target_N[at])

    @property
    def cold_N(self) -> np.ndarray:
        """(N,) the target was never seen in training."""
        return np.asarray(self.train.counts_I()[self.target_N] == 0)


def read_table(path: Path) -> Table:
    """Any Parquet file with integer columns user, item, pos, ts (Unix seconds)."""
    if path.is_dir():
        raise SourceError(f"{path}: a directory, which --protocol next-basket takes; this one wants a Parquet file")
    if not path.is_file():
        raise SourceError(f"{path}: no such file; --data needs a Parquet file with user, item, pos, ts")
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: cannot be read as Parquet ({error})") from error
    if lacking := [name for name in COLUMNS if name not in names]:
        raise SchemaError(f"{path}: no column {', '.join(lacking)}; it has {', '.join(names)}")
    table = pq.read_table(path, columns=list(COLUMNS))
    columns = [table[name].to_numpy() for name in COLUMNS]
    for name, column in zip(COLUMNS, columns, strict=True):
        if not np.issubdtype(column.dtype, np.integer):  # numpy makes floats of integers with nulls
            nulls = f" with {table[name].null_count:,} nulls" if table[name].null_count else ""
            raise SchemaError(f"{path}: {name} must be integers without nulls; it is {table[name].type}{nulls}")
    user, item, pos, ts = (column.astype(np.int64) for column in columns)
    if not user.size:
        raise SchemaError(f"{path}: no rows")
    if np.abs(ts).max() > LATEST_S:
        raise SchemaError(f"{path}: ts must be Unix seconds; it holds {ts[np.abs(ts).argmax()]} (milliseconds?)")
    order = np.lexsort((pos, user))
    twice = (np.diff(user[order]) == 0) & (np.diff(pos[order]) == 0)
    if twice.any():
        raise SchemaError(f"{path}: user {user[order][1:][twice][0]} has two rows with one pos; the order is unknown")
    item_ids, code = np.unique(item, return_inverse=True)
    return Table(user[order], code[order].astype(np.int64), ts[order], item_ids)


def leave_out(table: Table, back: int) -> Task:
    """Target: the user's last row but `back`; training: everything before it."""
    _, start, length = np.unique(table.user, return_index=True, return_counts=True)
    place = np.arange(table.user.size) - np.repeat(start, length)
    keep = place < np.repeat(length, length) - 1 - back
    train = Interactions.of_rows(table.user[keep], table.item[keep], table.ts[keep], table.n_items)
    at = (start + length - 1 - back)[length >= 2 + back]
    return Task(train, train, table.user[at], table.item[at], True)


def by_time(table: Table, end_s: int, until_s: int | None = None, mask_seen: bool = False) -> Task:
    """Training: rows before `end_s`; target: each known user's first later row (before `until_s`)."""
    early, late = table.ts < end_s, table.ts >= end_s
    if until_s is not None:
        late &= table.ts < until_s
    train = Interactions.of_rows(table.user[early], table.item[early], table.ts[early], table.n_items, end_s)
    known = np.unique(table.user[early])
    fresh, first = np.unique(table.user[late], return_index=True)
    users, at_known, at_fresh = np.intersect1d(known, fresh, return_indices=True)
    return Task(train, train.users(at_known), users, table.item[late][first[at_fresh]], mask_seen)


def repeats(task: Task) -> float:
    """Share of the targets that stand in their user's history."""
    if not len(task.asked):
        return 0.0
    held = task.asked.matrix(np.ones(task.asked.item_R.size))
    owned = np.asarray(held[np.arange(len(task.asked)), task.target_N]).ravel() > 0
    return float(owned.mean())


def tasks(table: Table, protocol: str, cut: dt.date | None) -> tuple[Task, Task]:
    """(the slice to tune on, the task to be judged on); UsageError where nobody can be asked."""
    if table.n_items < LEAST_ITEMS:
        raise UsageError(f"the data holds {table.n_items} items; with fewer than {LEAST_ITEMS} nothing is to be ranked")
    if protocol == "loo":
        tuning, task = leave_out(table, 1), leave_out(table, 0)
        if not len(task.asked):
            raise UsageError("--protocol loo: no user has two rows, so there is no history to ask about")
        if not len(tuning.asked):
            raise UsageError("--protocol loo: no user has three rows, and the last but one is what models are tuned on")
        return tuning, task
    if cut is None:
        raise UsageError("--protocol time needs --cut YYYY-MM-DD, the last day of training")
    end_s = int((dt.datetime.combine(cut, dt.time(), dt.UTC) + dt.timedelta(days=1)).timestamp())
    early = table.ts < end_s
    if early.sum() < 10 or early.all():
        days = [dt.datetime.fromtimestamp(int(at), dt.UTC).date() for at in (table.ts.min(), table.ts.max())]
        rows = f"{early.sum()} rows up to it (10 are wanted) and {(~early).sum()} after it"
        raise UsageError(f"--cut {cut}: {rows}; the data runs from {days[0]} to {days[1]}")
    task = by_time(table, end_s)
    if not len(task.asked):
        raise UsageError(f"--cut {cut}: no user has rows both up to it and after it")
    tuning = _slice_before(table, early, end_s)
    mask = repeats(tuning) < LEAST_REPEATS
    return replace(tuning, mask_seen=mask), replace(task, mask_seen=mask)


def _slice_before(table: Table, early: np.ndarray, end_s: int) -> Task:
    """The newest whole days before the cut; where no boundary of days leaves users on both sides, each user's last."""
    best: Task | None = None
    for share in SLICE_SHARES:
        slice_s = -(-int(np.quantile(table.ts[early], 1 - share)) // 86_400) * 86_400  # days are not split
        found = by_time(table, min(slice_s, end_s - 86_400), end_s)
        if len(found.asked) >= ENOUGH_USERS:
            return found
        if len(found.asked) > (len(best.asked) if best else 0):
            best = found
    if best is not None:
        return best
    known = Table(table.user[early], table.item[early], table.ts[early], table.item_ids)
    return replace(leave_out(known, 0), mask_seen=False)


def read_attributes(path: Path, table: Table) -> sp.csr_matrix:
    """(I, A) 0/1: item -> attribute ids from JSON; items without an entry have none."""
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(told, dict) or not all(isinstance(held, list) for held in told.values()):
        raise SourceError(f"{path}: expected {{item: [attribute ids]}}")
    place = {str(item): at for at, item in enumerate(table.item_ids.tolist())}
    pairs = [(place[item], attribute) for item, held in told.items() if item in place for attribute in held]
    if not pairs:
        raise SourceError(f"{path}: no item of the data has an attribute here; expected {{item: [ids]}}")
    names, code = np.unique([attribute for _, attribute in pairs], return_inverse=True)
    rows = np.array([row for row, _ in pairs])
    return sp.csr_matrix((np.ones(len(pairs)), (rows, code)), shape=(table.n_items, names.size))
