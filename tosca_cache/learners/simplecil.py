"""SimpleCIL (arXiv 2303.07338): cosine similarity to the class means of the raw clean features; nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tosca_cache.closed_form.means import NearestMean
from tosca_cache.learners.base import FloatArray, Learner, register_learner
from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone

__all__ = ["SimpleCil"]


@register_learner
class SimpleCil(Learner):
    """Stores the class means [C, d]. The "nearest class mean" of our tables."""

    name = "simplecil"
    source = "SimpleCIL (arXiv 2303.07338)"

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.classifier = NearestMean()

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the means of the task's classes."""
        clean, labels = (torch.from_numpy(array) for array in (task.train.features[:, 0], task.train.labels))
        self.classifier.observe(clean, labels, task.classes.stop)

    def scores(self, features: FloatArray) -> FloatArray:
        """Cosines with all class means, [n, C]."""
        scores: FloatArray = self.classifier.scores(torch.from_numpy(features)).numpy()
        return scores

    def state(self) -> dict[str, Tensor]:
        """The class means."""
        return self.classifier.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes over class means."""
        self.classifier.load_state(dict(state))
