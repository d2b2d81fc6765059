"""L2 pull towards the parameters after the previous task (arXiv 2203.17269; methods.md 14.3), and no pull: fine-tuning.

loss = cross-entropy over all classes seen + coefficient * sum (theta - anchor)^2, over all that existed after the
previous task: rows of earlier classes, and for `l2-luca` one module that goes on from task to task, and the scale of
its cosine head. The first task has no anchor: a fresh LuCA is no point to stay near to, as a pretrained backbone is.

The paper's coefficient is not known to us: 0.1 is no published value, choose it on a sweep.

`finetune`: without rows of earlier classes the loss pushes their scores down as long as there is anything to gain. The
backbone is frozen, so that this is the floor of heads on cached features, not of fine-tuned backbones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tosca_cache.learners.base import register_learner
from tosca_cache.learners.learning import LinearKind, LucaKind, SingleModuleLearner, TaskTrainer
from tosca_cache.tasks import Task
from tosca_cache.train.gradient import Step


@register_learner
class FineTune(SingleModuleLearner):
    """One linear head on the raw features, trained by cross-entropy over all classes seen."""

    name = "finetune"
    what = "Fine-tuning of one linear head, task after task, with nothing against forgetting: the floor."
    source = "sequential fine-tuning of a linear head, the usual lower bound"
    agrees = (
        "no official code: the usual floor, equal to a plain loop of SGD; models/finetune.py of "
        "sun-hailong/LAMDA-PILOT (commit 2647455) trains the backbone too, and by the task's own classes alone, "
        "where here nothing holds the scores of the old ones."
    )
    kind = LinearKind()
    own_classes = False


class Anchored(TaskTrainer["L2"]):
    """Pulls towards what the models were after the previous task. anchors: copies of that; [] in the first task."""

    def __init__(self, learners: Sequence[L2], tasks: Sequence[Task]) -> None:
        super().__init__(learners, tasks)
        self.anchors = [tensor.clone() for tensor in self._anchored()] if self.number else []

    def extra(self, step: Step, adapted: Tensor) -> Tensor | float:
        """coefficient * sum (theta - anchor)^2, [M]."""
        if not self.anchors:
            return 0.0
        pairs = zip(self._anchored(), self.anchors, strict=True)
        each = [(theta - anchor).square().flatten(1).sum(1) for theta, anchor in pairs]
        return self.first.coefficient * torch.stack(each).sum(0)

    def _anchored(self) -> list[Tensor]:
        return [*self.module.values(), *(t[:, : self.classes.start] for t in self.rows.values())]


class L2(SingleModuleLearner):
    """Arguments: coefficient: of the squared distance to the parameters after the previous task."""

    what = "L2 pull towards the parameters after the previous task."
    source = "L2 regularisation towards the previous model (arXiv 2203.17269)"
    agrees = (
        "equal to the paper's equations (its L2 parameter regularisation) in what it adds to the loss; official code was "
        "not found. There it pulls a backbone's attention weights, with a loss that distils predictions."
    )
    own_classes = False
    training = Anchored

    def __init__(self, *, coefficient: float = 0.1, **common: Any) -> None:
        super().__init__(**common)
        self.coefficient = coefficient


@register_learner
class L2Linear(L2):
    """On a linear head over the raw features."""

    name = "l2-linear"
    kind = LinearKind()


@register_learner
class L2Luca(L2):
    """On one LuCA module for all tasks, and its cosine head."""

    name = "l2-luca"
    kind = LucaKind()
