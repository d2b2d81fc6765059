"""The task of the class that a closed-form classifier of the raw features predicts."""

from __future__ import annotations

from torch import Tensor

from tosca_cache.routing.base import ModuleOutputs, register_router
from tosca_cache.routing.judges import WithJudges


class ByClassifier(WithJudges):
    """The module whose task holds the class predicted by the one classifier that it uses."""

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The task of each predicted class, [n]."""
        return outputs.task_of_class[self.alone(outputs)]

    def alone(self, outputs: ModuleOutputs) -> Tensor:
        """The class that the classifier itself predicts, without any module, [n]."""
        (judge,) = self.judges.values()
        return judge.scores(outputs).argmax(1)


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
    """Ridge regression on the raw features, lambda chosen on each task's train rows."""

    name = "ridge"
    source = "RanPAC without projection (arXiv 2307.02251) as a router"
    stores = "sums over all rows, [d, d] and [d, C]"
    cost = "d C"
    uses = ("ridge",)


@register_router
class RandomRidgeRouter(ByClassifier):
    """Ridge regression on 2,000 random ReLU features, lambda chosen on each task's train rows."""

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
