"""The protocol "next basket": each known user's first basket after the cut, all items eligible, own items included.

Choices. It runs the main job's own recipe and yardsticks, so the table shows what ships. The tune slice is as long as
the judged one and lies just before it. `--data` is a directory of canonical tables or an Online Retail Parquet file.
Shapes: N users, K places.
"""

from __future__ import annotations

import argparse
import datetime as dt
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.ranker_data import COLUMNS
from benchmarks.ranker_table import PLACES, Row, export, export_figures, table_of
from features.cleaning import clean
from features.errors import SourceError, UsageError
from features.importers import import_data
from features.schema import Events, Items
from features.tables import open_parquet, table_files
from models import recipe, sequence
from models.encoders import ENCODERS
from models.evaluation import Floats, Slice, Top, lists_of, tops
from models.examples import states_from_log
from models.history import DAY_US, UserState
from models.homepage import HomepageModel
from models.items import ItemTable
from models.log import ActionLog
from models.metrics import Lists, coverage, ndcg, recall, reciprocal_rank
from models.recipe import Times, TrainParams
from models.retrieval import Ints, strongest
from models.training import deterministic
from models.yardsticks import YARDSTICKS, fit_lightgbm

SHIPPED = "homeranker"
MODELS = (*YARDSTICKS, *ENCODERS, "lightgbm", SHIPPED)


def read(data: Path) -> tuple[ItemTable, ActionLog]:
    """Clean tables of a directory, or of an Online Retail file."""
    if data.is_file() and set(COLUMNS) <= set(open_parquet(data).schema_arrow.names):
        raise SourceError(f"{data}: its form is that of --protocol loo and time; next-basket takes canonical tables")
    with tempfile.TemporaryDirectory(prefix="homeranker-bench-") as name:
        raw, cleaned = Path(name) / "tables", Path(name) / "clean"
        if data.is_dir():
            raw = data
        else:
            import_data("online-retail", data, raw)
        clean(raw, cleaned)
        items = pq.read_table(table_files(cleaned, Items.TABLE)[0])
        table = ItemTable.from_arrow(items)
        return table, ActionLog.from_arrow(
            pq.read_table(table_files(cleaned, Events.TABLE)[0]), table.index, len(table)
        )


def values_of(slice_: Slice, top: Top) -> tuple[dict[str, Floats], np.ndarray]:
    """Metric -> (N,) and the lists."""
    all_NK, new_NK = lists_of(slice_, top)
    lists = Lists(all_NK, [visit.items for visit in slice_.visits])
    new = [np.setdiff1d(visit.items, state.item_P) for visit, state in zip(slice_.visits, slice_.states, strict=True)]
    has_new = np.array([wanted.size > 0 for wanted in new], dtype=bool)
    values = {f"Recall@{k}": recall(lists, k) for k in (5, PLACES)}
    values |= {f"NDCG@{k}": ndcg(lists, k) for k in (5, PLACES)} | {"MRR@10": reciprocal_rank(lists, PLACES)}
    # Users without a new item do not count: the mean over the others is spread over all.
    scale = has_new.size / max(int(has_new.sum()), 1)
    values["new NDCG@10"] = ndcg(Lists(new_NK, new), PLACES) * has_new * scale
    return values, all_NK


def fit(log: ActionLog, table: ItemTable, cut_us: int, seed: int) -> tuple[HomepageModel, object, tuple[float, float]]:
    """The recipe up to the cut; the model, the trees on its features, and the seconds (of the clock, of the cores)."""
    started, cores, end_us = time.perf_counter(), time.process_time(), int(log.time_us[-1]) + 1
    times = Times(int(log.time_us[0]), 2 * cut_us - end_us, cut_us, end_us)
    params = TrainParams()
    deterministic(params.threads, seed)
    states = states_from_log(log)
    sequences = recipe.train_sequences(log, table, times, params, None)
    tuned = recipe.tune(log, table, times, states, sequences.early, params, None)
    lists = recipe.gate_lists(log, table, times, states, sequences.early, params)
    model, _ = recipe.refit(log, table, times, lists, sequences.late, tuned, params, None)
    seconds = (time.perf_counter() - started, time.process_time() - cores)
    return model, fit_lightgbm(lists, params.threads), seconds


def network(name: str, log: ActionLog, items: ItemTable, cut_us: int, seed: int) -> tuple[Top, tuple[float, float]]:
    """One encoder alone, own items allowed; it stops by the slice before the cut and is fitted again up to the cut."""
    started, cores = time.perf_counter(), time.process_time()
    params = TrainParams()
    deterministic(params.threads, seed)
    chosen = replace(params.sequence, encoder=name)
    tune_us = 2 * cut_us - int(log.time_us[-1]) - 1
    _, curves = sequence.train(log.before(tune_us), chosen, validate_on=log.between(tune_us, cut_us))
    model, _ = sequence.train(log.before(cut_us), chosen, stop_after=curves.best_epoch)
    known_I = items.marked(log.before(cut_us).item)

    def top(state: UserState, _as_of_us: int) -> Ints:
        score_I = model.scores(state, len(items))
        return strongest(score_I - score_I.min() + 1e-6, PLACES + 300, known_I)

    return top, (time.perf_counter() - started, time.process_time() - cores)


def run(args: argparse.Namespace) -> None:
    """Fit once, judge every model on the same users, print."""
    if args.cut is None:
        raise UsageError("--protocol next-basket needs --cut YYYY-MM-DD, the last day of training")
    table, log = read(args.data)
    cut_us = int(dt.datetime.combine(args.cut, dt.time(), dt.UTC).timestamp() * 1e6) + DAY_US
    if not log.time_us[0] < cut_us < log.time_us[-1]:
        first, last = (dt.datetime.fromtimestamp(at / 1e6, dt.UTC).date() for at in (log.time_us[0], log.time_us[-1]))
        raise UsageError(f"--cut {args.cut} leaves no rows on one side; the data runs from {first} to {last}")
    if 2 * cut_us - int(log.time_us[-1]) <= log.time_us[0]:
        raise UsageError(
            f"--cut {args.cut}: models are tuned on as many days before the cut as follow it, and nothing lies before"
            " those; choose a later cut"
        )
    model, trees, seconds = fit(log, table, cut_us, args.seed)
    held = Slice.of(log, cut_us, int(log.time_us[-1]) + 1, states_from_log(log))
    named = tops(model, trees)  # type: ignore[arg-type]
    named[SHIPPED] = named.pop("challenger")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{args.data.name}, next basket after {args.cut}: {len(held.users):,} users, {len(table):,} items")
    rows = []
    for name in args.models:
        cost = seconds if name in (SHIPPED, "lightgbm") else (0.0, 0.0)
        if name in ENCODERS:
            named[name], cost = network(name, log, table, cut_us, args.seed)
        values, item_NK = values_of(held, named[name])
        rows.append(Row(name, values, coverage(item_NK, len(table)), *cost, peak))
        print(f"{name}: NDCG@10 {values['NDCG@10'].mean():.4f}", file=sys.stderr, flush=True)
        if args.export_topk:
            users_N, item_ids = np.array(log.user_ids)[held.users], np.array(table.item_ids)
            export(args.export_topk / f"{name}.parquet", users_N, item_NK, item_ids)
    if args.export_topk:
        export_figures(args.export_topk / "figures.json", rows)
    print(table_of(rows))
