"""The task of the class that a closed-form classifier of the raw features predicts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from tosca_cache.closed_form.lda import Lda
from tosca_cache.closed_form.means import NearestMean
from tosca_cache.closed_form.ridge import Ridge
from tosca_cache.luca.bank import Bank
from tosca_cache.routing.base import Evidence, Router, register_router
from tosca_cache.tasks import Task

EXPANSION = 2000  # of random features


class Classifier(Protocol):
    """A classifier that is exact for any split of the rows into tasks."""

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task."""

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes, [n, C]."""

    def state(self) -> dict[str, Tensor]:
        """What it has learned."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes that over."""


def learn_clean(classifier: Classifier, task: Task) -> None:
    """Adds the clean train rows of a task to a classifier."""
    clean = torch.from_numpy(task.train.features[:, 0])
    classifier.observe(clean, torch.from_numpy(task.train.labels), task.classes.stop)


class ByClassifier(Router):
    """The module whose task holds the predicted class. make: gives a fresh classifier."""

    make: ClassVar[Callable[[], Classifier]]

    def __init__(self) -> None:
        self.classifier = type(self).make()

    def fit(self, task: Task, bank: Bank) -> None:
        """Adds the clean train rows of a task."""
        learn_clean(self.classifier, task)

    def route(self, evidence: Evidence) -> Tensor:
        """The task of each predicted class, [n]."""
        return evidence.task_of_class[self.alone(evidence)]

    def alone(self, evidence: Evidence) -> Tensor:
        """The class that the classifier itself predicts, without any module, [n]."""
        return self.classifier.scores(evidence.features.cpu()).argmax(1).to(evidence.features.device)

    def state(self) -> dict[str, Tensor]:
        """The classifier's."""
        return self.classifier.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The classifier's."""
        self.classifier.load_state(state)


@register_router
class PrototypeRouter(ByClassifier):
    """The nearest class mean."""

    name = "prototype"
    source = "SimpleCIL (arXiv 2303.07338) as a router; methods.md 1"
    stores = "a mean of each class, [C, d]"
    cost = "d C"
    make = NearestMean


@register_router
class RidgeRouter(ByClassifier):
    """Ridge regression on the raw features, lambda chosen on each task's train rows."""

    name = "ridge"
    source = "RanPAC without projection (arXiv 2307.02251) as a router; methods.md 5 and 16"
    stores = "sums over all rows, [d, d] and [d, C]"
    cost = "d C"
    make = Ridge


@register_router
class RandomRidgeRouter(ByClassifier):
    """Ridge regression on 2,000 random ReLU features, lambda chosen on each task's train rows."""

    name = "ridge-random"
    source = "RanPAC (arXiv 2307.02251) as a router, as in ridge-routed LuCA; methods.md 5 and 16.1"
    stores = "sums over all rows, [M, M] and [M, C]; the projection is its seed"
    cost = "M (d + C)"
    make = staticmethod(partial(Ridge, EXPANSION))


@register_router
class LdaRouter(ByClassifier):
    """Linear discriminant analysis with the covariance within classes."""

    name = "lda"
    source = "streaming LDA (arXiv 1909.01520) with a shrinkage relative to the mean variance; methods.md 2"
    stores = "sums over all rows, [d, d] and [C, d]"
    cost = "d C"
    make = Lda
