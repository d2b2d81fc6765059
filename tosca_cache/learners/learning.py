"""What gradient-trained learners have in common: one task trained for several seeds side by side.

They train a linear head on the raw feature, or a LuCA module under a cosine head. A model is two sets of named tensors,
each with the model axis M first: `module`, which all classes share, and `rows`, with the classes as their second axis.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from tosca_cache.config import Settings
from tosca_cache.devices import one_thread
from tosca_cache.learners.base import FloatArray, Learner
from tosca_cache.learners.tosca import Tosca
from tosca_cache.luca.module import adapt, cosine_logits
from tosca_cache.luca.parameters import Head, Luca, LucaShape, initial_luca
from tosca_cache.seeds import derive_seed
from tosca_cache.tasks import Task
from tosca_cache.train.gradient import (
    Group,
    Step,
    Tensors,
    cross_entropy,
    fit,
    of_one,
    side_by_side,
    stacked,
    task_steps,
)
from tosca_cache.train.loop import EpochDone

ROWS_AT_ONCE = 4096
LINEAR_STD = 0.02
L = TypeVar("L", bound="GradientMethod")


class LinearKind:
    """x W^T + b on the raw feature: W truncated normal of standard deviation 0.02, b zero; nothing is shared.

    Other kinds of models override how they start and what they compute.
    """

    def module(self, dim: int, settings: Settings, seed: int) -> Tensors:
        """What all classes share, as it starts before the first task, [1, ...]: nothing."""
        return {}

    def rows(self, dim: int, classes: int, seed: int, task: int) -> Tensors:
        """Rows of the head for the classes of a task, as they start: `weight` [1, classes, d] and `bias` [1, classes]."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "linear rows", task))
        weight = torch.empty(1, classes, dim)
        torch.nn.init.trunc_normal_(weight, std=LINEAR_STD, generator=generator)
        return {"weight": weight, "bias": torch.zeros(1, classes)}

    def adapt(self, module: Tensors, x: Tensor, settings: Settings) -> Tensor:
        """What the head sees of features x [M, n, d], [M, n, d]: themselves."""
        return x

    def logits(self, adapted: Tensor, module: Tensors, rows: Tensors) -> Tensor:
        """Logits of the classes in `rows`, [M, n, classes]: x W^T + b."""
        weight, bias = rows["weight"], rows["bias"].unsqueeze(1)
        return torch.baddbmm(bias, adapted.expand(len(weight), -1, -1), weight.transpose(1, 2))

    def l1(self, module: Tensors) -> Tensor | None:
        """Sum of |p| that the settings' L1 term weighs, [M]; None, as it is for modules."""
        return None


class LucaKind(LinearKind):
    """One LuCA module and a cosine head with a learned scale sigma; sigma counts to the module."""

    def module(self, dim: int, settings: Settings, seed: int) -> Tensors:
        """The tensors of `Luca` as they start before task 0, and `sigma`."""
        shape = LucaShape.from_ratios(dim, settings.mlp_ratio, settings.se_ratio)
        return {**initial_luca(shape, seed, 0)._asdict(), "sigma": torch.ones(1, 1)}

    def rows(self, dim: int, classes: int, seed: int, task: int) -> Tensors:
        """`weight` [1, classes, d], uniform within 1 / sqrt(d)."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "cosine rows", task))
        return {"weight": (torch.rand(1, classes, dim, generator=generator) * 2 - 1) / sqrt(dim)}

    def adapt(self, module: Tensors, x: Tensor, settings: Settings) -> Tensor:
        """The adapted feature, as LuCA gives it (not of unit length)."""
        return adapt(luca_of(module), x, settings.flow)

    def logits(self, adapted: Tensor, module: Tensors, rows: Tensors) -> Tensor:
        """sigma * cosine."""
        return cosine_logits(Head(rows["weight"], module["sigma"]), adapted)

    def l1(self, module: Tensors) -> Tensor | None:
        """Over the module, without sigma."""
        return torch.stack([t.abs().flatten(1).sum(1) for t in luca_of(module)]).sum(0)


def luca_of(module: Tensors) -> Luca:
    """The LuCA module among named tensors."""
    return Luca(*(module[name] for name in Luca._fields))


def joined(old: Tensors, new: Tensors) -> Tensors:
    """Rows of old and new classes as one head; `old` may be empty."""
    return {name: torch.cat([old[name].to(t), t], 1) if old else t for name, t in new.items()}


class TaskTrainer(Generic[L]):
    """What is trained in one task, for learners side by side: cross-entropy, and the settings' L1 term over a module.

    learners, tasks: M each. first: a learner; all have the same settings and options. number, classes: of the tasks.
    module, rows: what is trained, [M, ...] each; `rows` are those of the task's own classes, or of all classes seen, as the
    learner's `own_classes` says. start: the class of the first of the rows.
    """

    def __init__(self, learners: Sequence[L], tasks: Sequence[Task]) -> None:
        self.learners, self.tasks, self.first = learners, tasks, learners[0]
        self.number, self.classes = tasks[0].number, tasks[0].classes
        self.settings, self.kind, self.device = self.first.settings, self.first.kind, self.first.device
        starts = [learner.start(task) for learner, task in zip(learners, tasks, strict=True)]
        self.module = stacked([module for module, _ in starts], self.device)
        self.rows = stacked([rows for _, rows in starts], self.device)
        self.start = self.classes.start if self.first.own_classes else 0

    def groups(self) -> list[Group]:
        """What is trained; by default all of module and rows in all epochs."""
        return [Group(list(self.module.values())), Group(list(self.rows.values()))]

    def steps(self) -> Iterator[Step]:
        """Minibatches of the task; targets are counted from `start`."""
        seeds = [learner.seed for learner in self.learners]
        return task_steps(self.tasks, seeds, self.settings, self.device, first_label=self.start)

    def adapted(self, x: Tensor) -> Tensor:
        """What the heads see of [M, n, d]."""
        return self.kind.adapt(self.module, x, self.settings)

    def loss(self, step: Step) -> Tensor:
        """Loss of each model, [M]."""
        adapted = self.adapted(step.x)
        found = cross_entropy(self.kind.logits(adapted, self.module, self.rows), step)
        l1 = self.kind.l1(self.module)
        found = found if l1 is None else found + self.settings.l1 * l1
        return found + self.extra(step, adapted)

    def extra(self, step: Step, adapted: Tensor) -> Tensor | float:
        """What a method adds to the loss of each model, [M]."""
        return 0.0

    def after(self, step: Step) -> None:
        """Called after each step, without gradients."""

    def clean(self, model: int) -> tuple[Tensor, Tensor]:
        """Clean train rows of one model's task as its head sees them after training, [n, d], and their labels, [n]."""
        train = self.tasks[model].train
        x = torch.from_numpy(np.ascontiguousarray(train.features[:, 0])).to(self.device).float()
        adapted = self.kind.adapt(of_one(self.module, model), x.unsqueeze(0), self.settings)[0]
        return adapted, torch.from_numpy(train.labels).to(self.device)


class GradientMethod(Learner):
    """A learner whose tasks are trained by gradient, those of several seeds side by side.

    kind: what it trains. own_classes: the loss is over the task's own classes, whose rows alone are trained; otherwise over
    all classes seen, whose rows are all trained. training: what is special in a task.
    """

    kind: ClassVar[LinearKind]
    own_classes: ClassVar[bool]
    training: ClassVar[type[TaskTrainer[Any]]] = TaskTrainer

    @abstractmethod
    def start(self, task: Task) -> tuple[Tensors, Tensors]:
        """Module and rows as they start in a task, [1, ...] each."""

    @abstractmethod
    def take(self, training: TaskTrainer[Any], model: int) -> None:
        """Takes over what one of the models of a training has learned."""

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Trains on the rows of a task."""
        self.learn_together([self], [task], on_epoch)

    @classmethod
    def observe_together(cls, learners: Sequence[Self], tasks: Sequence[Task]) -> None:
        """Trains those side by side that take the same number of steps."""
        for chosen in side_by_side(tasks, learners[0].settings):
            cls.learn_together([learners[m] for m in chosen], [tasks[m] for m in chosen])

    @classmethod
    @one_thread()
    def learn_together(cls, learners: Sequence[Self], tasks: Sequence[Task], on_epoch: EpochDone | None = None) -> None:
        """One task of learners that take the same number of steps."""
        training = cls.training(learners, tasks)
        fit(
            training.groups(),
            training.settings,
            training.steps(),
            training.loss,
            after=training.after,
            on_epoch=on_epoch,
        )
        with torch.no_grad():
            for model, learner in enumerate(learners):
                learner.take(training, model)


class SingleModuleLearner(GradientMethod):
    """A learner of one module and one head that go on from task to task.

    module, rows: what was learned so far, [1, ...] each; rows of all classes seen.
    """

    learned: ClassVar[tuple[str, ...]] = ("module", "rows", "blocks")

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.module: Tensors = {}
        self.rows: Tensors = {}

    def start(self, task: Task) -> tuple[Tensors, Tensors]:
        """The module as it is, and fresh rows for the task's classes, after the rows so far if all are trained."""
        dim = task.train.features.shape[2]
        rows = self.kind.rows(dim, len(task.classes), self.seed, task.number)
        module = self.module if task.number else self.kind.module(dim, self.settings, self.seed)
        return module, rows if self.own_classes else joined(self.rows, rows)

    def take(self, training: TaskTrainer[Any], model: int) -> None:
        """Module and rows."""
        rows = of_one(training.rows, model)
        self.module = of_one(training.module, model)
        self.rows = joined(self.rows, rows) if self.own_classes else rows
        self.add_task(training.classes)

    @one_thread()
    @torch.inference_mode()
    def scores(self, features: FloatArray) -> FloatArray:
        """Scores of all classes seen, [n, C]."""
        x = torch.from_numpy(np.ascontiguousarray(features)).to(self.device)
        found: FloatArray = torch.cat([self.answers(part.float()) for part in x.split(ROWS_AT_ONCE)]).cpu().numpy()
        return found

    def answers(self, x: Tensor) -> Tensor:
        """Scores of features [n, d], [n, C]; by default the logits."""
        return self.logits(x, self.module, self.rows)

    def logits(self, x: Tensor, module: Tensors, rows: Tensors) -> Tensor:
        """Logits of a module and rows for features [n, d], [n, C]."""
        adapted = self.kind.adapt(module, x.unsqueeze(0), self.settings)
        return self.kind.logits(adapted, module, rows)[0]

    @property
    def trainable_parameters(self) -> int:
        """The module and the rows that the last task trained."""
        if not self.rows:
            return 0
        trained = len(self.task_classes[-1]) if self.own_classes else self.task_classes[-1].stop
        a_class = sum(t[:, 0].numel() for t in self.rows.values())
        return sum(t.numel() for t in self.module.values()) + trained * a_class


class Modular(GradientMethod, Tosca):
    """TOSCA with another way to train a module; `observe` comes from `GradientMethod`, all that is asked from `Tosca`."""

    kind = LucaKind()

    def freeze_one(self, training: TaskTrainer[Any], model: int, weight: Tensor) -> None:
        """Takes over the module of one model, its sigma, and rows of a head for all classes seen, [1, C, d]."""
        module = of_one(training.module, model)
        self.freeze(training.tasks[model], luca_of(module), Head(weight, module["sigma"]))

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
