"""Logarithmic opinion pool of closed-form classifiers, each calibrated on held-out train rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from tosca_cache.closed_form.base import Stateful
from tosca_cache.closed_form.shared import HeldOutCalibration, SharedClassifier
from tosca_cache.devices import on_cores
from tosca_cache.tasks import Task

POOLED = ("lda", "lda-views", "ridge-random", "mean")
FLOOR = 1e-12


class OpinionPool(Stateful):
    """log P(c | x) = sum over classifiers of log softmax_c(scores / tau), up to a constant.

    Logarithmic opinion pool: Genest and Zidek, Statistical Science 1 (1986); temperature scaling: Guo et al., ICML 2017.
    Before a task is learned, a fifth of each of its classes is held out (less where that is many rows: `shared.split`), and
    every classifier, fitted on all earlier tasks and the rest, predicts it. tau is the temperature of greatest likelihood
    of all held-out rows so far; if no class has a row to spare, scores are standardised instead. Then the task is learned
    whole. Classifiers that are significantly worse on the held-out rows than the best one are left out.

    Arguments:
        classifiers: of `POOLED`; fresh ones by default. Calibration is switched on in all of them.
    """

    learned = ("classifiers",)

    def __init__(self, classifiers: Mapping[str, SharedClassifier] | None = None) -> None:
        self.classifiers = dict(classifiers or {name: SharedClassifier(name) for name in POOLED})
        for one in self.classifiers.values():
            one.calibration = one.calibration or HeldOutCalibration()

    @classmethod
    def fitted(cls, tasks: Iterable[Task]) -> OpinionPool:
        """One of fresh classifiers that has learned these tasks."""
        pool = cls()
        for task in tasks:
            pool.fit(task)
        return pool

    def fit(self, task: Task, *, solve: bool = False) -> None:
        """Adds the train rows of a task to every classifier; solve: for all weights as well, as they are asked next."""

        def one_more(one: SharedClassifier) -> None:
            """A task more for one of them."""
            one.fit(task)
            if solve:
                one.finalize()

        self._each(one_more)

    def log_probs(self, features: Tensor, tasks: int) -> Tensor:
        """Unnormalised log-probabilities of the classes of the first tasks, [n, C]; float64."""

        def calibrated(item: tuple[str, float | None]) -> Tensor:
            """Log-probabilities of one classifier at its temperature."""
            name, tau = item
            scores = self.classifiers[name].scores(features, tasks)
            return torch.log_softmax(standardised(scores) if tau is None else scores / tau, 1)

        return torch.stack(on_cores(calibrated, self.temperatures(tasks).items(), torch.get_num_threads())).sum(0)

    def temperatures(self, tasks: int) -> dict[str, float | None]:
        """tau of every classifier that is `selected`; None for one whose scores are standardised."""
        return {name: self._calibration(name).temperature(tasks) for name in self.selected(tasks)}

    def selected(self, tasks: int) -> list[str]:
        """Classifiers within one standard error of the best one's number of correct held-out rows."""
        correct = {name: self._calibration(name).correct(tasks) for name in self.classifiers}
        best = max(correct.values())
        return [name for name, count in correct.items() if count >= best - best**0.5]

    def memory_needed(self, rows: Sequence[int], classes: int, dim: int) -> int:
        """Bytes that it takes at most, but for matrices of features; see `Learner.memory_needed`."""
        return sum(one.classifier.memory_needed(rows, classes, dim) for one in self.classifiers.values())

    def _each(self, work: Callable[[SharedClassifier], None]) -> None:
        """One classifier a core; the one that takes longest begins first."""
        ordered = sorted(self.classifiers.values(), key=lambda one: not one.kind.slow)
        on_cores(work, ordered, torch.get_num_threads())

    def _calibration(self, name: str) -> HeldOutCalibration:
        found = self.classifiers[name].calibration
        assert found is not None
        return found


def standardised(scores: Tensor) -> Tensor:
    """Each sample's scores minus their mean over the classes, divided by their standard deviation, [n, C].

    z-score normalisation, Jain, Nandakumar and Ross, Pattern Recognition 38 (2005), section 4.
    """
    centred = scores - scores.mean(1, keepdim=True)
    return centred / centred.square().mean(1, keepdim=True).sqrt().clamp_min(FLOOR)
