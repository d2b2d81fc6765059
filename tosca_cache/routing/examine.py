"""How good a classifier is, from train rows alone: a part of each task is held out before the task is learned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.seeds import numpy_generator
from tosca_cache.tasks import Task

IntArray = NDArray[np.int64]
Trial = Callable[[Task, IntArray, IntArray], Tensor]
"""(task, rows to fit on, rows to ask about) -> scores of the latter, [n, C]."""

HELD_OUT = 0.2  # of each class's train rows
TEMPERATURES = tuple(2.0**power for power in range(-7, 7))
SEED = 1993


class Examination:
    """Of one classifier after each task; the rows asked about are the same for every classifier.

    right: held-out rows answered rightly so far, [T]. surprise: -sum log softmax(scores / tau)[true class] over them, for
    every tau of `TEMPERATURES`, [T, K]. Sums: no row is kept.
    """

    def __init__(self) -> None:
        self.right = torch.zeros(0, dtype=torch.float64)
        self.surprise = torch.zeros(0, len(TEMPERATURES), dtype=torch.float64)

    def add(self, task: Task, trial: Trial) -> None:
        """Asks about a fifth of each class of a task that is about to be learned."""
        right, surprise = self._so_far(len(self.right))
        fitted, asked = split(task)
        if len(asked):
            scores, labels = trial(task, fitted, asked), torch.from_numpy(task.train.labels[asked])
            right = right + (scores.argmax(1) == labels).sum()
            likely = [torch.log_softmax(scores / tau, 1).gather(1, labels.unsqueeze(1)).sum() for tau in TEMPERATURES]
            surprise = surprise - torch.stack(likely)
        self.right = torch.cat([self.right, right.view(1)])
        self.surprise = torch.cat([self.surprise, surprise.view(1, -1)])

    def temperature(self, tasks: int) -> float | None:
        """The tau under which the held-out rows of the first tasks are likeliest; None if there were none."""
        surprise = self._so_far(tasks)[1]
        return TEMPERATURES[int(surprise.argmin())] if bool(surprise.any()) else None

    def merit(self, tasks: int) -> tuple[float, float]:
        """By which classifiers are compared after some tasks: rows right, then how likely they were at the best tau."""
        right, surprise = self._so_far(tasks)
        return float(right), -float(surprise.min())

    def _so_far(self, tasks: int) -> tuple[Tensor, Tensor]:
        if not tasks:
            return self.right.new_zeros(()), self.surprise.new_zeros(len(TEMPERATURES))
        return self.right[tasks - 1], self.surprise[tasks - 1]


def split(task: Task) -> tuple[IntArray, IntArray]:
    """Positions of train rows to fit on and to ask about; a class of one row has none to ask about."""
    generator, asked = numpy_generator(SEED, "examination", task.number), []
    for c in np.unique(task.train.labels):
        rows = generator.permutation(np.flatnonzero(task.train.labels == c))
        asked.append(rows[: min(max(round(HELD_OUT * len(rows)), 1), len(rows) - 1)])
    held = np.sort(np.concatenate(asked)).astype(np.int64)
    return np.setdiff1d(np.arange(len(task.train.labels)), held), held
