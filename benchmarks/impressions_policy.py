"""SIMULATED: the page policy that a retrain ships, as one more row of the table of impressions.

Choices. The network of `models/policy/value.py` over the ranker's features, fitted as the retrain fits it (its newest
pages before the held days, a term for each position) and calibrated on the held days like every other row. What a click
is worth, which the retrain adds to its score, is left out: the table asks for the click.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from features.schema import Events, Slates
from models.columns import feature_names
from models.impressions.model import Floats, platt
from models.impressions.pages import Bools, Pages
from models.items import ItemTable
from models.log import ActionLog
from models.policy.impressions import Impressions, Page, People, impressions, pages_of
from models.policy.value import POSITIONS, PositionNet, ValueParams, before_clicks, held_out, learn
from models.signals import Knowledge


def policy_row(clean: Path, items: ItemTable, pages: Pages, held_R: Bools, judged_R: Bools) -> tuple[Floats, float]:
    """(calibrated probabilities of the judged slots in the order of `pages`, seconds); `clean` holds the tables."""
    began = time.perf_counter()
    slates, events = (pq.read_table(clean / f"{name}.parquet") for name in (Slates.TABLE, Events.TABLE))
    log, params = ActionLog.from_arrow(events, items.index, len(items), slates), ValueParams()
    people, part_of = People(events, log, items), dict(zip(pages.request_ids, held_R + 2 * judged_R, strict=True))
    parts: list[list[Page]] = [[], [], []]
    for page in pages_of(slates, events, items):
        parts[part_of[page.request_id]].append(page)
    early, held, judged = parts[0][-params.max_pages :], parts[1], parts[2]
    names = feature_names(Knowledge.fit(log, items, early[0].day_us))
    seen = [impressions(part, people, log, items, None, workers=2) for part in (early, held, judged)]
    net, _ = learn(seen[0], params, *before_clicks(names, params), validate=lambda one: held_out(one, seen[1]))
    slope, offset = platt(_logits(net, seen[1]), seen[1].clicked_NK[seen[1].real_NK])
    chance_N = 1 / (1 + np.exp(-(slope * _logits(net, seen[2]) + offset)))
    slots = ((page.request_id, item) for page in judged for item in page.item_K.tolist())
    told = dict(zip(slots, chance_N.tolist(), strict=True))
    mine = pages.rows(judged_R)
    asked = zip(mine.request_ids, mine.item_RK.tolist(), mine.real_RK.tolist(), strict=True)
    found = [
        told[page, item] for page, item_K, real_K in asked for item, real in zip(item_K, real_K, strict=True) if real
    ]
    return np.array(found), time.perf_counter() - began


def _logits(net: PositionNet, seen: Impressions) -> Floats:
    """Of the real slots, page by page."""
    with torch.inference_mode():
        told_NK = net(torch.from_numpy(seen.x_NKF), torch.from_numpy(np.clip(seen.position_NK, 0, POSITIONS - 1)))
    result: Floats = told_NK.double().numpy()[seen.real_NK]
    return result
