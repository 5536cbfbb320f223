"""A homepage model that was never trained: what a shop serves from its catalogue alone until somebody promotes a model.

Choices. The same type as a trained model, so that candidates, content, explanations and what is learned online work on
it unchanged. Its ranker says zero of everything where nothing was counted, so that only live signals order the page
(models/live_signals.py); a model that was trained and that nobody promoted lends what it counted: popularity.
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
POPULARITY = 0.5  # of the logarithm of a count: what is shown much is counted much, so half of it is believed


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
    return _ranked_by(HomepageModel(knowledge, RankerNet(1, RankerParams()), Calibration(), now_us), 0.0)


def unlearned(knowledge: Knowledge, cut_us: int) -> HomepageModel:
    """Everything that was counted up to the cut under a ranker that nobody trained: what a policy is learned on."""
    net = RankerNet(len(feature_names(knowledge)), RankerParams())
    return HomepageModel(knowledge, net.eval(), Calibration(), cut_us)


def unranked(model: HomepageModel) -> HomepageModel:
    """The same knowledge under a ranker that knows popularity alone: for a model that nobody promoted."""
    return _ranked_by(model, POPULARITY)


def _ranked_by(model: HomepageModel, popularity: float) -> HomepageModel:
    names = feature_names(model.knowledge)
    net = RankerNet(len(names), RankerParams(hidden=()))
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
        at = names.index("popularity_14d")
        net.scale_F[at], net.linear.weight[0, at] = popularity, 1.0
    return replace(model, ranker=net.eval(), version=NO_MODEL, calibration=Calibration())
