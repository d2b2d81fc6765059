"""APER in feature space (after arXiv 2303.07338): SimpleCIL on each feature beside its adapted form (methods.md 1.3).

A frozen store has one class token only, so that figures are no reproductions of the published ones, for which there is
`simplecil` on a store of `tosca extract --with-base` (docs/adapt.md). As there, the module is trained under a cosine head
on the first task's augmented views, then frozen, and class means are of clean rows. The defaults of `settings` are TOSCA's
and not APER's (learning rate 0.01 and weight decay 5e-4).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from tosca_cache.closed_form.means import NearestMean
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.learners.tosca import ROWS_AT_ONCE, Tosca
from tosca_cache.luca.module import adapt, cosine_logits
from tosca_cache.luca.parameters import Head, Luca, initial_head
from tosca_cache.tasks import Task
from tosca_cache.train.gradient import Group, Step, Tensors, cross_entropy, fit, task_steps
from tosca_cache.train.loop import EpochDone


class Aper(ClosedForm):
    """Class means of concat[x, adapted x], [C, 2d], and one frozen module."""

    agrees = (
        "differs: a module behind the backbone, trained by the settings of all learners, instead of one inside it; the "
        "class means and cosines that follow are equal to the official code (sun-hailong/LAMDA-PILOT, "
        "models/aper_adapter.py, models/aper_ssf.py and utils/inc_net.py, commit 2647455)."
    )
    adds_rows = False
    learned = ("classifier", "module")

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = NearestMean()
        self.module: Tensors = {}
        self.trained_numbers = 0

    @abstractmethod
    def learn_module(self, task: Task, on_epoch: EpochDone | None) -> int:
        """Trains the module on the first task and says how many numbers were trained."""

    @abstractmethod
    def adapted(self, x: Tensor) -> Tensor:
        """Adapted features of features, both [n, d]."""

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the means of the task's classes; the first task trains the module before that."""
        self.trained_numbers = 0 if self.module else self.learn_module(task, on_epoch)
        super().observe(task)

    @torch.no_grad()
    def prepared(self, x: Tensor) -> Tensor:
        """concat[x, adapted x] of features [n, d], [n, 2d]."""
        return torch.cat([torch.cat([rows, self.adapted(rows)], 1) for rows in x.float().split(ROWS_AT_ONCE)])

    @property
    def trainable_parameters(self) -> int:
        """The module and its head for the first task, 0 for later ones and after `load_state`."""
        return self.trained_numbers


@register_learner
class AperLuca(Aper):
    """With the LuCA module that TOSCA trains on the first task."""

    name = "aper-luca"
    source = "APER (arXiv 2303.07338) in feature space, with LuCA"

    def learn_module(self, task: Task, on_epoch: EpochDone | None) -> int:
        """TOSCA's first task; its head is thrown away."""
        first = Tosca(self.settings, seed=self.seed, device=self.device, engine=self.engine)
        first.observe(task, on_epoch=on_epoch)
        self.module = first.bank.modules[0]._asdict()
        return first.trainable_parameters

    def adapted(self, x: Tensor) -> Tensor:
        """LuCA(x), not normalised."""
        return adapt(Luca(**self.module), x, self.settings.flow)[0]


@register_learner
class AperFilm(Aper):
    """With a gain and a shift for each channel."""

    name = "aper-film"
    source = "APER (arXiv 2303.07338) in feature space, with FiLM"

    def learn_module(self, task: Task, on_epoch: EpochDone | None) -> int:
        """Trains gamma and beta [d] from the identity, under a cosine head over the task's own classes.

        The head and its scale start as TOSCA's, are trained along and thrown away. The loss is cross-entropy alone: the L1
        term of the settings would draw the gains to zero. All else (optimizer, rates, epochs, batches) follows them.
        """
        dim = task.train.features.shape[2]
        head = initial_head(dim, len(task.classes), self.seed)
        leaves = [t.to(self.device) for t in (torch.ones(dim), torch.zeros(dim), head.weight, head.sigma)]
        gamma, beta, weight, sigma = leaves

        def loss(step: Step) -> Tensor:
            """Cross-entropy of the minibatch, [1]."""
            return cross_entropy(cosine_logits(Head(weight, sigma), gamma * step.x + beta), step)

        steps = task_steps([task], [self.seed], self.settings, self.device, first_label=task.classes.start)
        fit([Group(leaves)], self.settings, steps, loss, on_epoch=on_epoch)
        self.module = {"gamma": gamma, "beta": beta}
        return sum(t.numel() for t in leaves)

    def adapted(self, x: Tensor) -> Tensor:
        """gamma x + beta."""
        return self.module["gamma"] * x + self.module["beta"]
