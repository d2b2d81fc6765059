"""LAE: an online and an offline expert (arXiv 2303.10070; methods.md 14.2).

The online expert is trained on the task's own classes. The offline expert is a moving average of it, one step of
averaging a training step, that starts as a copy after the first task. The answer is the larger of their two
probabilities, class by class. In every later task the module is left as it is for the first 3/5 of the epochs, so that
the rows of the head come first.

`lae-luca` averages one LuCA module that goes on from task to task (with the scale of the head); the rows of the head are
shared, as in the paper. `lae-linear` has no module and averages the rows of the head, where nothing can be held back.

What differs besides: optimizer and rates are those of the settings. A decay of 0.9999 hardly moves in a few hundred steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tosca_cache.learners.base import register_learner
from tosca_cache.learners.learning import LinearKind, LucaKind, SingleModuleLearner, TaskTrainer, joined
from tosca_cache.tasks import Task
from tosca_cache.train.gradient import Group, Step, of_one, stacked


class Averaging(TaskTrainer["Lae"]):
    """Trains the online experts and lets the offline ones follow.

    online: the tensors of which an average is kept. offline: that average; None in the first task.
    """

    def __init__(self, learners: Sequence[Lae], tasks: Sequence[Task]) -> None:
        super().__init__(learners, tasks)
        first = self.first
        self.online = self.module or self.rows
        self.decay = 1 - 1 / first.settings.steps([len(tasks[0].train)]) if first.decay is None else first.decay
        self.held_back = int(first.held_back * first.settings.epochs) if self.number else 0
        self.offline = None
        if self.number:
            starts = (
                [learner.offline for learner in learners]
                if self.module
                else [of_one(self.rows, m) for m in range(len(learners))]
            )
            self.offline = stacked(starts, self.device)

    def groups(self) -> list[Group]:
        """The module is trained after the epochs in which it is held back."""
        module, rows = super().groups()
        return [Group(module.tensors, lambda epoch: epoch >= self.held_back), rows]

    def after(self, step: Step) -> None:
        """offline <- decay * offline + (1 - decay) * online."""
        for name, average in (self.offline or {}).items():
            average.mul_(self.decay).add_(self.online[name], alpha=1 - self.decay)


class Lae(SingleModuleLearner):
    """LAE on cached features.

    Arguments:
        decay: of the offline expert at each step; None: 1 - 1 / (steps of the task). 0 makes it the online one.
        held_back: part of the epochs in which the module is not trained, from the second task on.
    """

    source = "LAE (arXiv 2303.10070)"
    agrees = (
        "differs: a module behind the backbone, or the head's rows, is averaged, where the paper averages one inside it, "
        "with a decay by the steps of the task instead of 0.9999; average, held-back epochs and answer are equal to the "
        "official code (gqk/LAE, main.py, commit aa2bc8c)."
    )
    own_classes = True
    training = Averaging
    learned = (*SingleModuleLearner.learned, "offline")

    def __init__(self, *, decay: float | None = None, held_back: float = 0.6, **common: Any) -> None:
        super().__init__(**common)
        self.decay, self.held_back = decay, held_back
        self.offline: dict[str, Tensor] = {}  # the averaged tensors: a module, or rows of all classes seen

    def take(self, training: Any, model: int) -> None:
        """Both experts."""
        super().take(training, model)
        average = of_one(training.online if training.offline is None else training.offline, model)
        self.offline = average if self.module else joined(self.offline, average)

    def answers(self, x: Tensor) -> Tensor:
        """The larger of the two probabilities of each class, [n, C]."""
        online = self.logits(x, self.module, self.rows)
        module, rows = (self.offline, self.rows) if self.module else (self.module, self.offline)
        return torch.maximum(online.softmax(1), self.logits(x, module, rows).softmax(1))


@register_learner
class LaeLinear(Lae):
    """On a linear head over the raw features."""

    name = "lae-linear"
    kind = LinearKind()


@register_learner
class LaeLuca(Lae):
    """On one LuCA module for all tasks, and its cosine head."""

    name = "lae-luca"
    kind = LucaKind()
