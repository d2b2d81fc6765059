"""Streaming LDA (arXiv 1909.01520): one covariance within classes, shrunk by a fixed amount, from sums over all rows.

The official code updates the covariance row by row, each row about the mean of its class so far, with divisor n; here it is
the covariance about the final class means with divisor n - C, which does not depend on the order of the rows.
"""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.lda import Lda
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm


@register_learner
class Slda(ClosedForm):
    """Stores sum x x^T [d, d], class sums [C, d] and counts [C].

    Arguments:
        shrinkage: e in ((1 - e) S + e I)^-1; its strength depends on the scale of the features.
    """

    name = "slda"
    source = "Streaming LDA (arXiv 1909.01520)"
    adds_rows = True

    def __init__(self, *, shrinkage: float = 1e-4, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = Lda(shrinkage=shrinkage, relative=False)
