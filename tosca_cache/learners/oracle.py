"""TOSCA's modules under an oracle that names the true task: what perfect routing would give (methods.md 17.1)."""

from __future__ import annotations

from typing import Any

import torch

from tosca_cache.errors import UsageError
from tosca_cache.learners.base import FloatArray, register_learner
from tosca_cache.learners.tosca import BATCH_ROUTER, CachedTestFeatures, Tosca
from tosca_cache.routing import ModuleOutputs, RoutedPrediction


@register_learner
class OracleLuca(Tosca):
    """The module of a row's true task predicts, over all classes seen.

    The test set knows the tasks: rows added after a task was observed are rows of that task, as the protocol adds them,
    unless `add` names another. `scores` cannot know the tasks of its rows, and refuses.
    """

    name = "oracle-luca"
    source = "TOSCA's modules with the true task given; a bound of routing"
    agrees = "no official code: a bound, equal to the logits of TOSCA's module of the true task."
    bound = True

    def __init__(self, **common: Any) -> None:
        super().__init__(router=BATCH_ROUTER, **common)  # no router is fitted; `route` is another
        self.transductive = False

    def scores(self, features: FloatArray) -> FloatArray:
        """Raises `UsageError`: without their tasks no row can be predicted."""
        raise UsageError(
            f"{self.name} predicts only rows whose task is known",
            where="scores",
            remedy="add the rows to its test set task by task, and predict that",
        )

    def test_set(self) -> RowsOfTasks:
        """Test rows and their tasks."""
        return RowsOfTasks(self)

    def route(self, outputs: ModuleOutputs) -> RoutedPrediction:
        """The module of the true task, and the class it predicts."""
        test_set = outputs.lazy
        assert isinstance(test_set, RowsOfTasks)
        parts = [torch.full((len(rows),), task) for rows, task in zip(test_set.rows, test_set.tasks, strict=True)]
        modules = torch.cat(parts).to(outputs.features.device)
        return RoutedPrediction(modules, outputs.labels_of(modules))


class RowsOfTasks(CachedTestFeatures):
    """Test rows whose true tasks are known. tasks: one number a part."""

    def __init__(self, learner: OracleLuca) -> None:
        super().__init__(learner)
        self.tasks: list[int] = []

    def add(self, features: FloatArray, task: int | None = None) -> None:
        """Adds test features, [n, d] or [n, 1+V, d], of one task; of the task observed last if None."""
        super().add(features)
        self.tasks.append(len(self.learner.bank) - 1 if task is None else task)
