"""The contract of a router: it chooses one module for each sample, from that sample alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from tosca_cache.closed_form.base import Stateful
from tosca_cache.errors import UsageError
from tosca_cache.luca.bank import Bank
from tosca_cache.tasks import Task

__all__ = [
    "ROUTERS",
    "LazyModuleOutputs",
    "ModuleOutputs",
    "RoutedPrediction",
    "Router",
    "make_router",
    "register_router",
]


class LazyModuleOutputs(Protocol):
    """Outputs of modules for n samples that are computed on demand."""

    @property
    def view_count(self) -> int:
        """Augmented views of every sample; 0 if only the clean one is known."""

    def logits(self, module: int) -> Tensor:
        """Logits of one module over all classes seen, [n, C]."""

    def adapted_rows(self, module: int) -> Tensor:
        """Unit-length adapted features of one module, [n, d]."""

    def view_logits(self, module: int, view: int, classes: range) -> Tensor:
        """Logits of one module over some classes for one augmented view (counted from 0), [n, len(classes)]."""


@dataclass(frozen=True)
class ModuleOutputs:
    """Outputs of all modules for n samples; no labels.

    features: clean features before any module, [n, d].
    entropy: H = -sum p log(p + 1e-9) of every module over all classes seen, [T, n].
    prediction: most likely class of every module, [T, n].
    task_classes: the classes that each module was trained for, [T]; `task_classes[-1].stop` is the number of classes seen.
    lazy: logits, adapted features and logits of augmented views.
    """

    features: Tensor
    entropy: Tensor
    prediction: Tensor
    task_classes: tuple[range, ...]
    lazy: LazyModuleOutputs

    def logits(self, module: int) -> Tensor:
        """Logits of one module over all classes seen, [n, C]."""
        return self.lazy.logits(module)

    @cached_property
    def block_logits(self) -> Tensor:
        """Logits of every class by the module that was trained for it, [n, C]."""
        return torch.cat([self.logits(t)[:, block.start : block.stop] for t, block in enumerate(self.task_classes)], 1)

    @cached_property
    def task_of_class(self) -> Tensor:
        """The task of every class seen, [C]."""
        tasks = [torch.full((len(block),), t) for t, block in enumerate(self.task_classes)]
        return torch.cat(tasks).to(self.features.device)

    def labels_of(self, modules: Tensor) -> Tensor:
        """Most likely class by the module chosen for each sample, [n]."""
        return self.prediction.gather(0, modules.unsqueeze(0))[0]

    def logits_of(self, modules: Tensor) -> Tensor:
        """Logits of the module chosen for each sample, [n, C]."""
        used = modules.unique().tolist()
        found = self.logits(used[0]).clone()
        for t in used[1:]:
            chosen = modules == t
            found[chosen] = self.logits(t)[chosen]
        return found


class RoutedPrediction(NamedTuple):
    """modules: the module chosen for each sample, [n]. labels: the predicted class, [n]."""

    modules: Tensor
    labels: Tensor


class Router(Stateful, ABC):
    """Maps each sample to a module of the bank.

    name: as in `--router`. source: where it comes from. stores: what it keeps of a task besides the module.
    cost: multiplications a sample besides the modules' own (d features, h hidden, V views, N rows, T tasks, C classes).
    rehearsal: True if it keeps train rows. needs_views: True if it asks for augmented views of test rows.

    A router may not depend on the other samples: permuting or splitting them must not change a prediction. What `fit`
    learns stands in the attributes that `learned` names (`Stateful`).
    """

    name: ClassVar[str]
    source: ClassVar[str]
    stores: ClassVar[str] = "nothing"
    cost: ClassVar[str] = "none"
    rehearsal: ClassVar[bool] = False
    needs_views: ClassVar[bool] = False

    def share_cache(self, cache: dict[str, Any]) -> None:
        """Before any task: shares what it fits with other routers, so that each thing is fitted once.

        Routers of a cache see the same tasks, each at its own time, and the same bank. A cache with a key `same rows` is of
        routers with different banks that predict the same samples after the same tasks.
        """

    def fit(self, task: Task, bank: Bank) -> None:
        """Learns from the train rows of a task just added to the bank; the default learns nothing."""

    @abstractmethod
    def route(self, outputs: ModuleOutputs) -> Tensor:
        """Index of the module chosen for each sample, [n]."""

    def predict(self, outputs: ModuleOutputs) -> RoutedPrediction:
        """The module of each sample, and its most likely class of all classes seen."""
        modules = self.route(outputs)
        return RoutedPrediction(modules, outputs.labels_of(modules))

    def scores(self, outputs: ModuleOutputs) -> Tensor:
        """Scores of all classes seen, [n, C], of which the largest is the prediction."""
        return outputs.logits_of(self.route(outputs))


ROUTERS: dict[str, type[Router]] = {}


def register_router(router: type[Router]) -> type[Router]:
    """Class decorator: makes a router known by its `name`."""
    ROUTERS[router.name] = router
    return router


def make_router(name: str) -> Router:
    """A fresh router; raises `UsageError` if the name is unknown."""
    if name not in ROUTERS:
        raise UsageError(
            f"unknown router {name!r}",
            where="--router",
            remedy=f"choose one of {', '.join([*sorted(ROUTERS), 'batch'])}",
        )
    return ROUTERS[name]()
