"""The counting retriever: what was taken together, what came next, and what one item says of another.

Fits in about a second and is the yardstick that a trained network has to beat.
Choices. Four relations, because each sees something that the others do not: `together` (cosine of items over
sessions, decayed), `recent` (the same with a short half-life, for fashions), `people` (cosine over users) and `next`
(from one session to the user's next one). Every relation keeps the N strongest neighbours of an item. A score is
linear in the user's history, so its explanation is exact: the contribution of a history item is its own term.
Source: item-based collaborative filtering (Deshpande & Karypis, 2004).
Shapes: I items, P pairs of the history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.history import DAY_US, TYPE_WEIGHT, UserState
from models.log import ActionLog

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

RELATIONS = ("together", "recent", "people", "next")


@dataclass(frozen=True)
class CountingParams:
    """Half-lives in days; `neighbours` kept for each item; `history_items` read of a long history."""

    half_life_together: float = 180.0
    half_life_recent: float = 30.0
    history_half_life: float = 90.0
    neighbours: int = 100
    history_items: int = 150
    shrinkage_people: float = 5.0
    max_session_items: int = 300


@dataclass(frozen=True)
class Relation:
    """A sparse (I, I) matrix by rows, at most `neighbours` entries a row."""

    indptr: Ints
    indices: Ints
    weights: Floats

    @classmethod
    def from_matrix(cls, matrix: sp.csr_matrix, neighbours: int) -> Relation:
        """Keep the strongest entries of each row."""
        matrix = matrix.tocsr()
        matrix.sort_indices()  # the product's own order is not specified
        indices, weights, counts = [], [], []
        for start, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
            data = matrix.data[start:end]
            strong = np.flatnonzero(data > 0)
            if strong.size > neighbours:
                strong = np.sort(strong[np.argpartition(-data[strong], neighbours - 1)[:neighbours]])
            indices.append(matrix.indices[start:end][strong])
            weights.append(data[strong])
            counts.append(strong.size)
        return cls(
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.concatenate([np.zeros(0), *indices]).astype(np.int64),
            np.concatenate([np.zeros(0), *weights]).astype(np.float32),
        )

    def scores(self, item_P: Ints, weight_P: npt.NDArray[np.float64], n_items: int) -> npt.NDArray[np.float64]:
        """(I,) sum over the history of weight x strength; items without rows here (new ones) give nothing."""
        known = item_P < self.indptr.size - 1
        item_P, weight_P = item_P[known], weight_P[known]
        start, length = self.indptr[item_P], self.indptr[item_P + 1] - self.indptr[item_P]
        total = int(length.sum())
        if not total:
            return np.zeros(n_items)
        at = np.arange(total) + np.repeat(start - np.concatenate([[0], np.cumsum(length)[:-1]]), length)
        weights = self.weights[at] * np.repeat(weight_P, length)
        return np.bincount(self.indices[at], weights=weights, minlength=n_items).astype(np.float64)

    def strength(self, source_P: Ints, target: int) -> npt.NDArray[np.float64]:
        """(P,) the entry from each source to one target."""
        found = np.zeros(source_P.size)
        for at, source in enumerate(source_P):
            if source < self.indptr.size - 1:
                row = slice(self.indptr[source], self.indptr[source + 1])
                hit = np.flatnonzero(self.indices[row] == target)
                if hit.size:
                    found[at] = self.weights[row][hit[0]]
        return found


@dataclass(frozen=True)
class CountingModel:
    """The four relations, fitted on everything before a cut."""

    relations: dict[str, Relation]
    params: CountingParams

    @classmethod
    def fit(cls, log: ActionLog, cut_us: int, params: CountingParams | None = None) -> CountingModel:
        """Count over the log's rows before `cut_us`."""
        params = params or CountingParams()
        log = log.before(cut_us)
        age = (cut_us - log.time_us) / DAY_US
        weight = TYPE_WEIGHT[log.type_code] / TYPE_WEIGHT.max()
        together = np.sqrt(weight * np.exp2(-age / params.half_life_together))
        recent = np.sqrt(weight * np.exp2(-age / params.half_life_recent))
        matrices = {
            "together": _cosine(_incidence(log.session, log.item, together, log.n_items, params), 0.0),
            "recent": _cosine(_incidence(log.session, log.item, recent, log.n_items, params), 0.0),
            "people": _cosine(_people(log, weight, params), params.shrinkage_people),
            "next": _next_session(log, params),
        }
        return cls({name: Relation.from_matrix(matrix, params.neighbours) for name, matrix in matrices.items()}, params)

    def history_weights(self, state: UserState, as_of_us: int) -> tuple[Ints, npt.NDArray[np.float64]]:
        """The history items that count, and their decayed weights."""
        weight_P = state.decayed(as_of_us, self.params.history_half_life) * TYPE_WEIGHT[state.type_P]
        strong = np.sort(np.argsort(-weight_P, kind="stable")[: self.params.history_items])
        strong = strong[weight_P[strong] > 0]
        return state.item_P[strong], weight_P[strong]

    def scores(self, state: UserState, as_of_us: int, n_items: int) -> dict[str, npt.NDArray[np.float64]]:
        """Relation -> (I,) score."""
        item_P, weight_P = self.history_weights(state, as_of_us)
        return {name: relation.scores(item_P, weight_P, n_items) for name, relation in self.relations.items()}


def _incidence(
    group: Ints, item: Ints, weight: npt.NDArray[np.float64], n_items: int, params: CountingParams
) -> sp.csr_matrix:
    """(groups, I): the largest weight with which the group holds the item; huge groups count less."""
    keys, first = np.unique(group, return_inverse=True)
    order = np.lexsort((-weight, item, first))
    new = np.ones(order.size, dtype=bool)
    new[1:] = (np.diff(first[order]) != 0) | (np.diff(item[order]) != 0)
    kept = order[new]
    size = np.bincount(first[kept], minlength=keys.size)
    damped = np.minimum(1.0, np.sqrt(params.max_session_items / np.maximum(size, 1)))
    values = weight[kept] * damped[first[kept]]
    return sp.csr_matrix((values, (first[kept], item[kept])), shape=(keys.size, n_items))


def _cosine(incidence: sp.csr_matrix, shrinkage: float) -> sp.csr_matrix:
    product = (incidence.T @ incidence).tocsr()
    norm = np.sqrt(product.diagonal() + 1e-9)
    row = np.repeat(np.arange(product.shape[0]), np.diff(product.indptr))
    product.data /= norm[row] * norm[product.indices] + shrinkage
    product.data[row == product.indices] = 0.0
    return product


def _people(log: ActionLog, weight: npt.NDArray[np.float64], params: CountingParams) -> sp.csr_matrix:
    return _incidence(log.user, log.item, np.sqrt(weight), log.n_items, params)


def _next_session(log: ActionLog, params: CountingParams) -> sp.csr_matrix:
    """(I, I): from the items of a session to those of the same user's next one, each session worth one."""
    sessions, at = np.unique(log.session, return_inverse=True)
    began = np.full(sessions.size, np.iinfo(np.int64).max)
    np.minimum.at(began, at, log.time_us)
    owner = np.zeros(sessions.size, dtype=np.int64)
    owner[at] = log.user
    held = _incidence(log.session, log.item, np.ones(log.item.size), log.n_items, params)
    size = np.maximum(np.diff(held.indptr), 1)
    held = (sp.diags(1.0 / np.sqrt(size)) @ held).tocsr()
    order = np.lexsort((np.arange(sessions.size), began, owner))
    follows = owner[order][1:] == owner[order][:-1]
    before, after = held[order[:-1][follows]], held[order[1:][follows]]
    degree = sp.diags(1.0 / np.sqrt(np.asarray(held.power(2).sum(axis=0)).ravel() + 0.5))
    return (degree @ (before.T @ after) @ degree).tocsr()
