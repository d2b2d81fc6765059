"""FeCAM (arXiv 2309.14062) in its form for vision transformers: Mahalanobis distances with each class's own covariance.

Features at unit length, means as they are, no Tukey transform, one shrinkage, correlations instead of covariances. What
differs from the official script: the pseudo-inverse is taken through a low-rank form where it is a plain inverse
(`closed_form.mahalanobis`), and a class of a single row has the identity, where the script's covariance is not a number.

`fecam-common` has one covariance for all classes. As in the official code, a task's covariance is that of all its rows
about their mean, and counts as much as it has classes. What differs: there a task's covariance is shrunk before it is
averaged (the first one is not) and correlations are not taken; here the average is shrunk once and made correlations, as
each class's own covariance is in the scripts for vision transformers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tosca_cache.closed_form.mahalanobis import ClassCovariances, CommonCovariance
from tosca_cache.devices import one_thread
from tosca_cache.learners.base import FloatArray, Prediction, TestSet, register_learner
from tosca_cache.learners.closed import ClosedForm


@register_learner
class FeCam(ClosedForm):
    """Stores of each class mean and ridge [d] and a factor [k, d] of its precision: k < n of n rows, and k <= d.

    Arguments:
        a1, a2: shrinkage of diagonal and off-diagonal; 1 and 0 on CIFAR-100, 10 and 10 on ImageNet-R.
    """

    classifier: ClassCovariances
    unit_length = True
    name = "fecam"
    source = "FeCAM (arXiv 2309.14062), the scripts for vision transformers"

    def __init__(self, *, a1: float = 1.0, a2: float = 0.0, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = ClassCovariances(a1=a1, a2=a2)

    def test_set(self) -> TestSet:
        """Test rows whose distances to known classes are kept."""
        return KeptDistances(self)


@register_learner
class FeCamCommon(ClosedForm):
    """Stores the class means [C, d] and one covariance [d, d].

    Arguments:
        a1, a2: shrinkage of diagonal and off-diagonal.
    """

    unit_length = True
    name = "fecam-common"
    what = "FeCAM (arXiv 2309.14062) with one covariance for all classes: a running average of the tasks' covariances."
    source = "FeCAM (arXiv 2309.14062), common covariance"

    def __init__(self, *, a1: float = 1.0, a2: float = 0.0, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = CommonCovariance(a1=a1, a2=a2)


class KeptDistances(TestSet):
    """Test rows and their distances: neither a row nor a class changes, so each pair is computed once."""

    learner: FeCam

    def __init__(self, learner: FeCam) -> None:
        super().__init__(learner)
        self.known: list[FloatArray] = []  # scores of each part over the classes known when last asked, [n, C]

    @one_thread()
    def predict(self) -> Prediction:
        """Predictions for all rows added, in the order of adding."""
        classifier = self.learner.classifier
        self.known += [np.empty((len(part), 0)) for part in self.parts[len(self.known) :]]
        for i, (part, known) in enumerate(zip(self.parts, self.known, strict=True)):
            if known.shape[1] < len(classifier.precisions):
                new = classifier.scores(self.learner.tensor(part), known.shape[1])
                self.known[i] = np.concatenate([known, new.cpu().numpy()], 1)
        return Prediction(np.concatenate([known.argmax(1) for known in self.known]))
