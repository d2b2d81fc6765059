"""ACIL (NeurIPS 2022) and G-ACIL (arXiv 2403.15706): recursive least squares on random ReLU features.

G-ACIL is the same recursion on tasks with rows of earlier classes, which `observe` takes. What differs from the official
code: the backbone is frozen from the start, where there it is trained on the first task; and while there are at most 1.5
rows for each random feature, the inverse autocorrelation is kept in a smaller, equal form (`closed_form.recursive`).
"""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.recursive import RecursiveRidge
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import Expanded
from tosca_cache.seeds import derive_seed


@register_learner
class Acil(Expanded):
    """Stores square roots of Gram matrices, [r, M] and [r, C], for r <= 1.5 M rows; then an inverse [M, M], and W [M, C].

    Arguments:
        buffer: number M of random features. gamma: the ridge.
        projection: law of the random weights, `uniform` as in ACIL or `gaussian` as in RanPAC.
    """

    name = "acil"
    source = "ACIL (NeurIPS 2022) and G-ACIL (arXiv 2403.15706)"
    adds_rows = True

    def __init__(self, *, buffer: int = 8192, gamma: float = 0.1, projection: str = "uniform", **common: Any) -> None:
        super().__init__(**common)
        features = RandomFeatures(buffer, seed=derive_seed(self.seed, "projection"), law=projection)
        self.classifier = RecursiveRidge(features, gamma=gamma)
