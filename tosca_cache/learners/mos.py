"""MOS-style modules on cached features (arXiv 2412.09441; methods.md 12).

Module t starts as module t - 1 and is drawn to the mean of all earlier modules after every step,

    A_t <- (1 - momentum) A_t + momentum * mean of A_0 .. A_(t-1).

Loss: cross-entropy over the task's own classes + the settings' L1 term + orthogonality * CE(M M^T / 0.8, each its own
class), M the means of earlier classes and the batch. Then the head is aligned on Gaussian samples of the adapted
features of every class, each under the module of its own task. Answers come from the router `mos-ensemble`: the module
that its own prediction leads back to, and class means under module 0 as a second branch.

The vectors of M have unit length, because the dot products of LuCA's features are so large that the term would be zero;
training and rates follow the settings given. Momentum, weights and the alignment (30 epochs of 5 x 48 vectors a class, rate
0.005, weight decay 5e-4) are the official ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.gaussians import Alignment, Gaussians
from tosca_cache.learners.learning import Modular, TaskTrainer, joined
from tosca_cache.luca.module import normalise
from tosca_cache.luca.parameters import Luca
from tosca_cache.seeds import derive_seed
from tosca_cache.tasks import Task
from tosca_cache.train.gradient import Step, Tensors, of_one

TEMPERATURE = 0.8
PER_CLASS = BATCH = 240  # of alignment: vectors of each class in an epoch, and vectors a step: 5 x 48 as published
DECAY = 5e-4  # weight decay of alignment


class Merging(TaskTrainer["Mos"]):
    """earlier: mean of the earlier modules, [M, ...]; means: of the earlier classes, [M, c, d]; both empty in the first
    task."""

    def __init__(self, learners: Sequence[Mos], tasks: Sequence[Task]) -> None:
        super().__init__(learners, tasks)
        self.earlier: Tensors = {}
        if self.number:
            each = [learner.bank.stacked()._asdict() for learner in learners]
            self.earlier = {name: torch.stack([modules[name].mean(0) for modules in each]) for name in Luca._fields}
            self.means = torch.stack([learner.gaussians.means for learner in learners]).float().to(self.device)

    def extra(self, step: Step, adapted: Tensor) -> Tensor | float:
        """The orthogonality term, [M]."""
        weight = self.first.orthogonality
        if not weight:
            return 0.0
        vectors = adapted if not self.number else torch.cat([self.means, adapted], 1)
        return weight * each_its_own(vectors, step.weights > 0)

    def after(self, step: Step) -> None:
        """The pull towards the mean of the earlier modules."""
        for name, mean in self.earlier.items():
            self.module[name].mul_(1 - self.first.momentum).add_(mean, alpha=self.first.momentum)


@register_learner
class Mos(Modular):
    """One module a task, merged with the earlier ones.

    Arguments:
        momentum: of the merge; 0 leaves the modules alone.
        orthogonality: weight of that term.
        alignment_epochs, alignment_lr: of the head on Gaussian samples (SGD, cosine); 0 epochs leave it as trained.
        router: between the modules; another one leaves the paper.
    """

    name = "mos"
    source = "MOS-style merging of modules with self-refined retrieval (arXiv 2412.09441)"
    agrees = (
        "differs: LuCA modules behind the backbone under a cosine head, an orthogonality term of unit vectors, "
        "and one merge a step as in the paper, where the code merges at every pass; retrieval, both branches, "
        "class means and Gaussians are equal to the official code (sun-hailong/LAMDA-PILOT, models/mos.py, commit "
        "2647455)."
    )
    own_classes = True
    training = Merging
    learned = (*Modular.learned, "gaussians")
    on_cpu = (*Modular.on_cpu, "gaussians")

    def __init__(
        self,
        *,
        momentum: float = 0.1,
        orthogonality: float = 0.1,
        alignment_epochs: int = 30,
        alignment_lr: float = 0.005,
        router: str = "mos-ensemble",
        **common: Any,
    ) -> None:
        super().__init__(router=router, **common)
        self.momentum, self.orthogonality = momentum, orthogonality
        self.gaussians = Gaussians()
        self.alignment = None
        if alignment_epochs:
            settings = Settings(
                lr=alignment_lr, epochs=alignment_epochs, batch_size=BATCH, eta_min=0.0, weight_decay=DECAY
            )
            self.alignment = Alignment(settings, PER_CLASS)

    def start(self, task: Task) -> tuple[Tensors, Tensors]:
        """The previous module, and fresh rows for the task's classes."""
        dim = task.train.features.shape[2]
        rows = self.kind.rows(dim, len(task.classes), self.seed, task.number)
        if self.bank.head is None:
            return self.kind.module(dim, self.settings, self.seed), rows
        return {**self.bank.modules[-1]._asdict(), "sigma": self.bank.head.sigma}, rows

    def take(self, training: Any, model: int) -> None:
        """The module, the Gaussians of the task's classes, the head aligned on those of all classes."""
        old = {} if self.bank.head is None else {"weight": self.bank.head.weight}
        head = joined(old, of_one(training.rows, model)) | {
            "sigma": training.module["sigma"][model : model + 1].clone()
        }
        adapted, labels = training.clean(model)
        self.gaussians.observe(adapted, labels, training.classes)
        if self.alignment is not None and training.number:
            self.alignment.run(
                list(head.values()),
                lambda x: self.kind.logits(x, head, head),
                self.gaussians,
                [*self.task_classes, training.classes],
                seed=derive_seed(self.seed, "alignment", training.number),
            )
        training.module["sigma"][model] = head["sigma"][0]
        self.freeze_one(training, model, head["weight"])


def each_its_own(vectors: Tensor, valid: Tensor) -> Tensor:
    """CE(M M^T / 0.8, arange) over unit vectors, as if each were a class of its own, [M].

    Arguments:
        vectors: [M, c + n, d]. valid: which of the last n are real and not filled up, [M, n].
    """
    unit = normalise(vectors)
    M, count, _ = unit.shape
    real = torch.cat([valid.new_ones(M, count - valid.shape[1]), valid], 1)  # [M, count]
    itself = torch.eye(count, dtype=torch.bool, device=unit.device)
    likeness = torch.bmm(unit, unit.transpose(1, 2)) / TEMPERATURE
    likeness = likeness.masked_fill(~(real.unsqueeze(1) | itself), -torch.inf)
    rows = -F.log_softmax(likeness, 2).diagonal(dim1=1, dim2=2)
    return (rows * real).sum(1) / real.sum(1)
