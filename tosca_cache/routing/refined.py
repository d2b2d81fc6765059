"""MOS's self-refined retrieval: the module that its own prediction leads back to."""

from __future__ import annotations

import torch
from torch import Tensor

from tosca_cache.luca.bank import Bank
from tosca_cache.luca.module import adapt, normalise
from tosca_cache.routing.base import ModuleOutputs, RoutedPrediction, Router, register_router
from tosca_cache.tasks import Task

ASKED = 4  # modules at most, one after the other


@register_router
class SelfRefined(Router):
    """Starts at the task of the nearest class mean under module 0, then follows the modules' own predictions.

    Module a predicts a class of task a'; if a' is another task, its module predicts next; the fourth module that predicts
    is the last. The class means are of the train rows as module 0 adapts them (not of unit length), as in the paper's
    "orig" branch.
    """

    name = "mos"
    source = "MOS, self-refined adapter retrieval (arXiv 2412.09441)"
    stores = "a mean of each class under module 0, [C, d]"
    cost = "d C"
    learned = ("means",)

    def __init__(self) -> None:
        self.means = torch.empty(0, 0)  # [C, d]

    @torch.no_grad()
    def fit(self, task: Task, bank: Bank) -> None:
        """Adds the means of the task's classes under module 0."""
        device = bank.modules[0].norm_weight.device
        clean = torch.from_numpy(task.train.features[:, 0]).to(device, bank.modules[0].norm_weight.dtype)
        adapted, labels = adapt(bank.modules[0], clean, bank.flow)[0].cpu(), torch.from_numpy(task.train.labels)
        means = torch.stack([adapted[labels == c].mean(0) for c in task.classes])
        self.means = torch.cat([self.means.to(means), means]) if len(self.means) else means

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The module that the loop ends at, [n]."""
        module = outputs.task_of_class[self.prototype_scores(outputs).argmax(1)]
        for _ in range(ASKED - 1):
            module = outputs.task_of_class[outputs.labels_of(module)]
        return module

    def prototype_scores(self, outputs: ModuleOutputs) -> Tensor:
        """Cosines with the class means under module 0, [n, C]."""
        adapted = outputs.lazy.adapted_rows(0)
        return adapted @ normalise(self.means).to(adapted).T


@register_router
class TwoBranches(SelfRefined):
    """The same module, whose class probabilities are added to those of the class means under module 0.

    softmax(logits of the module) + softmax(T cos), T tasks so far: the paper's second branch has temperature 1/T.
    """

    name = "mos-ensemble"
    source = "MOS, two-stage ensemble (arXiv 2412.09441)"

    def predict(self, outputs: ModuleOutputs) -> RoutedPrediction:
        """The module of the loop, and the class of largest summed probability."""
        return RoutedPrediction(self.route(outputs), self.scores(outputs).argmax(1))

    def scores(self, outputs: ModuleOutputs) -> Tensor:
        """Summed probabilities, [n, C]."""
        logits = outputs.logits_of(self.route(outputs))
        return torch.softmax(logits, 1) + torch.softmax(self.prototype_scores(outputs) * len(outputs.task_classes), 1)
