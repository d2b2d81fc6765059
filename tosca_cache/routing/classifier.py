"""The task of the class that a closed-form classifier of the raw features predicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from tosca_cache.closed_form.lda import Lda
from tosca_cache.closed_form.means import NearestMean
from tosca_cache.closed_form.ridge import Ridge
from tosca_cache.luca.bank import Bank
from tosca_cache.routing.base import Evidence, Router, register_router
from tosca_cache.tasks import Task

EXPANSION = 2000  # of random features


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


CLASSIFIERS: dict[str, Callable[[], Classifier]] = {
    "mean": NearestMean,
    "ridge": Ridge,
    "ridge-random": partial(Ridge, EXPANSION),
    "lda": Lda,
}


class Judge:
    """One of `CLASSIFIERS` as it learns task by task; several routers may share it, and each task is learned once."""

    def __init__(self, name: str) -> None:
        self.classifier = CLASSIFIERS[name]()
        self.tasks = 0
        self._asked: Evidence | None = None
        self._said = torch.empty(0)

    def fit(self, task: Task) -> None:
        """Adds the clean train rows of a task, unless another router has had them added."""
        if task.number < self.tasks:
            return
        clean = torch.from_numpy(task.train.features[:, 0])
        self.classifier.observe(clean, torch.from_numpy(task.train.labels), task.classes.stop)
        self.tasks, self._asked = task.number + 1, None

    def scores(self, evidence: Evidence) -> Tensor:
        """Scores of all classes, [n, C]; float64."""
        if self._asked is not evidence:
            self._said = self.classifier.scores(evidence.features.cpu()).to(evidence.features.device)
            self._asked = evidence
        return self._said


class WithJudges(Router):
    """A router that asks closed-form classifiers. uses: which."""

    uses: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self.judges = {name: Judge(name) for name in self.uses}

    def share(self, judges: dict[str, Judge]) -> None:
        """Uses the judges of other routers, before any task, and adds its own to them."""
        self.judges = {name: judges.setdefault(name, judge) for name, judge in self.judges.items()}

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
            judge.classifier.load_state({k.removeprefix(mine): t for k, t in state.items() if k.startswith(mine)})


class ByClassifier(WithJudges):
    """The module whose task holds the class predicted by the one classifier that it uses."""

    def route(self, evidence: Evidence) -> Tensor:
        """The task of each predicted class, [n]."""
        return evidence.task_of_class[self.alone(evidence)]

    def alone(self, evidence: Evidence) -> Tensor:
        """The class that the classifier itself predicts, without any module, [n]."""
        (judge,) = self.judges.values()
        return judge.scores(evidence).argmax(1)


def share_judges(routers: Sequence[Router]) -> None:
    """Lets fresh routers learn each closed-form classifier once between them."""
    judges: dict[str, Judge] = {}
    for router in routers:
        if isinstance(router, WithJudges):
            router.share(judges)


@register_router
class PrototypeRouter(ByClassifier):
    """The nearest class mean."""

    name = "prototype"
    source = "SimpleCIL (arXiv 2303.07338) as a router; methods.md 1"
    stores = "a mean of each class, [C, d]"
    cost = "d C"
    uses = ("mean",)


@register_router
class RidgeRouter(ByClassifier):
    """Ridge regression on the raw features, lambda chosen on each task's train rows."""

    name = "ridge"
    source = "RanPAC without projection (arXiv 2307.02251) as a router; methods.md 5 and 16"
    stores = "sums over all rows, [d, d] and [d, C]"
    cost = "d C"
    uses = ("ridge",)


@register_router
class RandomRidgeRouter(ByClassifier):
    """Ridge regression on 2,000 random ReLU features, lambda chosen on each task's train rows."""

    name = "ridge-random"
    source = "RanPAC (arXiv 2307.02251) as a router, as in ridge-routed LuCA; methods.md 5 and 16.1"
    stores = "sums over all rows, [M, M] and [M, C]; the projection is its seed"
    cost = "M (d + C)"
    uses = ("ridge-random",)


@register_router
class LdaRouter(ByClassifier):
    """Linear discriminant analysis with the covariance within classes."""

    name = "lda"
    source = "streaming LDA (arXiv 1909.01520) with a shrinkage relative to the mean variance; methods.md 2"
    stores = "sums over all rows, [d, d] and [C, d]"
    cost = "d C"
    uses = ("lda",)
