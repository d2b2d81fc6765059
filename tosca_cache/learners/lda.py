"""Linear discriminant analysis, its covariance shrunk to what makes left-out rows likeliest; exact from sums over rows.

Fisher's discriminant with one covariance within classes and equal priors; the shrinkage is chosen anew after every task
(`closed_form.lda.likely_shrinkage`: Hoffbeck and Landgrebe, IEEE Trans. PAMI 18 (1996); Theiler, Proc. SPIE 8391 (2012)).
"""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.lda import Lda
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm


@register_learner
class LinearDiscriminant(ClosedForm):
    """Stores sum x x^T [d, d], class sums [C, d] and counts [C]."""

    name = "lda"
    source = "linear discriminant analysis (Fisher 1936), shrunk after Hoffbeck and Landgrebe (1996)"
    adds_rows = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = Lda()
