"""Class-balanced analytic learning (AIR, arXiv 2408.10349): every class's Gram matrix divided by its count.

Rows of earlier classes may come in any task. What differs from the official code: it also scales the class weights to a
mean of one, which is the same as dividing gamma by that scale; and it keeps a Gram matrix [M, M] of every class, where here
its square root is kept (`closed_form.balanced`).
"""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.balanced import BalancedRidge
from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import Expanded
from tosca_cache.seeds import derive_seed


@register_learner
class Garm(Expanded):
    """Stores square roots of the classes' Gram matrices, as many rows of M numbers as there were train rows.

    Arguments:
        buffer: number M of random features. gamma: the ridge.
        projection: law of the random weights, `uniform` or `gaussian`.
    """

    name = "garm"
    source = "AIR's GeneralizedARM (arXiv 2408.10349)"
    adds_rows = True

    def __init__(self, *, buffer: int = 8192, gamma: float = 0.1, projection: str = "uniform", **common: Any) -> None:
        super().__init__(**common)
        features = RandomFeatures(buffer, seed=derive_seed(self.seed, "projection"), law=projection)
        self.classifier = BalancedRidge(features, gamma=gamma)
