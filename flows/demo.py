"""The first five minutes: a shop page on real orders at once, and a worse model that the real gate refuses.

Choices. Where there is a champion it is served. Elsewhere a quick model learns from the newest months in under a
minute; it was never judged, so it is no champion, lies in a home of its own, and says so wherever it is named. The
worse model has the same features and random weights: it is judged by the gate's own rules on users that neither saw.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from features.cleaning import CleaningParams, clean
from features.importers import import_data
from features.schema import Events
from flows.paths import REPOSITORY, Home
from flows.registry import Registry
from models import checkpoint, evaluation
from models.examples import states_from_log
from models.gate import PASS, Evidence, GateParams, Verdict, judge
from models.homepage import fit_simple, utc
from models.log import ActionLog
from models.ranker import RankerNet, RankerParams
from serving.package import serve

DAYS = 120
JUDGED_DAYS = 10
JUDGED_USERS = 300
UNJUDGED = "not gated: a quick model for a demo"


def shop_tables(place: Path) -> tuple[pa.Table, pa.Table]:
    """(events of the newest months, items) of the shop that ships, cleaned."""
    import_data("online-retail", REPOSITORY / "data" / "online_retail.parquet", place / "tables")
    clean(place / "tables", place / "clean", CleaningParams())
    events = pq.read_table(place / "clean" / "events.parquet")
    newest = pc.max(events[Events.EVENT_TIME]).as_py()
    since = pa.scalar(newest - timedelta(days=DAYS), events.schema.field(Events.EVENT_TIME).type)
    return events.filter(pc.greater_equal(events[Events.EVENT_TIME], since)), pq.read_table(
        place / "clean" / "items.parquet"
    )


def quick_model(place: Path) -> Path:
    """The folder of a quick, unjudged model; made once."""
    folder = place / "model"
    if (folder / "digest.json").exists():
        return folder
    print("no champion yet: a quick model learns from the newest months (never judged; make retrain makes a real one)")
    events, items = shop_tables(place)
    model = fit_simple(events, items)
    model.save(folder)
    told = {"trained_from": utc(int(model.trained_until_us - DAYS * 86_400e6)), "data_hash": "demo"}
    told |= {"trained_until": utc(model.trained_until_us), "verdict": UNJUDGED, "data": "online-retail"}
    checkpoint.write_json(folder / "manifest.json", told | {"metrics": {}})
    checkpoint.seal(folder)
    return folder


def show_shop(home: Home, port: int) -> int:
    """Serve the champion, or the quick model, until Ctrl-C; the exit status of the service."""
    champion = Registry(home).pointer("champion")
    print(f"the shop:  http://127.0.0.1:{port}/   (the interface: /docs; Ctrl-C ends it)")
    print("the gate:  .venv/bin/homeranker demo --worse   shows it refuse a deliberately worse model")
    sys.stdout.flush()
    if champion is not None:
        return serve(home.runs / champion["run"] / "bento", home.root, "127.0.0.1", port)
    place = home.root / "demo"
    return serve(quick_model(place), place, "127.0.0.1", port)


def judge_worse(place: Path) -> Verdict:
    """The gate's verdict on random weights against a model of the same data, on users that neither saw."""
    events, items = shop_tables(place)
    end_us = int(pc.max(events[Events.EVENT_TIME].cast(pa.int64())).as_py()) + 1
    cut_us = end_us - int(JUDGED_DAYS * 86_400e6)
    before = events.filter(pc.less(events[Events.EVENT_TIME].cast(pa.int64()), cut_us))
    champion = fit_simple(before, items)
    torch.manual_seed(0)
    net = RankerNet(len(champion.ranker.mean_F), RankerParams())
    net.mean_F.copy_(champion.ranker.mean_F)
    net.scale_F.copy_(champion.ranker.scale_F)
    worse = replace(champion, ranker=net.eval())
    log = ActionLog.from_arrow(events, champion.items.index, len(champion.items))
    slice_ = evaluation.Slice.of(log, cut_us, end_us, states_from_log(log), JUDGED_USERS)
    named = evaluation.tops(worse, None)
    named["champion"] = evaluation.tops(champion, None)["challenger"]
    judged = evaluation.judge(slice_, named, worse)
    values = {name: metrics["ndcg@10"] for name, metrics in judged.values.items()}
    spread = judged.score_spread
    evidence = Evidence(values, {}, None, judged.coverage["challenger"], spread, 0.0, "the demo's model")
    return judge(evidence, GateParams())


def show_refusal(home: Home) -> int:
    """Print the gate's verdict on a worse model; exit 3 where it is refused, as a promotion would be."""
    verdict = judge_worse(home.root / "demo")
    print(f"the gate says: {verdict.verdict}")
    print("\n".join(f"- {reason}" for reason in verdict.reasons))
    return 0 if verdict.verdict == PASS else 3
