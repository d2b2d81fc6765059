"""What a learner is compared with: plain float64 code written from the published formulas, on the same rows.

Each tests/reference/official_*.py has a table `COMPARED`: {name of a learner: comparisons}. The plain functions there
import nothing from the package; what ours computes is named beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from reference.gaussian import make_arrays

from tosca_cache.config import Settings
from tosca_cache.learners import LEARNERS
from tosca_cache.tasks import Arrays, TaskStream

CLASSES, DIM, VIEWS = 6, 8, 3
COUNTS = {"balanced": [12] * CLASSES, "unbalanced": [3, 17, 9, 1, 12, 6]}
QUICK = Settings(epochs=3, batch_size=8, mlp_ratio=2, se_ratio=2, lr=0.1)


@dataclass(frozen=True)
class Case:
    """Three tasks of two classes each, with one seed of features, class order and learner.

    x: clean train rows of each task, float64, [n, d] each. labels: [n] each. classes: of each task.
    """

    kind: str
    seed: int

    @cached_property
    def stream(self):
        return self.made()

    def made(self, change=lambda features: features):
        """The stream, of features that have been changed."""
        generator = np.random.default_rng(self.seed)
        means = 1 + generator.normal(size=(CLASSES, DIM))
        train = make_arrays(generator, COUNTS[self.kind], DIM, VIEWS, means, noise=0.8)
        test = make_arrays(generator, [7] * CLASSES, DIM, 1, means, noise=0.8)
        train, test = (Arrays(change(part.features), part.labels) for part in (train, test))
        names = [str(c) for c in range(CLASSES)]
        return TaskStream(train, test, class_names=names, increment=2, seed=self.seed)

    @property
    def classes(self):
        return [task.classes for task in self.stream]

    @property
    def x(self):
        return [task.train.features[:, 0].astype(np.float64) for task in self.stream]

    @property
    def labels(self):
        return [task.train.labels for task in self.stream]

    def asked(self, tasks):
        """Clean test rows of the first tasks, [n, d], as stored (float32)."""
        return np.concatenate([self.stream.test(t).features[:, 0] for t in range(tasks)])

    def learner(self, name, **options):
        return LEARNERS[name](**{"seed": self.seed, "settings": QUICK} | options)


CASES = [Case(kind, seed) for kind in COUNTS for seed in (1, 2, 3)]


@dataclass(frozen=True)
class Comparison:
    """Two functions of a `Case` that give arrays, one after another, which have to be the same.

    plain: from the published formulas. ours: of the package.
    classes: whether the arrays are scores, whose largest entry in a row has to be the same class.
    """

    plain: Callable[[Case], list[np.ndarray]]
    ours: Callable[[Case], list[np.ndarray]]
    classes: bool = False
    rtol: float = 1e-5
    atol: float = 1e-6


@dataclass(frozen=True)
class Scores:
    """Scores of a learner for all test rows seen, after each task."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, case):
        learner, found = case.learner(self.name, **self.options), []
        for task in case.stream:
            learner.observe(task)
            found.append(learner.scores(case.asked(task.number + 1)))
        return found


def learned(case, name, **options):
    """A learner after each task of a case: yields (learner, task) as the task has just been learned."""
    learner = case.learner(name, **options)
    for task in case.stream:
        learner.observe(task)
        yield learner, task
