"""Routers that predict a class by a closed-form classifier of the raw features and take the module of its task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from tosca_cache.closed_form.shared import SharedClassifier
from tosca_cache.luca.bank import Bank
from tosca_cache.routing.base import ModuleOutputs, Router, register_router
from tosca_cache.tasks import Task


class ClosedFormRouter(Router):
    """A router with closed-form classifiers. uses: which."""

    uses: ClassVar[tuple[str, ...]]
    learned = ("classifiers",)

    def __init__(self) -> None:
        self.take({name: SharedClassifier(name) for name in self.uses})

    def take(self, classifiers: dict[str, SharedClassifier]) -> None:
        """Makes these its classifiers."""
        self.classifiers = classifiers

    def share_cache(self, cache: dict[str, Any]) -> None:
        """Takes classifiers of the cache, and adds those that are not in it; see `Router.share_cache`."""
        self.take({name: cache.setdefault(f"classifier {name}", one) for name, one in self.classifiers.items()})
        for one in self.classifiers.values():
            one.keeps_scores = "same rows" in cache

    @abstractmethod
    def classifier_only(self, outputs: ModuleOutputs) -> Tensor:
        """The class that its classifiers predict without any module, [n]."""

    def fit(self, task: Task, bank: Bank) -> None:
        """Adds the train rows of a task to every classifier."""
        for one in self.classifiers.values():
            one.fit(task)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` gave, into classifiers of its own."""
        self.take({name: SharedClassifier(name) for name in self.uses})
        super().load_state(state)

    def scores_of(self, outputs: ModuleOutputs) -> list[Tensor]:
        """Scores of each classifier, [n, C] each; float64."""
        return [one.scores(outputs.features, len(outputs.task_classes)) for one in self.classifiers.values()]


class ByClassifier(ClosedFormRouter):
    """The module whose task holds the class predicted by the one classifier that it uses."""

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The task of each predicted class, [n]."""
        return outputs.task_of_class[self.classifier_only(outputs)]

    def classifier_only(self, outputs: ModuleOutputs) -> Tensor:
        """The class that the classifier itself predicts, [n]."""
        return self.scores_of(outputs)[0].argmax(1)


@register_router
class PrototypeRouter(ByClassifier):
    """The nearest class mean."""

    name = "prototype"
    source = "SimpleCIL (arXiv 2303.07338) as a router"
    stores = "a mean of each class, [C, d]"
    cost = "d C"
    uses = ("mean",)


@register_router
class RidgeRouter(ByClassifier):
    """Ridge regression on the raw features; lambda by generalised cross-validation."""

    name = "ridge"
    source = "RanPAC without projection (arXiv 2307.02251) as a router"
    stores = "sums over all rows, [d, d] and [d, C]"
    cost = "d C"
    uses = ("ridge",)


@register_router
class RandomRidgeRouter(ByClassifier):
    """Ridge regression on 2,000 random ReLU features; lambda by generalised cross-validation."""

    name = "ridge-random"
    source = "RanPAC (arXiv 2307.02251) as a router, as in ridge-routed LuCA"
    stores = "sums over all rows, [M, M] and [M, C]; the projection is its seed"
    cost = "M (d + C)"
    uses = ("ridge-random",)


@register_router
class LdaRouter(ByClassifier):
    """Linear discriminant analysis with the covariance within classes."""

    name = "lda"
    source = "streaming LDA (arXiv 1909.01520) with a shrinkage relative to the mean variance"
    stores = "sums over all rows, [d, d] and [C, d]"
    cost = "d C"
    uses = ("lda",)


@register_router
class ViewsLdaRouter(ByClassifier):
    """Linear discriminant analysis of the clean train rows and all their augmented views."""

    name = "lda-views"
    source = "as `lda`; the views teach the covariance what does not tell classes apart (an own variant)"
    stores = "sums over all rows and views, [d, d] and [C, d]"
    cost = "d C"
    uses = ("lda-views",)
