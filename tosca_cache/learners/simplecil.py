"""SimpleCIL (arXiv 2303.07338): cosine similarity to the class means of the raw clean features; nothing is trained."""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.means import NearestMean
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm

__all__ = ["SimpleCil"]


@register_learner
class SimpleCil(ClosedForm):
    """Stores the class means [C, d]. The "nearest class mean" of our tables."""

    name = "simplecil"
    source = "SimpleCIL (arXiv 2303.07338)"
    adds_rows = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = NearestMean()
