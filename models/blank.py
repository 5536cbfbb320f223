"""A homepage model that was never trained: what a shop serves from its catalogue alone until somebody promotes a model.

Choices. The same type as a trained model, so that candidates, content, explanations and what is learned online work on
it unchanged; its ranker says zero of everything, so that only live signals order the page (models/live_signals.py).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from models.calibration import Calibration
from models.columns import feature_names
from models.counting import RELATIONS, CountingModel, CountingParams, Relation
from models.homepage import HomepageModel
from models.items import ContentSpace, ItemTable
from models.log import ActionLog
from models.ranker import RankerNet, RankerParams
from models.signals import Knowledge
from models.statistics import ItemStatistics

NO_MODEL = "none"


def blank_model(items: ItemTable, now_us: int) -> HomepageModel:
    """A model that knows texts, prices and ages, and nobody's behaviour."""
    nothing = np.zeros(0, dtype=np.int64)
    log = ActionLog(
        *(nothing, np.zeros(0, dtype=np.bool_), nothing, nothing, nothing, nothing),
        *(np.zeros(0), np.zeros(0), (), len(items)),
    )
    none = Relation(np.zeros(1, dtype=np.int64), nothing, np.zeros(0, dtype=np.float32))
    content = ContentSpace.fit(items)
    knowledge = Knowledge(
        items,
        CountingModel(dict.fromkeys(RELATIONS, none), CountingParams()),
        ItemStatistics.fit(log, items, now_us),
        content,
        content.vectors(items),
        None,
    )
    return unranked(HomepageModel(knowledge, RankerNet(1, RankerParams()), Calibration(), now_us))


def unranked(model: HomepageModel) -> HomepageModel:
    """The same knowledge under a ranker that says zero: for a model that nobody promoted."""
    net = RankerNet(len(feature_names(model.knowledge)), RankerParams(hidden=()))
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
    return replace(model, ranker=net.eval(), version=NO_MODEL, calibration=Calibration())
