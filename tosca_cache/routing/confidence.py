"""Which module is surest of itself, by what it says of the classes that it was trained for: nothing is stored.

Modules were never trained against each other, so that these scores need not be comparable between modules; methods.md 16.2
("Reading across") says how badly that can end. Tasks of unequal size are the reason for the factors log K.
"""

from __future__ import annotations

from abc import abstractmethod
from math import log

import torch
from torch import Tensor

from tosca_cache.luca.module import entropy_and_prediction
from tosca_cache.routing.base import ModuleOutputs, Router, register_router


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


@register_router
class OwnEntropy(ConfidenceRouter):
    """Least entropy over the module's own classes, divided by its maximum log K.

    A block of one class has no entropy: there the entropy over all classes stands for it, divided by log C.
    """

    name = "own-entropy"
    source = "ConTraCon (arXiv 2308.11357), on one view; normalised for tasks of unequal size"

    def confidence(self, logits: Tensor, block: range) -> Tensor:
        """Minus the normalised entropy, [n]."""
        chosen = own(logits, block) if len(block) > 1 else logits
        return -entropy_and_prediction(chosen)[0] / log(max(chosen.shape[1], 2))


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
