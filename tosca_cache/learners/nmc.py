"""NMC (arXiv 2210.04428): the nearest mean of unit-length features; nothing is trained.

As in the official code, means of unit vectors are not scaled to unit length again, and distances are Euclidean.
"""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.means import NearestUnitMean
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm


@register_learner
class Nmc(ClosedForm):
    """Stores the class means [C, d]."""

    name = "nmc"
    source = "A Simple Baseline that Questions the Use of Pretrained Models in CL (arXiv 2210.04428)"
    adds_rows = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = NearestUnitMean()
