"""Least entropy of what a module says on average of several views of a sample."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor

from tosca_cache.errors import UsageError
from tosca_cache.luca.module import entropy_and_prediction
from tosca_cache.routing.base import ModuleOutputs, Router, register_router

CLEAN = 6 / 16  # the paper's share of clean copies among its 16 inputs


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
        count, own = outputs.lazy.view_count, outputs.task_classes[module]
        block = own if len(own) > 1 else range(outputs.task_classes[-1].stop)
        logits = CLEAN * outputs.logits(module)[:, block.start : block.stop]
        for view in range(count):
            logits = logits + (1 - CLEAN) / count * outputs.lazy.view_logits(module, view, block)
        return entropy_and_prediction(logits)[0] / log(max(len(block), 2))
