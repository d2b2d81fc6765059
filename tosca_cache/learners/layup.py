"""LayUP (TMLR 2024) on the vectors of a store: ridge regression on what several layers say, side by side.

z = [CLS] of the last k blocks, one after the other; G = sum z z^T, Q = sum z y^T, W = (G + lambda I)^-1 Q, no bias,
inputs as they are. Lambda is chosen at each task: of 15 values from 1e-4 to 1e3 in even steps of their logarithm, and
1e-8, that of the best mean accuracy over four stratified folds of the task's rows, each fold's W from all sums before
plus the other folds.

Where a store keeps one vector a row, as all do that `tosca extract` makes now, that is what it works on: ridge
regression on the last [CLS], and the published accuracies, which are of six layers, are not to be had. Features of
several vectors, [n, k, d], are put side by side.

What differs from the official code: its folds fail where no class of a task has four rows; here such a task has fewer
rows in some folds, and folds without rows do not count. The optional first session is left out: it adapts the
backbone. A class needs one row; with one row of each class no fold can tell lambdas apart, and the first of them
stands.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tosca_cache.closed_form.ridge import Ridge
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm


@register_learner
class LayUp(ClosedForm):
    """Stores sum z z^T [k d, k d] and class sums [k d, C]; float64."""

    name = "layup"
    what = "LayUP (TMLR 2024): ridge regression on all vectors that a store keeps of a row; of one, on the last [CLS]."
    source = "LayUP without the first session (TMLR 2024)"
    agrees = (
        "differs: of as many layers as the store has, which is one so far; folds, lambdas and solution are "
        "those of the official code (ky-ah/LayUP, src/modules/ridge.py, f9096cf), which has six."
    )
    adds_rows = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = Ridge(selection="folds")

    def prepared(self, x: Tensor) -> Tensor:
        """Vectors of several layers [n, k, d] side by side, [n, k d]; one vector [n, d] as it is."""
        return x.flatten(1)
