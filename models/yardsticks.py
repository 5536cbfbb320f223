"""What a ranker has to beat: popularity, the user's own counts, neighbours, and boosted trees on the same features.

Choices. The yardsticks are as strong as a careful engineer would make them in an afternoon: ties of the own counts are
broken by what sells now, neighbours read a decayed history. A yardstick made weak proves nothing.
Shapes: I items, C candidates, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.history import TYPE_WEIGHT, UserState
from models.ranker import Lists
from models.signals import Knowledge

if TYPE_CHECKING:
    import lightgbm

Floats = npt.NDArray[np.float64]
Scorer = Callable[[UserState, Knowledge, int], Floats]  # -> (I,) higher is better


def popular(_state: UserState, knowledge: Knowledge, _as_of_us: int) -> Floats:
    """All-time popularity."""
    return knowledge.statistics.values["popularity_all"]


def recently_popular(_state: UserState, knowledge: Knowledge, _as_of_us: int) -> Floats:
    """Popularity with a half-life of two weeks."""
    return knowledge.statistics.values["popularity_14d"]


def own_counts(state: UserState, knowledge: Knowledge, _as_of_us: int) -> Floats:
    """In how many sessions the user took the item; ties by what sells now."""
    now = np.expm1(knowledge.statistics.values["popularity_14d"])
    useful = TYPE_WEIGHT[state.type_P] > 0
    own = np.bincount(state.item_P[useful], weights=state.count_P[useful], minlength=len(knowledge.items))
    result: Floats = own + 0.99 * now / max(float(now.max()), 1e-9)
    return result


def item_knn(state: UserState, knowledge: Knowledge, as_of_us: int) -> Floats:
    """Cosine neighbours of a decayed history; ties and strangers by what sells now."""
    scores = knowledge.counting.scores(state, as_of_us, len(knowledge.items))["together"]
    result: Floats = scores + 1e-6 * knowledge.statistics.values["popularity_14d"]
    return result


def counting(state: UserState, knowledge: Knowledge, as_of_us: int) -> Floats:
    """Decayed own counts and all relations, times the root of recent popularity: the best that fits in a second."""
    own = np.bincount(
        state.item_P,
        weights=state.decayed(as_of_us, 90.0) * (TYPE_WEIGHT[state.type_P] > 0),
        minlength=len(knowledge.items),
    )
    related = sum(knowledge.counting.scores(state, as_of_us, len(knowledge.items)).values(), np.zeros(own.size))
    now = np.expm1(knowledge.statistics.values["popularity_14d"])
    result: Floats = (own + 0.02 * related + 1e-6) * np.sqrt(now / max(float(now.max()), 1e-9))
    return result


YARDSTICKS: dict[str, Scorer] = {
    "popular": popular,
    "recently_popular": recently_popular,
    "own_counts": own_counts,
    "item_knn": item_knn,
    "counting": counting,
}


def fit_lightgbm(lists: Lists, threads: int) -> lightgbm.Booster:
    """LambdaMART on the ranker's own features and on all of its lists; deterministic."""
    import lightgbm

    x_RF, real = lists.x_NKF.reshape(-1, lists.x_NKF.shape[2]), np.flatnonzero(lists.real_NK)

    class Rows(lightgbm.Sequence):
        """The real places, handed over in batches: at once they would be a copy of the lists."""

        batch_size = 16_384

        def __getitem__(self, at: slice | int | list[int]) -> Floats:
            return np.asarray(x_RF[real[at]], dtype=np.float64)

        def __len__(self) -> int:
            return int(real.size)

    label = (lists.gain_NK.reshape(-1)[real] > 0).astype(int)
    data = lightgbm.Dataset(Rows(), label=label, group=lists.real_NK.sum(axis=1))
    params = {
        "objective": "lambdarank",
        "num_leaves": 15,
        "learning_rate": 0.08,
        "min_data_in_leaf": 100,
        "feature_fraction": 0.5,
        "lambda_l2": 5.0,
        "lambdarank_truncation_level": 20,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads,
        "seed": 3,
        "verbose": -1,
    }
    return lightgbm.train(params, data, num_boost_round=120)
