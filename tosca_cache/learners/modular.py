"""Learners of one LuCA module a task, trained by losses of their own, on TOSCA's bank, routers and watch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tosca_cache.learners.heads import LucaKind, luca_of
from tosca_cache.learners.learning import GradientMethod, TaskTrainer
from tosca_cache.learners.tosca import Tosca
from tosca_cache.luca.parameters import Head
from tosca_cache.train.gradient import of_one


class Modular(GradientMethod, Tosca):
    """TOSCA with another way to train a module; `observe` comes from `GradientMethod`, all that is asked from `Tosca`."""

    kind = LucaKind()

    def freeze(self, training: TaskTrainer[Any], model: int, weight: Tensor) -> None:
        """Adds the trained module to the bank, takes over sigma and the rows of a head, and fits the router.

        Arguments:
            weight: rows of all classes seen, [1, C, d].
        """
        module = of_one(training.module, model)
        self.bank.modules.append(luca_of(module))
        self.bank.head = Head(weight, module["sigma"])
        self.add_task(training.classes)
        if self.router is not None:
            self.router.fit(training.tasks[model], self.bank)

    @property
    def trainable_parameters(self) -> int:
        """One module, the head's rows that are trained, and its scale."""
        head = self.bank.head
        if head is None:
            return 0
        rows = head.weight[:, self.task_classes[-1].start :] if self.own_classes else head.weight
        return sum(t.numel() for t in (*self.bank.modules[-1], rows, head.sigma))


def class_means(adapted: Tensor, labels: Tensor, classes: range) -> Tensor:
    """Mean of the rows of each class, [1, K, d]: adapted features [n, d], labels [n]."""
    return torch.stack([adapted[labels == c].mean(0) for c in classes]).unsqueeze(0)
