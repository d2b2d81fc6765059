"""SimpleCIL (arXiv 2303.07338): cosine similarity to the class means of the raw clean features; nothing is trained."""

from __future__ import annotations

import numpy as np

from tosca_cache.methods.base import FloatArray, Method
from tosca_cache.tasks import Task
from tosca_cache.train.loop import EpochDone

EPS = 1e-12


class SimpleCil(Method):
    """w_c = mean of class c; score_c = cos(x, w_c). Stores w [C, d] in float64. The "nearest class mean" of our tables."""

    name = "simplecil"

    def __init__(self) -> None:
        self.means: list[FloatArray] = []

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        clean = task.train.features[:, 0]
        self.means += [clean[task.train.labels == c].mean(0, dtype=np.float64) for c in task.classes]

    def scores(self, features: FloatArray) -> FloatArray:
        return _unit(np.asarray(features, dtype=np.float64)) @ _unit(np.stack(self.means)).T


def _unit(v: FloatArray) -> FloatArray:
    return v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), EPS)
