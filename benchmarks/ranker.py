"""Every model family on the same split of any data, in one table, with lists that an independent program can score.

    python -m benchmarks.ranker --data FILE --protocol loo
    python -m benchmarks.ranker --data FILE --protocol time --cut 2014-05-13 --attributes FILE --export-topk DIR
    python -m benchmarks.ranker --data DIR_OF_CANONICAL_TABLES --protocol next-basket --cut 2011-11-10

FILE is a Parquet file with the integer columns user, item, pos, ts (Unix seconds). Each model runs in a process of its
own, so that its peak memory is its own; `fit s` holds tuning and refit, not the scoring of the test users, and `cpu s`
is what it took of the cores: on a busy machine the honest one. `--export-topk` writes each model's lists and
figures.json, the table's means in full.
Choices. All items are ranked, nothing is sampled, and everything that is tuned is tuned before the cut.
"""

from __future__ import annotations

import argparse
import datetime as dt
import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ranker_basket
from benchmarks.command import finish
from benchmarks.ranker_data import Table, Task, read_attributes, read_table, repeats, tasks
from benchmarks.ranker_models import MODELS, Job
from benchmarks.ranker_table import HEAD, Row, export, export_figures, rank_all, table_of, values_of
from features.errors import UsageError
from models.metrics import estimate

Result = tuple[Any, Any, float, float, float]  # ranks, lists, seconds, seconds of the cores, MB


def measure(name: str, job: Job, task: Task) -> Result:
    """Fit one model and rank for everybody."""
    started, cores = time.perf_counter(), time.process_time()
    model = MODELS[name](job)
    seconds, cores = time.perf_counter() - started, time.process_time() - cores
    rank_N, item_NK = rank_all(task, model.scores)
    return rank_N, item_NK, seconds, cores, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def apart(name: str, job: Job, task: Task) -> Result:
    """`measure` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (name, job, task))


def cold_line(row: Row, task: Task) -> str:
    """NDCG@10 over the users whose target was never seen in training."""
    told = estimate(row.values[HEAD][task.cold_N])
    return f"{row.name}: {told.mean:.4f} [{told.low:.4f}, {told.high:.4f}]"


def run(args: argparse.Namespace, table: Table) -> None:
    """Tune, fit, rank, print; export where asked."""
    tuning, task = tasks(table, args.protocol, args.cut)
    attributes = read_attributes(args.attributes, table) if args.attributes else None
    job = Job(tuning, task.train, attributes, args.seed)
    print(
        f"{args.data.name}, {args.protocol}: {task.train.item_R.size:,} rows to learn from, {len(task.asked):,} users"
        f" asked, {table.n_items:,} items; slice to tune on: {len(tuning.asked):,} users, {repeats(tuning):.1%} of its"
        f" targets taken before; own items are {'left out of' if task.mask_seen else 'allowed in'} lists"
    )
    rows = []
    for name in args.models:
        rank_N, item_NK, seconds, cores, peak = apart(name, job, task)
        covered = np.unique(item_NK[item_NK >= 0]).size / table.n_items
        rows.append(Row(name, values_of(rank_N), covered, seconds, cores, peak))
        print(f"{name}: {HEAD} {rows[-1].values[HEAD].mean():.4f} in {seconds:.0f} s", file=sys.stderr, flush=True)
        if args.export_topk:
            export(args.export_topk / f"{name}.parquet", task.users_N, item_NK, table.item_ids)
    if args.export_topk:
        export_figures(args.export_topk / "figures.json", rows)
    print(table_of(rows))
    if task.cold_N.any():
        print(f"\ncold targets ({task.cold_N.mean():.1%} of the users), {HEAD}: ", end="")
        print("; ".join(cold_line(row, task) for row in rows))


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--attributes", type=Path, help="JSON: item -> attribute ids")
    parser.add_argument("--protocol", choices=("loo", "time", "next-basket"), required=True)
    parser.add_argument("--cut", type=dt.date.fromisoformat, help="last day of training")
    parser.add_argument("--models", type=lambda text: text.split(","), help="names, by comma; default: all")
    parser.add_argument("--export-topk", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    known = list(ranker_basket.MODELS if args.protocol == "next-basket" else MODELS)
    args.models = args.models or known
    if unknown := [name for name in args.models if name not in known]:
        raise UsageError(f"--models: unknown {', '.join(unknown)}; one of {', '.join(known)}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run, answer with the exit status."""
    args = arguments(argv)
    if args.protocol == "next-basket":
        ranker_basket.run(args)
    else:
        run(args, read_table(args.data))
    return 0


if __name__ == "__main__":
    finish(main)
