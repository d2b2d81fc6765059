"""Closed-form classifiers of the raw features that learn task by task; several routers may share one."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from threading import RLock
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tosca_cache.closed_form.base import Classifier, Stateful
from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.lda import Lda
from tosca_cache.closed_form.means import NearestMean
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.closed_form.ridge import Ridge
from tosca_cache.seeds import numpy_generator
from tosca_cache.tasks import Task

EXPANSION = 2000  # of random features
SEED = 1993  # of them, and of which rows are held out
AGAIN = 2.0  # times the rows for which a shrinkage was chosen: it is chosen again
HELD_OUT = 0.2  # of each class's train rows,
MOST = 512  # and of a task's, where its classes have two or more each: more would not tell classifiers apart any better
TEMPERATURES = tuple(2.0**power for power in range(-7, 7))
NEARLY = 0.5  # nats
IntArray = NDArray[np.int64]


class Kind(NamedTuple):
    """make: gives a fresh classifier. views: it learns from the augmented views of train rows as well.

    slow: learning takes it longer than the others.
    """

    make: Callable[[], Classifier]
    views: bool = False
    slow: bool = False


def _random_ridge() -> RandomRidge:
    features = RandomFeatures(EXPANSION, seed=SEED, dtype=torch.float32)
    return RandomRidge(features, seed=SEED, selection="gcv", dtype=torch.float64)


def _lda() -> Lda:
    return Lda(again=AGAIN, dtype=torch.float32)


CLASSIFIERS: dict[str, Kind] = {
    "mean": Kind(NearestMean),
    "ridge": Kind(Ridge),
    "ridge-random": Kind(_random_ridge, slow=True),
    "lda": Kind(_lda),
    "lda-views": Kind(_lda, views=True),
}


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


class SharedClassifier(Stateful):
    """One of `CLASSIFIERS`; each task is learned once, whichever of its users comes first.

    calibration: set before the first task if held-out results are wanted.
    keeps_scores: its users predict the same rows after the same tasks, each at its own time, so scores are kept.
    """

    learned = ("classifier", "tasks", "calibration")

    def __init__(self, name: str) -> None:
        self.kind = CLASSIFIERS[name]
        self.classifier = self.kind.make()
        self.tasks = 0
        self.calibration: HeldOutCalibration | None = None
        self.keeps_scores = False
        self._scores: dict[int, tuple[Tensor, Tensor]] = {}  # by number of tasks: features, and their scores
        self._lock = RLock()

    def fit(self, task: Task) -> None:
        """Adds the train rows of a task, unless that has been done.

        With a calibration, the held-out rows are predicted as by a classifier that has not learned them.
        """
        with self._lock:
            if task.number < self.tasks:
                return
            if self.calibration is None:
                self._teach(self.classifier, task, slice(None))
            else:
                fitted, held_out = split(task)
                scores = self._trial(task, fitted, held_out)
                self.calibration.add(scores, torch.from_numpy(task.train.labels[held_out]))
            if isinstance(self.classifier, Lda):
                self.classifier.chosen_shrinkage()  # after every task, whenever its users ask for scores
            self.tasks = task.number + 1

    def scores(self, features: Tensor, tasks: int) -> Tensor:
        """Scores of all classes of the first tasks, [n, C]; float64, on the device of the features [n, d]."""
        with self._lock:
            known = self._scores.get(tasks)
            if known is not None and (known[0] is features or (self.keeps_scores and torch.equal(known[0], features))):
                return known[1]
            found = self.classifier.scores(features.cpu()).to(features.device)
            if not self.keeps_scores:
                self._scores.clear()
            self._scores[tasks] = features, found
            return found

    def finalize(self) -> None:
        """Solves for the classifier's weights, if there are any to solve for."""
        with self._lock:
            self.classifier.finalize()

    def changed(self) -> None:
        """Drops scores."""
        self._scores.clear()

    def _trial(self, task: Task, fitted: IntArray, held_out: IntArray) -> Tensor:
        """Learns a task; scores of the held-out rows as they are without having learned them, [n, C].

        Lambda is that of all rows; the shrinkage of discriminant analysis that of the tasks before, if there are any.
        """
        if isinstance(self.classifier, RandomRidge):
            x, labels = torch.from_numpy(task.train.features[:, 0]), torch.from_numpy(task.train.labels)
            return self.classifier.observe_leaving_out(x, labels, task.classes.stop, torch.from_numpy(held_out))
        earlier = self.classifier.chosen_shrinkage() if isinstance(self.classifier, Lda) and task.number else None
        self._teach(self.classifier, task, fitted)
        trial = copy(self.classifier)  # learning changes no tensor in place
        self._teach(self.classifier, task, held_out)
        if not len(held_out):
            return torch.empty(0, task.classes.stop)
        if isinstance(trial, Lda):
            trial.assumed = earlier
        return trial.scores(torch.from_numpy(task.train.features[held_out, 0]))

    def _teach(self, classifier: Classifier, task: Task, rows: IntArray | slice) -> None:
        features, labels = task.train.features[rows], torch.from_numpy(task.train.labels[rows])
        if not len(labels):
            return
        n, views, d = features.shape
        used = views if self.kind.views else 1
        x = torch.from_numpy(np.ascontiguousarray(features[:, :used])).reshape(n * used, d)
        classifier.observe(x, labels.repeat_interleave(used), task.classes.stop)


def split(task: Task) -> tuple[IntArray, IntArray]:
    """Positions of train rows to fit on and to hold out; a class of one row has none to hold out."""
    generator, held_out = numpy_generator(SEED, "examination", task.number), []
    share = min(HELD_OUT, MOST / len(task.train.labels))
    for c in np.unique(task.train.labels):
        rows = generator.permutation(np.flatnonzero(task.train.labels == c))
        held_out.append(rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)])
    held = np.sort(np.concatenate(held_out)).astype(np.int64)
    return np.setdiff1d(np.arange(len(task.train.labels)), held), held
