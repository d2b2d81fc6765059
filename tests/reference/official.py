"""What a learner is compared with: plain float64 code written from the published formulas, on the same rows.

Each tests/reference/official_*.py has a table `COMPARED`: {name of a learner: comparisons}. The plain functions there
import nothing from the package; what ours computes is named beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from reference.gaussian import make_arrays

from tosca_cache.config import Settings
from tosca_cache.learners import LEARNERS
from tosca_cache.seeds import derive_seed, numpy_generator
from tosca_cache.tasks import Arrays, TaskStream
from tosca_cache.train.batches import epoch_batches

CLASSES, DIM, VIEWS = 6, 8, 3
COUNTS = {"balanced": [12] * CLASSES, "unbalanced": [3, 17, 9, 1, 12, 6]}
TOLD = {"oracle-luca"}
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

    def after_each_task(self):
        """(rows, labels) of each task so far, and the rows asked about in float64."""
        for task in range(len(self.x)):
            parts = list(zip(self.x[: task + 1], self.labels[: task + 1], strict=True))
            yield parts, self.asked(task + 1).astype(np.float64)

    def ask(self, learner, tasks):
        """Scores of the test rows of the first tasks, by the test set of a learner that is told their task."""
        if learner.name not in TOLD:
            return learner.scores(self.asked(tasks))
        test_set = learner.test_set()
        for t in range(tasks):
            test_set.add(self.stream.test(t).features, task=t)
        return test_set.scores()

    def batches(self, number, settings=QUICK):
        """Rows and views of every training step of a task: the one random choice that plain training takes over."""
        n, views, _ = self.stream.task(number).train.features.shape
        plan = {"epochs": settings.epochs, "batch_size": settings.batch_size, "seed": self.seed, "task": number}
        return epoch_batches(n, views - 1, **plan)

    def rows_at_start(self, kind, number):
        """Rows of a head for the classes of a task, as they are drawn: {name: [classes, ...]}, float64."""
        drawn = kind.rows(DIM, len(self.classes[number]), self.seed, number)
        return {name: t[0].double() for name, t in drawn.items()}

    def module_at_start(self, kind):
        """What all classes share, as it is drawn: {name: [...]}, float64."""
        return {name: t[0].double() for name, t in kind.module(DIM, QUICK, self.seed).items()}

    def noise(self, *names):
        """The generator that a learner draws from under these names."""
        return torch.Generator().manual_seed(derive_seed(self.seed, *names))

    def numbers(self, *names):
        """The same for numpy."""
        return numpy_generator(self.seed, *names)

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


class Learned(NamedTuple):
    """A learner that has just learned a task. state: its tensors, [...], float64. scores: of all test rows so far."""

    state: dict[str, np.ndarray]
    scores: np.ndarray


@cache
def history(case, name, options=()):
    """What a learner has learned, and how it scores, after each task of a case; learned once."""
    learner, found = case.learner(name, **dict(options)), []
    for task in case.stream:
        learner.observe(task)
        scores = case.ask(learner, task.number + 1)
        found.append(Learned({key: t.numpy().astype(np.float64) for key, t in learner.state().items()}, scores))
    return found


@dataclass(frozen=True)
class Scores:
    """What a learner of the package says of all test rows so far, after each task: the `ours` of a `Comparison`."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, case):
        return [learned.scores for learned in history(case, self.name, tuple(self.options.items()))]


def from_state(plain, name, **options):
    """The `plain` of a `Comparison` that goes on from what was learned: plain(case, task number, state)."""
    learned = lambda case: history(case, name, tuple(options.items()))  # noqa: E731
    return lambda case: [plain(case, number, one.state) for number, one in enumerate(learned(case))]


def joined(parts):
    return np.concatenate([x for x, _ in parts]), np.concatenate([labels for _, labels in parts])


def compared(name, scores, *, same=lambda scores: scores, atol=1e-6, **options):
    """`scores` of (parts, rows asked, the learner's classifier before any row) against what the learner says.

    parts: (x [n, d], labels [n]) of each task so far. same: what has to be the same of both, a function of scores [n, C].
    """

    def plain(case):
        fresh = getattr(case.learner(name, **options), "classifier", None)
        return [same(scores(parts, asked, fresh)) for parts, asked in case.after_each_task()]

    ours = Scores(name, options)
    return Comparison(plain, lambda case: [same(found) for found in ours(case)], classes=True, atol=atol)
