"""Routers that combine class scores: closed-form classifiers and the modules predict together.

Every class is scored by the module that was trained for it; the module of a sample is the one of its predicted class.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from tosca_cache.closed_form.pool import POOLED, OpinionPool, standardised
from tosca_cache.closed_form.shared import SharedClassifier
from tosca_cache.luca.bank import Bank
from tosca_cache.routing.base import ModuleOutputs, RoutedPrediction, register_router
from tosca_cache.routing.classifier import ClosedFormRouter
from tosca_cache.tasks import Task


class Combination(ClosedFormRouter):
    """Predicts the class of largest combined score."""

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The task of the predicted class, [n]."""
        return self.predict(outputs).modules

    def predict(self, outputs: ModuleOutputs) -> RoutedPrediction:
        """The class of largest combined score, and its task."""
        labels = self.scores(outputs).argmax(1)
        return RoutedPrediction(outputs.task_of_class[labels], labels)

    def classifier_only(self, outputs: ModuleOutputs) -> Tensor:
        """The class of largest score without the modules, [n]."""
        return self.without_modules(outputs).argmax(1)

    @abstractmethod
    def without_modules(self, outputs: ModuleOutputs) -> Tensor:
        """Scores by the classifiers alone, [n, C]."""


@register_router
class Pool(Combination):
    """Pool of LDA with and without views, ridge regression on random features and class means, times the modules.

    log P(c | x) = log P(c | x) of the pool + log P(c | x, task of c) of the module of the task. The modules cannot be
    calibrated on held-out rows: they have seen all train rows.
    """

    name = "pool"
    source = (
        "logarithmic opinion pool (Genest and Zidek, Statistical Science 1986); temperature scaling (Guo et al., 2017)"
    )
    stores = "sums over all rows (and views) of four classifiers, [d, d] and [C, d] twice, [M, M] and [M, C], [C, d]"
    cost = "3 d C + M (d + C)"
    uses = POOLED

    def take(self, classifiers: dict[str, SharedClassifier]) -> None:
        """Calibrates them."""
        super().take(classifiers)
        self.pool = OpinionPool(classifiers)

    def fit(self, task: Task, bank: Bank) -> None:
        """Adds the train rows of a task to the pool."""
        self.pool.fit(task)

    def scores(self, outputs: ModuleOutputs) -> Tensor:
        """The sum of both log-probabilities, [n, C]."""
        return within_tasks(outputs) + self.without_modules(outputs)

    def without_modules(self, outputs: ModuleOutputs) -> Tensor:
        """Log-probabilities of the pool, [n, C]."""
        return self.pool.log_probs(outputs.features, len(outputs.task_classes))


@register_router
class Fused(Combination):
    """Sum of standardised class scores of LDA, ridge regression on 2,000 random ReLU features, and the modules."""

    name = "fused"
    source = "sum rule over standardised class scores (Jain et al., Pattern Recognition 2005); no parameter to choose"
    stores = "sums over all rows, [d, d], [C, d], [M, M] and [M, C]"
    cost = "d C + M (d + C)"
    uses = ("lda", "ridge-random")

    def scores(self, outputs: ModuleOutputs) -> Tensor:
        """The sum, [n, C]; float64."""
        return self.without_modules(outputs) + standardised(outputs.block_logits.double())

    def without_modules(self, outputs: ModuleOutputs) -> Tensor:
        """The sum over both classifiers, [n, C]."""
        return torch.stack([standardised(scores) for scores in self.scores_of(outputs)]).sum(0)


@register_router
class ChainRule(Combination):
    """P(c | x) = P(task of c | x) P(c | x, that task): the first factor by LDA, the second by the task's module."""

    name = "soft-lda"
    source = "the chain rule; linear discriminant analysis as in `lda`"
    stores = "sums over all rows, [d, d] and [C, d]"
    cost = "d C"
    uses = ("lda",)

    def scores(self, outputs: ModuleOutputs) -> Tensor:
        """The product, [n, C]."""
        p = torch.softmax(self.without_modules(outputs), 1)
        tasks = p.new_zeros(len(p), len(outputs.task_classes)).index_add_(1, outputs.task_of_class, p)
        return within_tasks(outputs).exp() * tasks[:, outputs.task_of_class]

    def without_modules(self, outputs: ModuleOutputs) -> Tensor:
        """Scores of linear discriminant analysis, [n, C]."""
        return self.scores_of(outputs)[0]


def within_tasks(outputs: ModuleOutputs) -> Tensor:
    """log P(c | x, task of c): log-softmax of each module over its own classes, [n, C]; float64."""
    logits = outputs.block_logits.double()
    return torch.cat([torch.log_softmax(logits[:, own.start : own.stop], 1) for own in outputs.task_classes], 1)
