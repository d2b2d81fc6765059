"""Bounds to compare learners with (methods.md 17.1): all tasks learned at once, and TOSCA told the true task.

Joint bounds keep all rows and are trained when they are asked, on all rows seen so far; tasks in between cost nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.errors import UsageError
from tosca_cache.learners.base import FloatArray, IntArray, Learner, register_learner
from tosca_cache.learners.tosca import BATCH_ROUTER, CachedTestFeatures, Tosca
from tosca_cache.routing import ModuleOutputs, RoutedPrediction
from tosca_cache.seeds import numpy_generator
from tosca_cache.tasks import Rows, Task
from tosca_cache.train.loop import EpochDone

GRID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # c, from the roundest problem to the flattest
UNCHECKED = 1e-3  # c where no class has rows to spare for a validation
VALIDATION = 5  # every fifth row of each class
STEPS = 10_000


class Joint(Learner):
    """Keeps the rows of all tasks. rows: [n, views, d]; labels: [n]. views: which are kept. fitted: to all rows so far."""

    what = "Joint bounds: learners that keep all rows and learn all tasks at once, from scratch."
    rehearsal = True
    bound = True
    learned = ("rows", "labels", "classes")
    on_cpu = learned
    views: ClassVar[slice]

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.rows = torch.empty(0)
        self.labels = torch.empty(0, dtype=torch.int64)
        self.classes = 0
        self.fitted: Any = None

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the rows of a task."""
        rows, labels = torch.from_numpy(task.train.features)[:, self.views], torch.from_numpy(task.train.labels)
        self.rows = torch.cat([self.rows.to(rows), rows]) if len(self.labels) else rows
        self.labels = torch.cat([self.labels, labels])
        self.classes = task.classes.stop
        self.changed()

    def changed(self) -> None:
        """Drops what was fitted."""
        self.fitted = None

    def finalize(self) -> None:
        """Fits all rows seen, if that has not been done."""
        if self.fitted is None:
            self.fitted = self.fit()

    @abstractmethod
    def fit(self) -> Any:
        """What answers, of all rows seen."""


@register_learner
class JointLogistic(Joint):
    """Multinomial logistic regression on the standardised clean features: the bound of linear heads.

    min mean CE(x W + b) + c/2 |W|^2, to the optimum. c is chosen of `GRID` by the cross-entropy of every fifth row of
    each class (in random order) under a fit to the others, from large to small until it gets worse; then all rows are
    used.

    Arguments:
        c: if given, nothing is chosen.
    """

    name = "joint-logistic"
    source = "multinomial logistic regression on all rows"
    agrees = "no official code: a bound, by scikit-learn's LogisticRegression."
    views = slice(1)

    def __init__(self, *, c: float | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.c = self.chosen = c

    def fit(self) -> tuple[FloatArray, FloatArray]:
        """Weights [d, C] and bias [C]."""
        x, labels = self.rows[:, 0].double().numpy(), self.labels.numpy()
        self.mean, std = x.mean(0), x.std(0)
        self.std = np.where(std == 0, 1, std)
        x = (x - self.mean) / self.std
        self.chosen = self._choose(x, labels) if self.c is None else self.c
        return logistic(x, labels, self.classes, self.chosen)

    def scores(self, features: FloatArray) -> FloatArray:
        """Logits, [n, C]."""
        self.finalize()
        weight, bias = self.fitted
        found: FloatArray = ((features.astype(np.float64) - self.mean) / self.std) @ weight + bias
        return found

    def _choose(self, x: FloatArray, labels: IntArray) -> float:
        held = held_out(self.labels, self.seed).numpy()
        best, least = UNCHECKED, np.inf
        for c in GRID if held.any() else ():
            weight, bias = logistic(x[~held], labels[~held], self.classes, c, tolerance=1e-4)
            logits = torch.from_numpy(x[held] @ weight + bias)
            loss = float(F.cross_entropy(logits, torch.from_numpy(labels[held])))
            if loss >= least:
                break
            best, least = c, loss
        return best

    @property
    def trainable_parameters(self) -> int:
        """Weights and biases of all classes."""
        return self.classes * (self.rows.shape[2] + 1) if self.classes else 0


@register_learner
class JointLuca(Joint):
    """One LuCA module and its prototypes, trained on all rows seen: what TOSCA gives when all classes are one task."""

    name = "joint-luca"
    source = "TOSCA on all classes as one task; the bound of one module"
    agrees = "no official code: a bound, TOSCA with all classes in one task."
    views = slice(None)

    def fit(self) -> Tosca:
        """The module, trained on all rows seen."""
        trained = Tosca(self.settings, seed=self.seed, device=self.device, engine=self.engine)
        rows = Rows(self.rows.numpy(), self.labels.numpy(), np.arange(len(self.labels)))
        trained.observe(Task(0, range(self.classes), rows))
        return trained

    def scores(self, features: FloatArray) -> FloatArray:
        """Logits of the module, [n, C]."""
        self.finalize()
        found: FloatArray = self.fitted.scores(features)
        return found

    @property
    def trainable_parameters(self) -> int:
        """Module, head and scale."""
        return 0 if self.fitted is None else int(self.fitted.trainable_parameters)


@register_learner
class OracleLuca(Tosca):
    """The module of a row's true task predicts, over all classes seen.

    The test set knows the tasks: rows added after a task was observed are rows of that task, as the protocol adds them,
    unless `add` names another. `scores` cannot know the tasks of its rows, and refuses.
    """

    name = "oracle-luca"
    what = "TOSCA's modules under an oracle that names the true task: what perfect routing would give."
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


def held_out(labels: Tensor, seed: int) -> Tensor:
    """Which rows are for validation, [n] of bool: every fifth of each class in random order, none of a class below five."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    for c in labels.unique().tolist():
        rows = torch.nonzero(labels == c)[:, 0]
        order = numpy_generator(seed, "validation", c).permutation(len(rows))
        held[rows[torch.from_numpy(order[: len(rows) // VALIDATION])]] = True
    return held


def logistic(
    x: FloatArray, labels: IntArray, classes: int, c: float, *, tolerance: float = 1e-7
) -> tuple[FloatArray, FloatArray]:
    """W [d, C] and b [C] of min mean CE(x W + b) + c/2 |W|^2, for rows [n, d] of all C classes, by scikit-learn."""
    from sklearn.linear_model import LogisticRegression

    if classes == 1:  # nothing to tell apart
        return np.zeros((x.shape[1], 1)), np.zeros(1)
    # Of two classes it has one vector w for W = (-w/2, w/2), so that |W|^2 is |w|^2 / 2.
    strength = (2 if classes == 2 else 1) / (c * len(x))
    model = LogisticRegression(C=strength, tol=tolerance, max_iter=STEPS).fit(x, labels)
    weight, bias = model.coef_.T, model.intercept_
    if classes == 2:
        return np.concatenate([-weight, weight], 1) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias
