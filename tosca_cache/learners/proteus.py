"""PROTEUS-style modules on cached features: built on earlier modules, found by a density (arXiv 2603.13235; methods.md 11).

From the second task on a module starts as a convex combination of all earlier ones. In the first epochs only the
coefficients a = softmax(alpha) and the head are trained; then the combination becomes the module, and all of it is
trained by

    cross-entropy over all classes seen + the settings' L1 term + orthogonality * mean over k < t of |D_t D_k^T|_F^2,

D the down-projections. Then the task's own rows of the head become prototypes, as in TOSCA. A row is answered by the module
under which a Gaussian mixture of its task's adapted features, calibrated on the task's own rows, is densest (the router
`mixture-adapted`).

What differs besides: the combination is a start and no fixed part of the module, so that the penalty is on the whole
down-projection and pulls it out of the span of the earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tosca_cache.learners.base import register_learner
from tosca_cache.learners.learning import Modular, TaskTrainer, class_means
from tosca_cache.luca.parameters import Luca, initial_head
from tosca_cache.tasks import Task
from tosca_cache.train.gradient import Group, Step, Tensors


class Composing(TaskTrainer["Proteus"]):
    """alpha: logits of the coefficients, [M, t]. earlier: the earlier modules, each [M, t, ...]. gram: mean of D_k^T
    D_k, [M, d, d]."""

    def __init__(self, learners: Sequence[Proteus], tasks: Sequence[Task]) -> None:
        super().__init__(learners, tasks)
        self.mixing = min(self.first.mixing_epochs, self.settings.epochs - 1) if self.number else 0  # epochs
        self.alpha = torch.zeros(len(learners), self.number, device=self.device)
        if self.number:
            each = zip(*(learner.bank.stacked() for learner in learners), strict=True)
            self.earlier = dict(zip(Luca._fields, map(torch.stack, each), strict=True))
            down = self.earlier["down_weight"].flatten(1, 2)  # [M, t h, d]
            self.gram = torch.bmm(down.transpose(1, 2), down) / self.number
            self._compose()

    def groups(self) -> list[Group]:
        """Coefficients in the first epochs, the module after them, head and scale in all."""
        luca = [self.module[name] for name in Luca._fields]
        return [
            Group([self.alpha], lambda epoch: epoch < self.mixing),
            Group(luca, lambda epoch: epoch >= self.mixing),
            Group([self.module["sigma"], *self.rows.values()]),
        ]

    def loss(self, step: Step) -> Tensor:
        """Of the combination in the first epochs, then of the module."""
        if step.epoch < self.mixing:
            trained, self.module = self.module, self.module | self._combined()
            found = super().loss(step)
            self.module = trained
            return found
        return super().loss(step)

    def extra(self, step: Step, adapted: Tensor) -> Tensor | float:
        """The orthogonality term, [M]; it does not concern the combination."""
        if step.epoch < self.mixing or not self.number:
            return 0.0
        down = self.module["down_weight"]
        overlap = (torch.bmm(down, self.gram) * down).sum((1, 2))  # tr(D G D^T)
        return self.first.orthogonality * overlap

    def after(self, step: Step) -> None:
        """The module follows the combination until it is trained itself."""
        if step.epoch < self.mixing:
            self._compose()

    @torch.no_grad()
    def _compose(self) -> None:
        for name, tensor in self._combined().items():
            self.module[name].copy_(tensor)

    def _combined(self) -> Tensors:
        """sum_k a_k theta_k of every tensor, [M, ...]."""
        a = self.alpha.softmax(1)
        return {name: (a.view(*a.shape, *[1] * (t.dim() - 2)) * t).sum(1) for name, t in self.earlier.items()}


@register_learner
class Proteus(Modular):
    """One module a task, started from the earlier ones.

    Arguments:
        mixing_epochs: how many of the epochs train the coefficients alone; at least one is left for the module.
        orthogonality: weight of that term.
        router: between the modules; another one leaves the paper.
    """

    name = "proteus"
    source = "PROTEUS-style composition and density retrieval (arXiv 2603.13235)"
    agrees = (
        "differs: no official code is known, LuCA modules behind the backbone start from a combination of the "
        "earlier ones, and prototypes stand for LDA; the module of greatest density answers, equal to the paper's "
        "equations (task retrieval) but for the calibration on the task's own rows."
    )
    own_classes = False
    training = Composing

    def __init__(
        self,
        *,
        mixing_epochs: int = 2,
        orthogonality: float = 1e-2,
        router: str = "mixture-adapted",
        **common: Any,
    ) -> None:
        super().__init__(router=router, **common)
        self.mixing_epochs, self.orthogonality = mixing_epochs, orthogonality

    def start(self, task: Task) -> tuple[Tensors, Tensors]:
        """A fresh module (which a combination replaces) and TOSCA's head: rows of new classes are zero after the first
        task."""
        dim = task.train.features.shape[2]
        module = self.kind.module(dim, self.settings, self.seed)
        if self.bank.head is None:
            return module, {"weight": initial_head(dim, task.classes.stop, self.seed).weight}
        old = self.bank.head.weight
        rows = torch.cat([old, old.new_zeros(1, len(task.classes), dim)], 1)
        return module | {"sigma": self.bank.head.sigma.cpu()}, {"weight": rows}

    def take(self, training: Any, model: int) -> None:
        """The module, the head with the task's prototypes, and the task's signature."""
        weight = training.rows["weight"][model : model + 1].clone()
        block = training.classes
        adapted, labels = training.clean(model)
        weight[:, block.start : block.stop] = class_means(adapted, labels, block)
        self.freeze_one(training, model, weight)
