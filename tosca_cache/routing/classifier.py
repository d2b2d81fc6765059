"""Routers that predict a class from the raw features, by a closed form or the nearest rows, and take its task's module."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from tosca_cache.closed_form.means import votes
from tosca_cache.closed_form.shared import SharedClassifier
from tosca_cache.luca.bank import Bank
from tosca_cache.luca.module import normalise
from tosca_cache.routing.base import ModuleOutputs, Router, register_router
from tosca_cache.tasks import Task

NEIGHBOURS, TEMPERATURE = 20, 0.1


class ClosedFormRouter(Router):
    """A router with closed-form classifiers. uses: which."""

    uses: ClassVar[tuple[str, ...]]
    learned = ("classifiers",)

    def __init__(self) -> None:
        self.take({name: SharedClassifier(name) for name in self.uses})

    def take(self, classifiers: dict[str, SharedClassifier]) -> None:
        """Makes these its classifiers."""
        self.classifiers = classifiers

    def share_cache(self, cache: dict[str, Any]) -> None:
        """Takes classifiers of the cache, and adds those that are not in it; see `Router.share_cache`."""
        self.take({name: cache.setdefault(f"classifier {name}", one) for name, one in self.classifiers.items()})
        for one in self.classifiers.values():
            one.keeps_scores = "same rows" in cache

    @abstractmethod
    def classifier_only(self, outputs: ModuleOutputs) -> Tensor:
        """The class that its classifiers predict without any module, [n]."""

    def fit(self, task: Task, bank: Bank) -> None:
        """Adds the train rows of a task to every classifier."""
        for one in self.classifiers.values():
            one.fit(task)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what `state` gave, into classifiers of its own."""
        self.take({name: SharedClassifier(name) for name in self.uses})
        super().load_state(state)

    def scores_of(self, outputs: ModuleOutputs) -> list[Tensor]:
        """Scores of each classifier, [n, C] each; float64."""
        return [one.scores(outputs.features, len(outputs.task_classes)) for one in self.classifiers.values()]


class ByClassifier(ClosedFormRouter):
    """The module whose task holds the class predicted by the one classifier that it uses."""

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The task of each predicted class, [n]."""
        return outputs.task_of_class[self.classifier_only(outputs)]

    def classifier_only(self, outputs: ModuleOutputs) -> Tensor:
        """The class that the classifier itself predicts, [n]."""
        return self.scores_of(outputs)[0].argmax(1)


# Name, the classifier that it uses, its source, what it stores and what it costs.
for _name, _uses, _source, _stores, _cost in (
    ("prototype", "mean", "SimpleCIL (arXiv 2303.07338) as a router", "a mean of each class, [C, d]", "d C"),
    (
        "ridge",
        "ridge",
        "RanPAC without projection (arXiv 2307.02251) as a router",
        "sums over all rows, [d, d] and [d, C]",
        "d C",
    ),
    (
        "ridge-random",
        "ridge-random",
        "RanPAC (arXiv 2307.02251) as a router, as in ridge-routed LuCA",
        "sums over all rows, [M, M] and [M, C]; the projection is its seed",
        "M (d + C)",
    ),
    (
        "lda",
        "lda",
        "streaming LDA (arXiv 1909.01520) with a shrinkage relative to the mean variance",
        "sums over all rows, [d, d] and [C, d]",
        "d C",
    ),
    (
        "lda-views",
        "lda-views",
        "as `lda`; the views teach the covariance what does not tell classes apart (an own variant)",
        "sums over all rows and views, [d, d] and [C, d]",
        "d C",
    ),
):
    _facts = {"name": _name, "uses": (_uses,), "source": _source, "stores": _stores, "cost": _cost}
    register_router(type(_name, (ByClassifier,), _facts))


@register_router
class NearestRows(Router):
    """The task of the class with most weight among the 20 nearest train rows by cosine, weighted by softmax(cos / 0.1).

    It keeps every train row, so it is rehearsal in feature space and says so.
    """

    name = "knn"
    source = "the memory of AdaNPC (arXiv 2304.12566) without its updates (there k = 100)"
    stores = "all clean train rows, [N, d]"
    cost = "d N"
    rehearsal = True
    learned = ("memory", "labels")

    def __init__(self) -> None:
        self.memory = torch.empty(0, 0)  # unit length, [N, d]
        self.labels = torch.empty(0, dtype=torch.int64)

    def fit(self, task: Task, bank: Bank) -> None:
        """Keeps the clean train rows of a task."""
        rows = normalise(torch.from_numpy(task.train.features[:, 0]).float())
        self.memory = torch.cat([self.memory, rows]) if len(self.memory) else rows
        self.labels = torch.cat([self.labels, torch.from_numpy(task.train.labels)])

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The task of the class with most weight, [n]."""
        rows, classes = normalise(outputs.features.cpu().float()), outputs.task_classes[-1].stop
        labels = votes(rows, self.memory, self.labels, classes, k=NEIGHBOURS, tau=TEMPERATURE).argmax(1)
        return outputs.task_of_class[labels.to(outputs.features.device)]
