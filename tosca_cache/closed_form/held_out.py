"""Held-out calibration of a classifier: accuracy and temperature from train rows that were kept out of a trial fit."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.closed_form.base import Stateful
from tosca_cache.seeds import numpy_generator
from tosca_cache.tasks import Task

IntArray = NDArray[np.int64]

HELD_OUT = 0.2  # of each class's train rows,
MOST = 512  # and of a task's, where its classes have two or more each: more would not tell classifiers apart any better
TEMPERATURES = tuple(2.0**power for power in range(-7, 7))
NEARLY = 0.5  # nats
SEED = 1993


class HeldOutCalibration(Stateful):
    """Held-out results of one classifier after each task; the held-out rows are the same for every classifier.

    n_correct: held-out rows predicted correctly so far, [T]. nll: -sum log softmax(scores / tau)[true class] over them, for
    every tau of `TEMPERATURES`, [T, K]. Only these sums are kept, no rows.
    """

    learned = ("n_correct", "nll")

    def __init__(self) -> None:
        self.n_correct = torch.zeros(0, dtype=torch.float64)
        self.nll = torch.zeros(0, len(TEMPERATURES), dtype=torch.float64)

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Adds the held-out rows of a task, if it has any: their scores [n, C] and true classes [n]."""
        correct, nll = self._so_far(len(self.n_correct))
        if len(labels):
            correct = correct + (scores.argmax(1) == labels).sum()
            log_likelihood = [
                torch.log_softmax(scores / tau, 1).gather(1, labels.unsqueeze(1)).sum() for tau in TEMPERATURES
            ]
            nll = nll - torch.stack(log_likelihood)
        self.n_correct = torch.cat([self.n_correct, correct.view(1)])
        self.nll = torch.cat([self.nll, nll.view(1, -1)])

    def temperature(self, tasks: int) -> float | None:
        """The largest tau of nearly the greatest held-out likelihood after some tasks; None if no row was held out.

        Few rows that are all predicted correctly are likeliest under the smallest tau there is, and say nothing for it.
        """
        nll = self._so_far(tasks)[1]
        likely = (nll <= nll.min() + NEARLY).nonzero()
        return TEMPERATURES[int(likely.max())] if bool(nll.any()) else None

    def correct(self, tasks: int) -> float:
        """Held-out rows predicted correctly in the first tasks."""
        return float(self._so_far(tasks)[0])

    def _so_far(self, tasks: int) -> tuple[Tensor, Tensor]:
        if not tasks:
            return self.n_correct.new_zeros(()), self.nll.new_zeros(len(TEMPERATURES))
        return self.n_correct[tasks - 1], self.nll[tasks - 1]


def split(task: Task) -> tuple[IntArray, IntArray]:
    """Positions of train rows to fit on and to hold out; a class of one row has none to hold out."""
    generator, held_out = numpy_generator(SEED, "examination", task.number), []
    share = min(HELD_OUT, MOST / len(task.train.labels))
    for c in np.unique(task.train.labels):
        rows = generator.permutation(np.flatnonzero(task.train.labels == c))
        held_out.append(rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)])
    held = np.sort(np.concatenate(held_out)).astype(np.int64)
    return np.setdiff1d(np.arange(len(task.train.labels)), held), held
