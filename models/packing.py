"""The homepage model as named arrays and JSON, and back; with golden requests that a loaded model must answer alike.

Choices. The golden histories are made, not taken from a shopper. What can be computed again from the rest (content
vectors, category codes) is not stored.
Shapes: I items, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from models.calibration import Calibration
from models.columns import feature_names
from models.counting import RELATIONS, CountingModel, CountingParams, Relation
from models.history import DAY_US, PURCHASE, UserState
from models.items import ContentSpace, ItemRow, ItemTable
from models.ranker import RankerNet, RankerParams
from models.retrieval import RetrievalParams
from models.sequence import SequenceModel, make_net
from models.signals import Knowledge
from models.statistics import ItemStatistics

if TYPE_CHECKING:  # homepage.py builds on this module
    from models.homepage import HomepageModel


class Parts(NamedTuple):
    """The first fields of a HomepageModel, in its order."""

    knowledge: Knowledge
    ranker: RankerNet
    calibration: Calibration
    trained_until_us: int
    retrieval: RetrievalParams


def _golden_states(model: HomepageModel) -> list[UserState]:
    """A stranger and two made histories over the first items: no shopper's data."""
    until = model.trained_until_us
    made = [UserState.build(None, [], {})]
    for size in (1, min(5, len(model.items))):
        n = np.arange(size)
        first, last = until - (n + 2) * DAY_US, until - (n + 1) * DAY_US
        count, one, purchase = np.ones(size) + (n % 2), np.ones(size), np.full(size, PURCHASE)
        began, ended = until - 9 * DAY_US, until - DAY_US
        made.append(UserState(n, purchase, count, one, first, last, n < 1, 2.0, began, ended))
    return made


def golden(model: HomepageModel) -> list[list[float]]:
    """Scores of up to 20 items for each golden history."""
    index_C = np.linspace(0, len(model.items) - 1, num=min(20, len(model.items))).astype(np.int64)
    return [
        [round(float(v), 5) for v in model.score_items(state, model.trained_until_us, index_C).score_C]
        for state in _golden_states(model)
    ]


def pack(model: HomepageModel) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Everything that `unpack` needs: arrays by name, and a JSON object."""
    knowledge, items = model.knowledge, model.items
    arrays: dict[str, npt.NDArray[Any]] = {
        "content/idf_W": knowledge.content.idf_W,
        "content/projection_WE": knowledge.content.projection_WE,
    }
    for name, relation in knowledge.counting.relations.items():
        for part in ("indptr", "indices", "weights"):
            arrays[f"relation/{name}/{part}"] = getattr(relation, part)
    arrays |= {f"statistics/{name}": value for name, value in knowledge.statistics.values.items()}
    arrays |= {f"vectors/{name}": value for name, value in items.vectors.items()}
    arrays |= {f"ranker/{name}": value.numpy() for name, value in model.ranker.state_dict().items()}
    sequence = knowledge.sequence
    if sequence is not None:
        arrays |= {f"sequence/{name}": value.numpy() for name, value in sequence.net.state_dict().items()}
    config = {
        "format": 1,
        "items": [[*asdict(items.row(at)).values()] for at in range(len(items))],
        "vectors": list(items.vectors),
        "statistics": list(knowledge.statistics.values),
        "features": list(feature_names(knowledge)),
        "counting": asdict(knowledge.counting.params),
        "retrieval": asdict(model.retrieval),
        "ranker": _shape(model.ranker),
        "sequence": None if sequence is None else asdict(sequence.net.params) | {"n_items": sequence.net.n_items},
        "calibration": asdict(model.calibration),
        "statistics_cut_us": knowledge.statistics.cut_us,
        "trained_until_us": model.trained_until_us,
    }  # fmt: skip
    config["golden"] = golden(model)
    return arrays, config


def _shape(net: RankerNet) -> dict[str, Any]:
    told = {
        "hidden": [layer.out_features for layer in net.mlp if isinstance(layer, torch.nn.Linear)][:-1],
        "cross_rank": net.down.out_features,
    }
    if net.offset is None:
        return told
    return told | {"offset": _shape(net.offset), "offset_weight": net.offset_weight}


def _net(n_features: int, shape: Mapping[str, Any]) -> RankerNet:
    net = RankerNet(n_features, RankerParams(hidden=tuple(shape["hidden"]), cross_rank=shape["cross_rank"]))
    if "offset" in shape:
        net.stand_on(_net(n_features, shape["offset"]), float(shape["offset_weight"]))
    return net


def _shaped(arrays: Mapping[str, npt.NDArray[Any]], name: str, size: int) -> npt.NDArray[Any]:
    if arrays[name].shape != (size,) or arrays[name].dtype != np.float64:
        told = f"{arrays[name].dtype} {arrays[name].shape}"
        raise ValueError(f"{name} is {told}, expected float64 ({size},)")
    return arrays[name]


def _vectors(arrays: Mapping[str, npt.NDArray[Any]], name: str, n_items: int) -> npt.NDArray[np.float32]:
    found = arrays[f"vectors/{name}"]
    if found.ndim != 2 or found.shape[0] != n_items or found.dtype != np.float32:
        raise ValueError(f"vectors/{name} is {found.dtype} {found.shape}, expected float32 ({n_items}, E)")
    return found


def _relation(arrays: Mapping[str, npt.NDArray[Any]], name: str, n_items: int) -> Relation:
    indptr, indices, weights = (arrays[f"relation/{name}/{piece}"] for piece in ("indptr", "indices", "weights"))
    whole = (
        indptr.dtype == indices.dtype == np.int64
        and weights.dtype == np.float32
        and 1 <= indptr.size <= n_items + 1
        and indptr[0] == 0
        and indptr[-1] == indices.size == weights.size
        and bool((np.diff(indptr) >= 0).all())
        and bool(((indices >= 0) & (indices < n_items)).all())
    )
    if not whole:
        raise ValueError(f"relation/{name} is no matrix over {n_items} items")
    return Relation(indptr, indices, weights)


def unpack(arrays: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any]) -> Parts:
    """The parts again; KeyError, TypeError, ValueError or RuntimeError where arrays and config do not fit together."""
    items = ItemTable.from_rows([ItemRow(*values) for values in config["items"]])
    items = replace(items, vectors={name: _vectors(arrays, name, len(items)) for name in config.get("vectors", ())})

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {n.removeprefix(prefix): torch.from_numpy(v) for n, v in arrays.items() if n.startswith(prefix)}

    relations = {name: _relation(arrays, name, len(items)) for name in RELATIONS}
    content = ContentSpace(arrays["content/idf_W"], arrays["content/projection_WE"])
    values = {name: _shaped(arrays, f"statistics/{name}", len(items)) for name in config["statistics"]}
    statistics = ItemStatistics(values, config["statistics_cut_us"])
    sequence = None
    if config["sequence"] is not None:
        net = make_net(config["sequence"])
        net.load_state_dict(part("sequence/"))
        sequence = SequenceModel(net.eval())
    knowledge = Knowledge(
        items, CountingModel(relations, CountingParams(**config["counting"])), statistics, content,
        content.vectors(items), sequence,
    )  # fmt: skip
    if list(feature_names(knowledge)) != config["features"]:
        raise ValueError("the feature list differs from this code's: the model needs the code that it was made with")
    ranker = _net(len(config["features"]), config["ranker"])
    ranker.load_state_dict(part("ranker/"))
    return Parts(
        knowledge, ranker.eval(), Calibration(**config["calibration"]), config["trained_until_us"],
        RetrievalParams(**config["retrieval"]),
    )  # fmt: skip
