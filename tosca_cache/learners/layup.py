"""LayUP (TMLR 2024): ridge regression on the [CLS] tokens of several blocks, side by side.

z = [CLS] of the last k blocks behind one another, of the outputs of the blocks as they are, the last one after the final
norm; G = sum z z^T, Q = sum z y^T, W = (G + lambda I)^-1 Q, no bias, inputs not normalised. Lambda is chosen at each task:
of 15 values from 1e-4 to 1e3 in even steps of their logarithm, and 1e-8, that of the best mean accuracy over four
stratified folds of the task's rows, each fold's W from all sums before plus the other folds.

k is what the store keeps: `tosca extract --layers 6` makes the published one. On a store of the last [CLS] alone it is
ridge regression on that, and the published accuracies are not to be had.

What differs from the official code: it reads the last block before the final norm as well; here the last piece is what
every learner gets. Its folds fail where no class of a task has four rows; here such a task has fewer rows in some folds,
and folds without rows do not count. The optional first session is left out: it adapts the backbone (`tosca adapt`). A
class needs one row; with one row of each class no fold can tell lambdas apart, and the first of them stands.
"""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.ridge import Ridge
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm


@register_learner
class LayUp(ClosedForm):
    """Stores sum z z^T [k d, k d] and class sums [k d, C]; float64."""

    name = "layup"
    what = "LayUP (TMLR 2024): ridge regression on the [CLS] of all blocks that a store keeps (`tosca extract --layers 6`)."
    source = "LayUP without the first session (TMLR 2024)"
    agrees = (
        "differs: the last block's [CLS] is after the final norm; folds, lambdas and solution are "
        "those of the official code (ky-ah/LayUP, src/modules/ridge.py, f9096cf)."
    )
    adds_rows = True
    pieces = "all"

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = Ridge(selection="folds")
