"""Items by what they are: scores from attributes, the only signal for an item that nobody took yet.

Choices. Two views: what is alike (cosine of attributes, no training, holds for an item added a minute ago), and what
kind follows what kind (transitions between attributes), because a shampoo is followed by a conditioner. Attributes
weigh by their rarity; an item's vector has unit length; a history counts by its decayed items.
Shapes: I items, A attributes, B asked users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from models.baselines import recent_counts
from models.interactions import Floats, Floats32, Interactions, Retriever
from models.transitions import damped, decayed, dense, directed


@dataclass(frozen=True)
class ContentModel:
    """(I, A) weighted attributes, rows of unit length (zero where nothing is known)."""

    vector_IA: sp.csr_matrix
    decay: float

    @classmethod
    def fit(cls, attributes: sp.csr_matrix, decay: float) -> ContentModel:
        """Inverse document frequency, then unit length."""
        held_A = np.asarray(attributes.sum(axis=0)).ravel()
        weighted = attributes @ sp.diags(np.log((1.0 + attributes.shape[0]) / (1.0 + held_A)))
        norm = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        unit = sp.diags(np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)) @ weighted
        return cls(unit.tocsr(), decay)

    def scores(self, asked: Interactions) -> Floats32:
        """(B, I)."""
        return dense((decayed(asked, self.decay) @ self.vector_IA) @ self.vector_IA.T)


@dataclass(frozen=True)
class AttributeTransitions:
    """What kind of item follows what kind: transitions between attributes, read back as item scores."""

    vector_IA: sp.csr_matrix
    relation_AA: sp.csr_matrix
    decay: float

    @classmethod
    def fit(cls, data: Interactions, attributes: sp.csr_matrix, decay: float, window: int = 5) -> AttributeTransitions:
        """Lift of each pair of attributes over what their shares would give."""
        vector_IA = ContentModel.fit(attributes, decay).vector_IA
        counts = (vector_IA.T @ directed(data, window) @ vector_IA).tocsr()
        return cls(vector_IA, damped(counts, 0.5, 0.5), decay)

    def scores(self, asked: Interactions) -> Floats32:
        """(B, I)."""
        wanted_BA = decayed(asked, self.decay) @ self.vector_IA @ self.relation_AA
        return dense(wanted_BA @ self.vector_IA.T)


@dataclass(frozen=True)
class ColdOnly:
    """Another model's scores for the items that training never held; -1 for all others."""

    inner: Retriever
    warm_I: npt.NDArray[np.bool_]

    @classmethod
    def over(cls, inner: Retriever, data: Interactions) -> ColdOnly:
        """Which items are warm is read from the training data."""
        return cls(inner, data.counts_I() > 0)

    def scores(self, asked: Interactions) -> Floats32:
        """(B, I)."""
        scores = self.inner.scores(asked)
        scores[:, self.warm_I] = -1.0
        return scores


def trend_of_attributes(data: Interactions, attributes: sp.csr_matrix, half_life_days: float = 60.0) -> Floats:
    """(I,) how much the item's attributes were taken of late, for each item that carries them (mean of logs)."""
    recent_A = attributes.T @ recent_counts(data, half_life_days)
    carriers_A = np.asarray(attributes.sum(axis=0)).ravel()
    log_A = np.log1p(recent_A) - np.log1p(carriers_A)
    held_I = np.maximum(np.asarray(attributes.sum(axis=1)).ravel(), 1.0)
    trend: Floats = np.asarray(attributes @ log_A) / held_I
    return trend
