"""Opinion pool of LDA with and without views, ridge regression on random features, and class means; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tosca_cache.closed_form.pool import OpinionPool
from tosca_cache.learners.base import FloatArray, Learner, register_learner
from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone


@register_learner
class Pool(Learner):
    """Calibrated on held-out train rows (`closed_form.pool`); keeps sums over rows, or square roots of them.

    Our recommendation, with no paper.
    """

    name = "pool"
    source = "logarithmic opinion pool (Genest and Zidek, Statistical Science 1986) of the closed forms of other rows"
    agrees = "no official code: ours, of classifiers that stand in this table by themselves."
    adds_rows = True
    learned = ("pool", "tasks")
    on_cpu = learned

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.pool, self.tasks = OpinionPool(), 0

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """What its ridge regression takes."""
        return self.pool.memory_needed(rows, classes, dim)

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the clean train rows of a task, and its views to the classifier that learns from them."""
        self.pool.fit(task, solve=True)
        self.tasks = task.number + 1

    def scores(self, features: FloatArray) -> FloatArray:
        """Unnormalised log-probabilities of all classes seen, [n, C]."""
        found: FloatArray = self.pool.log_probs(torch.from_numpy(features), self.tasks).numpy()
        return found
