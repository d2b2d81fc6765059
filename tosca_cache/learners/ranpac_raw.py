"""RanPAC without random projection and phase 1 (an ablation of arXiv 2307.02251): ridge regression on raw features."""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.ridge import Ridge
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.seeds import derive_seed


@register_learner
class RanPacRaw(ClosedForm):
    """Stores sum x x^T [d, d] and class sums [d, C]; lambda is chosen at each task from its own rows; float64."""

    name = "ranpac-raw"
    source = "RanPAC without projection and phase 1 (arXiv 2307.02251)"
    adds_rows = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = Ridge(seed=derive_seed(self.seed, "projection"), selection="split")
