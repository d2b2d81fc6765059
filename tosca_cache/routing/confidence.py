"""Which module is surest of itself, by what it says of the classes that it was trained for: nothing is stored.

Modules were never trained against each other, so that these scores need not be comparable between modules; methods.md 16.2
("Reading across") says how badly that can end. Tasks of unequal size are the reason for the factors log K.
"""

from __future__ import annotations

from abc import abstractmethod
from math import log

import torch
from torch import Tensor

from tosca_cache.errors import UsageError
from tosca_cache.luca.module import entropy_and_prediction
from tosca_cache.routing.base import ModuleOutputs, Router, register_router

CLEAN = 6 / 16  # ConTraCon's share of clean copies among its 16 inputs


@register_router
class SampleEntropy(Router):
    """argmin_i H_i(x): the module that is surest about this very sample. Stores nothing."""

    name = "sample"
    source = "TOSCA (TMLR 2026), inference, without the mean over the test batch"

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The module of least entropy, [n]."""
        return outputs.entropy.argmin(0)


class ConfidenceRouter(Router):
    """argmax_t of a number that each module gives."""

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The surest module, [n]."""
        each = [self.confidence(outputs.logits(t), block) for t, block in enumerate(outputs.task_classes)]
        return torch.stack(each).argmax(0)

    @abstractmethod
    def confidence(self, logits: Tensor, block: range) -> Tensor:
        """How sure a module is of each sample, [n].

        Arguments:
            logits: of this module over all classes seen, [n, C].
            block: the classes that it was trained for.
        """


def own(logits: Tensor, block: range) -> Tensor:
    """The logits of a module's own classes, [n, K]."""
    return logits[:, block.start : block.stop]


def normalised_entropy(logits: Tensor) -> Tensor:
    """Entropy over the classes of some logits [n, K], divided by its maximum log K, [n]."""
    return entropy_and_prediction(logits)[0] / log(max(logits.shape[1], 2))


@register_router
class OwnEntropy(ConfidenceRouter):
    """Least entropy over the module's own classes, divided by its maximum log K.

    A block of one class has no entropy: there the entropy over all classes stands for it, divided by log C.
    """

    name = "own-entropy"
    source = "ConTraCon (arXiv 2308.11357), on one view; normalised for tasks of unequal size"

    def confidence(self, logits: Tensor, block: range) -> Tensor:
        """Minus the normalised entropy, [n]."""
        return -normalised_entropy(own(logits, block) if len(block) > 1 else logits)


@register_router
class MaxCosine(ConfidenceRouter):
    """Largest cosine with a prototype of the module's own classes (sigma is the same for all modules)."""

    name = "max-cosine"
    source = "a variant tried for ridge-routed LuCA"

    def confidence(self, logits: Tensor, block: range) -> Tensor:
        """The largest logit of the own classes, [n]."""
        return own(logits, block).amax(1)


@register_router
class Margin(ConfidenceRouter):
    """Largest gap between the two largest probabilities over all classes seen; with one class, that probability."""

    name = "margin"
    source = "a variant tried for ridge-routed LuCA"

    def confidence(self, logits: Tensor, block: range) -> Tensor:
        """The gap between the two largest probabilities, [n]."""
        top = torch.softmax(logits, -1).topk(min(2, logits.shape[1]), dim=1).values
        return top[:, 0] - (top[:, 1] if top.shape[1] > 1 else 0)


@register_router
class Energy(ConfidenceRouter):
    """Least free energy of the module's own classes: largest log-mean-exp of their logits.

    The mean instead of the sum: a block of more classes would otherwise win by its size.
    """

    name = "energy"
    source = "energy-based out-of-distribution detection (Liu et al., NeurIPS 2020), normalised by log K"

    def confidence(self, logits: Tensor, block: range) -> Tensor:
        """Log-mean-exp of the own logits, [n]."""
        return torch.logsumexp(own(logits, block), 1) - log(len(block))


@register_router
class ViewEntropy(Router):
    """Least entropy over the module's own classes, of logits averaged over the clean sample and its augmented views.

    Divided by log K, which the paper need not do with its tasks of one size. A block of one class has no entropy: there all
    classes stand for it, as in `own-entropy`. The clean view counts 6/16 and the augmented ones share the rest, whatever
    their number; the paper's ten views follow AutoAugment, these are the views of the store (training crops and flips).
    """

    name = "contracon"
    source = "ConTraCon, augmentation-based task identification (arXiv 2308.11357)"
    cost = "V times the modules: 4 T V d h"
    needs_views = True

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The module of least entropy, [n]; raises `UsageError` without augmented views of the test rows."""
        if not outputs.lazy.view_count:
            raise UsageError(
                f"router {self.name} asks for augmented views of the test rows, and this store has none",
                where="--router",
                remedy="extract the dataset with --test-views 8, or choose another router",
            )
        return torch.stack([self._entropy(outputs, t) for t in range(len(outputs.task_classes))]).argmin(0)

    def _entropy(self, outputs: ModuleOutputs, module: int) -> Tensor:
        count, block = outputs.lazy.view_count, outputs.task_classes[module]
        block = block if len(block) > 1 else range(outputs.task_classes[-1].stop)
        logits = CLEAN * own(outputs.logits(module), block)
        for view in range(count):
            logits = logits + (1 - CLEAN) / count * outputs.lazy.view_logits(module, view, block)
        return normalised_entropy(logits)
