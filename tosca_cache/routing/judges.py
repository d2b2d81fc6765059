"""Closed-form classifiers of the raw features as routers use them: learned task by task, shared, examined."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from copy import deepcopy
from threading import RLock
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from tosca_cache.closed_form.expansion import RandomFeatures
from tosca_cache.closed_form.lda import Lda
from tosca_cache.closed_form.means import NearestMean
from tosca_cache.closed_form.random_ridge import RandomRidge
from tosca_cache.closed_form.ridge import Ridge
from tosca_cache.luca.bank import Bank
from tosca_cache.routing.base import ModuleOutputs, Router
from tosca_cache.routing.examine import Examination, IntArray
from tosca_cache.tasks import Task

EXPANSION = 2000  # of random features
SEED = 1993  # of them


class Classifier(Protocol):
    """A classifier that is exact for any split of the rows into tasks."""

    def observe(self, x: Tensor, labels: Tensor, classes: int) -> None:
        """Adds the rows of a task."""

    def scores(self, x: Tensor) -> Tensor:
        """Scores of all classes, [n, C]."""

    def state(self) -> dict[str, Tensor]:
        """What it has learned."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes that over."""


class Kind(NamedTuple):
    """make: gives a fresh classifier. views: it learns from the augmented views of train rows as well."""

    make: Callable[[], Classifier]
    views: bool = False


def _random_ridge() -> RandomRidge:
    return RandomRidge(RandomFeatures(EXPANSION, seed=SEED), seed=SEED, selection="gcv")


CLASSIFIERS: dict[str, Kind] = {
    "mean": Kind(NearestMean),
    "ridge": Kind(Ridge),
    "ridge-random": Kind(_random_ridge),
    "lda": Kind(Lda),
    "lda-views": Kind(Lda, views=True),
}


class Judge:
    """One of `CLASSIFIERS` as it learns task by task; several routers may share it, and each task is learned once.

    examination: set before the first task, it asks the classifier about held-out rows of every task (see `examine.py`).
    remembers: its routers ask about the same samples after the same tasks, each at its own time: what was said is kept.
    """

    def __init__(self, name: str) -> None:
        self.kind = CLASSIFIERS[name]
        self.classifier = self.kind.make()
        self.tasks = 0
        self.examination: Examination | None = None
        self.remembers = False
        self._said: dict[int, tuple[Tensor, Tensor]] = {}  # by number of tasks: features asked about, and scores
        self._lock = RLock()

    def fit(self, task: Task) -> None:
        """Adds the train rows of a task, unless another router has had them added."""
        with self._lock:
            if task.number < self.tasks:
                return
            if self.examination is not None:
                self.examination.add(task, self._trial)
            self._learn(self.classifier, task, slice(None))
            self.tasks = task.number + 1

    def scores(self, outputs: ModuleOutputs) -> Tensor:
        """Scores of all classes, [n, C]; float64."""
        with self._lock:
            tasks, features = len(outputs.blocks), outputs.features
            known = self._said.get(tasks)
            if known is not None and (known[0] is features or (self.remembers and torch.equal(known[0], features))):
                return known[1]
            said = self.classifier.scores(features.cpu()).to(features.device)
            if not self.remembers:
                self._said.clear()
            self._said[tasks] = features, said
            return said

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what a classifier of this kind had learned."""
        self.classifier.load_state(state)
        self._said.clear()

    def _trial(self, task: Task, fitted: IntArray, asked: IntArray) -> Tensor:
        """Scores, [n, C], of some clean rows of a task by what was learned before and other rows of the task."""
        shared = getattr(self.classifier, "features", None)  # a random projection
        if task.number and isinstance(self.classifier, RandomRidge):
            self.classifier.finalize()  # its lambda serves for the trial
        trial = deepcopy(self.classifier, {id(shared): shared})
        if task.number and isinstance(trial, RandomRidge):
            trial.fixed = trial.lam
        self._learn(trial, task, fitted)
        return trial.scores(torch.from_numpy(task.train.features[asked, 0]))

    def _learn(self, classifier: Classifier, task: Task, rows: IntArray | slice) -> None:
        features, labels = task.train.features[rows], torch.from_numpy(task.train.labels[rows])
        if not self.kind.views:
            classifier.observe(torch.from_numpy(features[:, 0]), labels, task.classes.stop)
            return
        n, views, d = features.shape
        every = torch.from_numpy(features).reshape(n * views, d)
        classifier.observe(every, labels.repeat_interleave(views), task.classes.stop)


class WithJudges(Router):
    """A router that asks closed-form classifiers. uses: which."""

    uses: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self.judges = {name: Judge(name) for name in self.uses}

    def share(self, pool: dict[str, Any]) -> None:
        """Uses the judges of the pool, and adds its own to them; a pool with a key `remember` has judges that do."""
        self.judges = {name: pool.setdefault(f"judge {name}", judge) for name, judge in self.judges.items()}
        for judge in self.judges.values():
            judge.remembers = "remember" in pool

    @abstractmethod
    def alone(self, outputs: ModuleOutputs) -> Tensor:
        """The class that its classifiers answer without any module, [n]."""

    def fit(self, task: Task, bank: Bank) -> None:
        """Adds the clean train rows of a task to every classifier."""
        for judge in self.judges.values():
            judge.fit(task)

    def state(self) -> dict[str, Tensor]:
        """Each classifier's."""
        return {f"{name}.{key}": t for name, j in self.judges.items() for key, t in j.classifier.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Each classifier's, for judges of its own."""
        self.judges = {name: Judge(name) for name in self.uses}
        for name, judge in self.judges.items():
            mine = f"{name}."
            judge.load_state({key.removeprefix(mine): t for key, t in state.items() if key.startswith(mine)})

    def has_learned(self, tasks: int) -> None:
        """Says how many tasks a loaded state knows, so that none of them is added again."""
        for judge in self.judges.values():
            judge.tasks = tasks
