"""AnaCP (NeurIPS 2025): features adapted in closed form towards class means that are spread apart, then ridge regression.

The equations are those of `closed_form.contrast`. What differs from the paper: it adapts the backbone on the first
task, which a cache cannot have, and works without. What differs from the official code: it goes back from whitened
means by Sigma^-1/2 where the paper has Sigma^1/2; its running covariance counts
new rows twice and adds the 1e-4 I once at the first task, here it is that of all rows (divisor n - C), plus 1e-4 I;
it moves the means along the direction that centring leaves over as well, which only rounding chooses. The paper has a
sign for each direction, which the code and we set to plus.

With one row of every class the covariance is 1e-4 I. A class needs one row.
"""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.contrast import SpreadMeans
from tosca_cache.config.checks import Count
from tosca_cache.learners.base import Positive, register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.learners.ranpac import PRECISIONS, Precision
from tosca_cache.seeds import derive_seed


@register_learner
class AnaCp(ClosedForm):
    """Stores sum x x^T [d, d], class sums [C, d] and counts; and of each head what `ranpac` stores.

    Arguments:
        expansion: random features of each head and of the classifier (5,000; the paper has 10,000 too).
        heads: how many adapt; their mean is classified. gamma: the ridge of heads and classifier.
        per_class: samples of each class that the classifier is fitted to.
        alpha: how far class means are spread.
        precision: of the ridge regressions, `float32` or `float64`.
    """

    name = "anacp"
    what = "AnaCP (NeurIPS 2025): features adapted in closed form towards spread class means, then ridge regression."
    source = "AnaCP without the first session (NeurIPS 2025)"
    agrees = (
        "differs: whitened means go back by the root of the covariance, as in the paper, where the official "
        "code (SalehMomeni/AnaCP, models/anacp.py, 480d9f3) divides by it again, and counts new"
        " rows twice in it; no first session."
    )
    unit_length = True
    all_threads = True
    adds_rows = True

    def __init__(
        self,
        *,
        expansion: Count = 5000,
        heads: Count = 3,
        gamma: Positive = 100.0,
        per_class: Count = 100,
        alpha: float = 1.0,
        precision: Precision = "float32",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.classifier = SpreadMeans(
            expansion,
            heads=heads,
            ridge=gamma,
            alpha=alpha,
            per_class=per_class,
            seed=derive_seed(self.seed, "projection"),
            dtype=PRECISIONS[precision],
        )
