"""Nearest class means: SimpleCIL (arXiv 2303.07338) by cosine, and NMC (arXiv 2210.04428) by distance; nothing is trained.

`nmc`: as in the official code, means of unit vectors are not scaled to unit length again, and distances are Euclidean.
"""

from __future__ import annotations

from typing import Any

from tosca_cache.closed_form.means import NearestMean, NearestUnitMean
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm

__all__ = ["Nmc", "SimpleCil"]


@register_learner
class SimpleCil(ClosedForm):
    """Stores the class means [C, d]. The "nearest class mean" of our tables."""

    name = "simplecil"
    what = (
        "SimpleCIL (arXiv 2303.07338): cosine similarity to the class means of the raw clean features; nothing is "
        "trained."
    )
    source = "SimpleCIL (arXiv 2303.07338)"
    agrees = "equal to the official code (sun-hailong/LAMDA-PILOT, models/simplecil.py, 3450184)."
    adds_rows = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = NearestMean()


@register_learner
class Nmc(ClosedForm):
    """Stores the class means [C, d]."""

    name = "nmc"
    what = "NMC (arXiv 2210.04428): the nearest mean of unit-length features; nothing is trained."
    source = "A Simple Baseline that Questions the Use of Pretrained Models in CL (arXiv 2210.04428)"
    agrees = "equal to the official code (Pauljanson002/pretrained-cl, main_cifar100.py, 19f2d86)."
    adds_rows = True

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = NearestUnitMean()
