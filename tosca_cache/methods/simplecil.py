"""SimpleCIL (arXiv 2303.07338): cosine similarity to the class means of the raw clean features; nothing is trained."""

from __future__ import annotations

import torch

from tosca_cache.closed_form.means import NearestMean
from tosca_cache.methods.base import FloatArray, Method
from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone


class SimpleCil(Method):
    """Stores the class means [C, d]. The "nearest class mean" of our tables."""

    name = "simplecil"

    def __init__(self) -> None:
        self.classifier = NearestMean()

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the means of the task's classes."""
        clean, labels = (torch.from_numpy(array) for array in (task.train.features[:, 0], task.train.labels))
        self.classifier.observe(clean, labels, task.classes.stop)

    def scores(self, features: FloatArray) -> FloatArray:
        """Cosines with all class means, [n, C]."""
        scores: FloatArray = self.classifier.scores(torch.from_numpy(features)).numpy()
        return scores
