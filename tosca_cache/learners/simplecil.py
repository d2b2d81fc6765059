"""Nearest class means: SimpleCIL by cosine, NMC by distance, and TEEN, which draws those of few rows towards others.

`nmc`: as in the official code, means of unit vectors are not scaled to unit length again, and distances are Euclidean.

`teen`: the base session is the first task; with the backbone frozen, the calibration is the whole of the method after it.
alpha = 0 is SimpleCIL. The temperature of the logits changes no prediction and is left out.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from tosca_cache.closed_form.means import NearestMean, NearestUnitMean, unit
from tosca_cache.learners.base import register_learner
from tosca_cache.learners.closed import ClosedForm
from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone

__all__ = ["Nmc", "SimpleCil", "Teen"]


@register_learner
class SimpleCil(ClosedForm):
    """Stores the class means [C, d]. The "nearest class mean" of our tables."""

    name = "simplecil"
    what = "SimpleCIL (arXiv 2303.07338): cosine similarity to the class means of clean features; nothing is trained."
    source = "SimpleCIL (arXiv 2303.07338)"
    agrees = "equal to the official code (sun-hailong/LAMDA-PILOT, models/simplecil.py, 3450184)."

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = NearestMean()


@register_learner
class Nmc(ClosedForm):
    """Stores the class means [C, d]."""

    name = "nmc"
    what = "NMC (arXiv 2210.04428): the nearest mean of unit-length features; nothing is trained."
    source = "A Simple Baseline that Questions the Use of Pretrained Models in CL (arXiv 2210.04428)"
    agrees = "equal to the official code (Pauljanson002/pretrained-cl, main_cifar100.py, 19f2d86)."

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = NearestUnitMean()


@register_learner
class Teen(ClosedForm):
    """Stores one prototype a class, [C, d].

    Arguments:
        alpha: how far new prototypes move, 0 to 1 (the paper: 0.5 for CUB and miniImageNet, 0.1 for CIFAR-100).
        tau: sharpness of the similarity to base classes (16).
    """

    name = "teen"
    what = "TEEN (arXiv 2312.05229): prototypes of few-shot classes are drawn towards those of similar base classes."
    source = "TEEN (arXiv 2312.05229), post hoc on frozen features"
    agrees = (
        "equal to the official code (wangkiw/TEEN, models/teen/Network.py, 2ba5165) after its base session's training."
    )
    adds_rows = False
    learned = ("classifier", "base")

    def __init__(self, *, alpha: Annotated[float, Ge(0), Le(1)] = 0.5, tau: float = 16.0, **common: Any) -> None:
        super().__init__(**common)
        self.alpha, self.tau = alpha, tau
        self.classifier: NearestMean = NearestMean()
        self.base = 0  # how many classes the base session had

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the means of the task's classes; those of later tasks are calibrated."""
        super().observe(task)
        start, means = task.classes.start, self.classifier.means
        if self.base:
            new = calibrated(means[start:], means[: self.base], alpha=self.alpha, tau=self.tau)
            self.classifier.means = torch.cat([means[:start], new])
        self.base = self.base or task.classes.stop


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
