"""TEEN (arXiv 2312.05229): prototypes of few-shot classes are drawn towards those of similar base classes.

The base session is the first task. Against the paper: the backbone is not trained on the base session (it is the
store's), so only the calibration is left, which is the whole of the method after the base session. alpha = 0 is
SimpleCIL. The temperature of the logits changes no prediction and is left out.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from tosca_cache.closed_form.means import NearestMean, unit
from tosca_cache.learners.base import FloatArray, Learner, register_learner
from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone


@register_learner
class Teen(Learner):
    """Stores one prototype a class, [C, d].

    Arguments:
        alpha: how far new prototypes move, 0 to 1 (the paper: 0.5 for CUB and miniImageNet, 0.1 for CIFAR-100).
        tau: sharpness of the similarity to base classes (16).
    """

    name = "teen"
    source = "TEEN (arXiv 2312.05229), post hoc on frozen features"
    agrees = (
        "equal to the official code (wangkiw/TEEN, models/teen/Network.py, 2ba5165) after its base session's training."
    )

    learned = ("classifier", "base")
    on_cpu = learned

    def __init__(self, *, alpha: Annotated[float, Ge(0), Le(1)] = 0.5, tau: float = 16.0, **common: Any) -> None:
        super().__init__(**common)
        self.alpha, self.tau = alpha, tau
        self.classifier = NearestMean()
        self.base = 0  # how many classes the base session had

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the means of the task's classes; those of later tasks are calibrated."""
        clean, labels = (torch.from_numpy(array) for array in (task.train.features[:, 0], task.train.labels))
        self.classifier.observe(clean, labels, task.classes.stop)
        means = self.classifier.means
        if not self.base:
            self.base = task.classes.stop
        else:
            new = calibrated(means[task.classes.start :], means[: self.base], alpha=self.alpha, tau=self.tau)
            self.classifier.means = torch.cat([means[: task.classes.start], new])

    def scores(self, features: FloatArray) -> FloatArray:
        """Cosines with all prototypes, [n, C]."""
        scores: FloatArray = self.classifier.scores(torch.from_numpy(features)).numpy()
        return scores


def calibrated(means: Tensor, base: Tensor, *, alpha: float, tau: float) -> Tensor:
    """(1 - alpha) c + alpha l2(sum_b w_b p_b), with w = softmax_b(tau cos(c, p_b)); c and p_b have unit length.

    Arguments:
        means: class means of few rows, [K, d]. base: class means of many rows, [B, d].
        alpha: share of the base classes. tau: how much the most similar of them count for more.

    Returns:
        Prototypes [K, d].
    """
    new, known = unit(means), unit(base)
    weights = torch.softmax(tau * new @ known.T, 1)  # [K, B]
    return (1 - alpha) * new + alpha * unit(weights @ known)
