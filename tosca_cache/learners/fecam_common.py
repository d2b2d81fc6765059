"""FeCAM (arXiv 2309.14062) with one covariance for all classes: a running average of the tasks' covariances.

As in the official code, a task's covariance is that of all its rows about their mean, and counts as much as it has classes.
What differs: there a task's covariance is shrunk before it is averaged (the first one is not) and correlations are not
taken; here the average is shrunk once and made correlations, as each class's own covariance is in the scripts for
vision transformers.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tosca_cache.closed_form.mahalanobis import CommonCovariance
from tosca_cache.closed_form.means import unit
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm


@register_learner
class FeCamCommon(ClosedForm):
    """Stores the class means [C, d] and one covariance [d, d].

    Arguments:
        a1, a2: shrinkage of diagonal and off-diagonal.
    """

    name = "fecam-common"
    source = "FeCAM (arXiv 2309.14062), common covariance"

    def __init__(self, *, a1: float = 1.0, a2: float = 0.0, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = CommonCovariance(a1=a1, a2=a2)

    def prepared(self, x: Tensor) -> Tensor:
        """Features at unit length."""
        return unit(x.double())
