"""Soft combinations: several modules answer together, or a closed-form classifier and the modules do.

Every class is scored by the module that was trained for it. What a combination calls the module of a sample is the one of
the task of the class that it answers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from tosca_cache.routing.base import ModuleOutputs, RoutedPrediction, register_router
from tosca_cache.routing.judges import WithJudges

FLOOR = 1e-12


class Combination(WithJudges):
    """Answers the class of largest combined score."""

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The task of the class answered, [n]."""
        return self.answer(outputs).modules

    def answer(self, outputs: ModuleOutputs) -> RoutedPrediction:
        """The class of largest combined score, and its task."""
        labels = self.scores(outputs).argmax(1)
        return RoutedPrediction(outputs.task_of_class[labels], labels)

    def scores(self, outputs: ModuleOutputs) -> Tensor:
        """Combined scores, [n, C]."""
        return self.combined([judge.scores(outputs) for judge in self.judges.values()], outputs)

    @abstractmethod
    def combined(self, scores: list[Tensor], outputs: ModuleOutputs) -> Tensor:
        """What becomes of the scores of each classifier, [n, C] each, and of what the modules say."""


def standardised(scores: Tensor) -> Tensor:
    """Each sample's scores in standard deviations from their mean over the classes, [n, C]: one scale for all judges.

    z-score normalisation, Jain, Nandakumar and Ross, Pattern Recognition 38 (2005), section 4.
    """
    centred = scores - scores.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).sqrt().clamp_min(FLOOR)


def summed(judges: Sequence[Tensor]) -> Tensor:
    """The sum of the standardised scores of several judges, [n, C]; float64."""
    return torch.stack([standardised(judge.double()) for judge in judges]).sum(0)


class Fused(Combination):
    """The sum of the standardised scores of all judges: each closed-form classifier, and the modules as one more."""

    source = "sum rule over standardised class scores (Jain et al., Pattern Recognition 2005); no parameter to choose"

    def combined(self, scores: list[Tensor], outputs: ModuleOutputs) -> Tensor:
        """The sum, [n, C]."""
        return summed([*scores, outputs.block_logits])

    def alone(self, outputs: ModuleOutputs) -> Tensor:
        """The class of the largest sum without the modules, [n]."""
        return summed([judge.scores(outputs) for judge in self.judges.values()]).argmax(1)


@register_router
class FusedLda(Fused):
    """Linear discriminant analysis and the modules."""

    name = "fused-lda"
    stores = "sums over all rows, [d, d] and [C, d]"
    cost = "d C"
    uses = ("lda",)


@register_router
class FusedRidge(Fused):
    """Ridge regression on 2,000 random ReLU features and the modules."""

    name = "fused-ridge"
    stores = "sums over all rows, [M, M] and [M, C]"
    cost = "M (d + C)"
    uses = ("ridge-random",)


@register_router
class FusedAll(Fused):
    """Linear discriminant analysis, ridge regression on 2,000 random ReLU features, and the modules."""

    name = "fused"
    stores = "sums over all rows, [d, d], [C, d], [M, M] and [M, C]"
    cost = "d C + M (d + C)"
    uses = ("lda", "ridge-random")


@register_router
class FusedViews(Fused):
    """The same, and linear discriminant analysis of the augmented views of train rows."""

    name = "fused-views"
    stores = "sums over all rows and views, [d, d] and [C, d] twice, [M, M] and [M, C]"
    cost = "2 d C + M (d + C)"
    uses = ("lda", "lda-views", "ridge-random")


class ByPosterior(Combination):
    """Takes the probability of each task from linear discriminant analysis."""

    stores = "sums over all rows, [d, d] and [C, d]"
    cost = "d C"
    uses = ("lda",)

    def alone(self, outputs: ModuleOutputs) -> Tensor:
        """The class that linear discriminant analysis predicts, [n]."""
        return self.judges["lda"].scores(outputs).argmax(1)

    def of_tasks(self, scores: list[Tensor], outputs: ModuleOutputs) -> Tensor:
        """P(t | x), the sum over the task's classes, [n, T]."""
        p = torch.softmax(scores[0], 1)
        return p.new_zeros(len(p), len(outputs.blocks)).index_add_(1, outputs.task_of_class, p)


@register_router
class ChainRule(ByPosterior):
    """P(c | x) = P(task of c | x) P(c | x, that task): the first factor by LDA, the second by the task's module."""

    name = "soft-lda"
    source = "the chain rule; linear discriminant analysis as in `lda`"

    def combined(self, scores: list[Tensor], outputs: ModuleOutputs) -> Tensor:
        """The product, [n, C]."""
        tasks, logits = self.of_tasks(scores, outputs), outputs.block_logits.double()
        within = [torch.softmax(logits[:, block.start : block.stop], 1) for block in outputs.blocks]
        return torch.cat(within, 1) * tasks[:, outputs.task_of_class]


@register_router
class Weighted(ByPosterior):
    """sum_t P(t | x) softmax(logits of module t): all modules speak on all classes, by their share."""

    name = "weighted-lda"
    source = "a mixture of experts with linear discriminant analysis as its gate"

    def combined(self, scores: list[Tensor], outputs: ModuleOutputs) -> Tensor:
        """The weighted mean of probabilities, [n, C]."""
        tasks = self.of_tasks(scores, outputs)
        each = (torch.softmax(outputs.logits(t).double(), 1) for t in range(len(outputs.blocks)))
        return sum((tasks[:, t : t + 1] * p for t, p in enumerate(each)), torch.zeros_like(scores[0]))
