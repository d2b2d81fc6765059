"""Joint bounds: learners that keep all rows and learn all tasks at once, from scratch (methods.md 17.1).

They are trained when they are asked or told to settle, on all rows seen so far; tasks in between cost nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tosca_cache.learners.base import FloatArray, Learner, register_learner
from tosca_cache.learners.tosca import Tosca
from tosca_cache.seeds import numpy_generator
from tosca_cache.tasks import Rows, Task
from tosca_cache.train.loop import EpochDone

GRID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # c, from the roundest problem to the flattest
UNCHECKED = 1e-3  # c where no class has rows to spare for a validation
VALIDATION = 5  # every fifth row of each class


class Joint(Learner):
    """Keeps the rows of all tasks. rows: [n, views, d]; labels: [n]; blocks: the classes of each task."""

    rehearsal = True
    bound = True
    learned = ("rows", "labels", "classes")
    on_cpu = learned

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.rows = torch.empty(0)
        self.labels = torch.empty(0, dtype=torch.int64)
        self.classes = 0

    def observe(self, task: Task, *, on_epoch: EpochDone | None = None) -> None:
        """Adds the rows of a task."""
        rows, labels = self.chosen_views(torch.from_numpy(task.train.features)), torch.from_numpy(task.train.labels)
        self.rows = torch.cat([self.rows.to(rows), rows]) if len(self.labels) else rows
        self.labels = torch.cat([self.labels, labels])
        self.classes = task.classes.stop
        self.changed()

    @abstractmethod
    def chosen_views(self, features: Tensor) -> Tensor:
        """The part of the features [n, views, d] that is kept."""


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
    agrees = "no official code: a bound, at a given c equal to the optimum of scikit-learn's LogisticRegression."

    def __init__(self, *, c: float | None = None, **common: Any) -> None:
        super().__init__(**common)
        self.c = c
        self.solution: Solution | None = None
        self.chosen = c

    def chosen_views(self, features: Tensor) -> Tensor:
        """The clean view, [n, 1, d]."""
        return features[:, :1]

    def changed(self) -> None:
        """Drops the solution."""
        self.solution = None

    def finalize(self) -> None:
        """Fits all rows seen, if that has not been done."""
        if self.solution is None:
            x = self.rows[:, 0].double().to(self.device)
            self.mean, self.std = x.mean(0), x.std(0, correction=0)
            self.std[self.std == 0] = 1
            self.solution = self._trained((x - self.mean) / self.std)

    def scores(self, features: FloatArray) -> FloatArray:
        """Logits, [n, C]."""
        self.finalize()
        assert self.solution is not None
        asked = torch.from_numpy(np.ascontiguousarray(features)).double().to(self.device)
        found: FloatArray = self.solution.logits((asked - self.mean) / self.std).cpu().numpy()
        return found

    def _trained(self, x: Tensor) -> Solution:
        labels = self.labels.to(self.device)
        self.chosen = self._choose(x, labels) if self.c is None else self.c
        return Logistic(x, labels, self.classes).solve(self.chosen)

    def _choose(self, x: Tensor, labels: Tensor) -> float:
        held = held_out(self.labels, self.seed).to(self.device)
        if not bool(held.any()):
            return UNCHECKED
        problem = Logistic(x[~held], labels[~held], self.classes)
        best, least, solution = UNCHECKED, float("inf"), None
        for c in GRID:
            solution = problem.solve(c, solution, tolerance=1e-4)
            loss = float(torch.nn.functional.cross_entropy(solution.logits(x[held]), labels[held]))
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

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)
        self.trained: Tosca | None = None

    def chosen_views(self, features: Tensor) -> Tensor:
        """All views."""
        return features

    def changed(self) -> None:
        """Drops the module."""
        self.trained = None

    def finalize(self) -> None:
        """Trains the module on all rows seen, if that has not been done."""
        if self.trained is None:
            self.trained = Tosca(self.settings, seed=self.seed, device=self.device, engine=self.engine)
            rows = Rows(self.rows.numpy(), self.labels.numpy(), np.arange(len(self.labels)))
            self.trained.observe(Task(0, range(self.classes), rows))

    def scores(self, features: FloatArray) -> FloatArray:
        """Logits of the module, [n, C]."""
        self.finalize()
        assert self.trained is not None
        return self.trained.scores(features)

    @property
    def trainable_parameters(self) -> int:
        """Module, head and scale."""
        return 0 if self.trained is None else self.trained.trainable_parameters


def held_out(labels: Tensor, seed: int) -> Tensor:
    """Which rows are for validation, [n] of bool: every fifth of each class in random order, none of a class below five."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    for c in labels.unique().tolist():
        rows = torch.nonzero(labels == c)[:, 0]
        order = numpy_generator(seed, "validation", c).permutation(len(rows))
        held[rows[torch.from_numpy(order[: len(rows) // VALIDATION])]] = True
    return held


TOLERANCE = 1e-5  # of the largest entry of the gradient
STEPS = 2000
MEMORY = 20


class Solution(NamedTuple):
    """weight [d, C] and bias [C]. gradient: largest entry of the gradient of the objective in them, by size."""

    weight: Tensor
    bias: Tensor
    gradient: float

    def logits(self, x: Tensor) -> Tensor:
        """x W + b, [n, C]."""
        return x @ self.weight + self.bias


class Logistic:
    """min over W, b of mean CE(x W + b, y) + c/2 |W|^2, for rows that stay the same and several c.

    Solved in coordinates in which the problem is rounder: along the principal directions of the rows, each divided by
    the root of its curvature s^2 / C + c. The optimum is the same; L-BFGS gets there in far fewer steps.

    Arguments:
        x: rows, [n, d]. labels: [n]. classes: C.
    """

    def __init__(self, x: Tensor, labels: Tensor, classes: int) -> None:
        self.x, self.labels, self.classes = x.double(), labels, classes
        moments, self.directions = torch.linalg.eigh(self.x.T @ self.x / len(x))
        self.moments = moments.clamp_min(0)

    def solve(self, c: float, start: Solution | None = None, *, tolerance: float = TOLERANCE) -> Solution:
        """The optimum for one c, from a solution for another c if given."""
        d, C = self.x.shape[1], self.classes
        scale = (self.moments / C + c).rsqrt().unsqueeze(1)  # [d, 1]
        z = self.x @ (self.directions * scale.T)
        parameters = z.new_zeros(d + 1, C)  # W = V (scale * parameters[:d]), b = the last row
        if start is not None:
            parameters[:d], parameters[d] = (self.directions.T @ start.weight) / scale, start.bias
        parameters.requires_grad_()
        optimizer = torch.optim.LBFGS(
            [parameters],
            max_iter=STEPS,
            max_eval=2 * STEPS,
            tolerance_grad=tolerance * float(scale.min().clamp_max(1)),
            tolerance_change=1e-14,
            history_size=MEMORY,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = z @ parameters[:d] + parameters[d]
            loss = F.cross_entropy(logits, self.labels) + c / 2 * (scale * parameters[:d]).square().sum()
            loss.backward()
            return loss

        with torch.enable_grad():
            optimizer.step(closure)
        found = parameters.detach()
        weight, bias = self.directions @ (scale * found[:d]), found[d]
        return Solution(weight, bias, self.gradient(weight, bias, c))

    def gradient(self, weight: Tensor, bias: Tensor, c: float) -> float:
        """Largest entry of the gradient of the objective, by size."""
        wrong = (self.x @ weight + bias).softmax(1)
        wrong[torch.arange(len(wrong)), self.labels] -= 1
        inner = self.x.T @ wrong / len(wrong) + c * weight
        return max(float(inner.abs().max()), float(wrong.mean(0).abs().max()))
