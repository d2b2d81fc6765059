"""Runs learners over task streams and fills R: one alone, or several of one class side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import ToscaWarning
from tosca_cache.evaluate.metrics import accuracy_by_task, accuracy_curve
from tosca_cache.evaluate.summary import summarise
from tosca_cache.learners.base import IntArray, Learner, Prediction, TestSet
from tosca_cache.shown import Shown
from tosca_cache.tasks import TaskStream
from tosca_cache.train.loop import EpochDone

ROUNDING = 1e-9  # of percent
TaskDone = Callable[[int, NDArray[np.float64]], None]


@dataclass(repr=False)
class Outcome(Shown):
    """What one pass over a stream gives.

    Classes are as the stream reports them (`TaskStream.class_of`): where tasks are domains, a right class is right in
    whichever domain it was found.

    R: accuracy matrix [T, T] in percent, NaN above the diagonal.
    labels, tasks, rows: true class, true task and store row of every test row, in file order, [n].
    predictions: after every task, on the test rows of all tasks seen.
    counts: test rows of each task, [T].
    seconds: `train` and `evaluate`.
    test_set: the test rows after the last task.
    """

    R: NDArray[np.float64]
    labels: IntArray
    tasks: IntArray
    rows: IntArray
    counts: IntArray
    test_set: TestSet
    predictions: list[Prediction] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "evaluate": 0.0})

    def metrics(self, *, few_shot: bool) -> dict[str, float]:
        """All metrics after the last task, percent; see `evaluate.summary.summarise`."""
        last = self.predictions[-1]
        modules = last.tasks if last.modules is None else last.modules
        assert modules is not None
        return summarise(self.R, self.counts, last.labels, modules, self.labels, self.tasks, few_shot=few_shot)

    def facts(self) -> dict[str, Any]:
        """How far it is."""
        return {"tasks": len(self.R), "evaluated": len(self.predictions), "test": len(self.labels)}


def below_chance(learner: Learner, stream: TaskStream, outcome: Outcome) -> str | None:
    """After which task a learner was right less often than one that draws a class, in words and as a `ToscaWarning`."""
    curve = accuracy_curve(outcome.R, outcome.counts)
    for number, accuracy in enumerate(curve):
        classes = len(np.unique(stream.class_of[: stream.classes(number).stop]))
        if accuracy < 100 / classes - ROUNDING:
            chance = f"less than by chance ({100 / classes:.2f} %)"
            said = f"after task {number + 1} of {len(curve)}, {accuracy:.2f} % of test rows were answered rightly, {chance}"
            warnings.warn(f"{learner.name}, seed {learner.seed}: {said}", ToscaWarning, stacklevel=3)
            return said
    return None


def run_protocol(
    learner: Learner,
    stream: TaskStream,
    *,
    on_task: TaskDone | None = None,
    on_epoch: Callable[[int, int], None] | None = None,
    curve: bool = True,
) -> Outcome:
    """Observes every task in turn and evaluates on the test rows of all tasks seen after each.

    Arguments:
        curve: if false, evaluates after the last task only: the other rows of R are NaN, and `on_task` is not called.
        on_task: called with the task's number and its row of R, [number + 1].
        on_epoch: called with task and epoch numbers while training.
    """
    one = _Pass(learner, stream)
    for number in range(len(stream)):
        _learn([one], number, on_epoch=None if on_epoch is None else partial(on_epoch, number))
        if curve or number == len(stream) - 1:
            row = one.evaluate(number)
            if curve and on_task is not None:
                on_task(number, row)
    return one.outcome


def run_protocols(
    methods: Sequence[Learner], streams: Sequence[TaskStream], *, on_task: Callable[[int], None] | None = None
) -> list[Outcome]:
    """Several learners of one class side by side, each over its own stream; each is evaluated alone.

    Each is told to have trained for its share of the seconds that all took together.

    Arguments:
        methods: of one class, at least one.
        streams: as many, of the same number of tasks.
        on_task: called with the number of each task that all have learned and been evaluated on.
    """
    passes = [_Pass(learner, stream) for learner, stream in zip(methods, streams, strict=True)]
    for number in range(len(streams[0])):
        _learn(passes, number)
        for one in passes:
            one.evaluate(number)
        if on_task is not None:
            on_task(number)
    return [one.outcome for one in passes]


def _learn(passes: Sequence[_Pass], number: int, on_epoch: EpochDone | None = None) -> None:
    """A task of each; its rows are let go before anything is evaluated."""
    learners, tasks = [one.learner for one in passes], [one.stream.task(number) for one in passes]
    start = perf_counter()
    if len(learners) == 1:
        learners[0].observe(tasks[0], on_epoch=on_epoch)
    else:
        type(learners[0]).observe_together(learners, tasks)
    for learner in learners:
        learner.finalize()
    seconds = (perf_counter() - start) / len(passes)
    for one in passes:
        one.outcome.seconds["train"] += seconds


class _Pass:
    """One learner on its way through a stream. outcome: what came of it so far. added: tasks whose test rows it has."""

    def __init__(self, learner: Learner, stream: TaskStream) -> None:
        self.learner, self.stream = learner, stream.seen_by(learner.pieces)
        self.added = 0  # tasks whose test rows are asked about
        labels, rows = zip(*(stream.test_index(number) for number in range(len(stream))), strict=True)
        counts = np.array([len(part) for part in rows])
        self.outcome = Outcome(
            R=np.full((len(stream), len(stream)), np.nan),
            labels=stream.class_of[np.concatenate(labels)],
            tasks=np.repeat(np.arange(len(stream)), counts),
            rows=np.concatenate(rows),
            counts=counts,
            test_set=learner.test_set(),
        )

    def evaluate(self, number: int) -> NDArray[np.float64]:
        """Fills the row of R of the task that was learned last, and returns it, [number + 1]."""
        start, outcome = perf_counter(), self.outcome
        outcome.test_set.classes = self.stream.classes(number).stop
        for added in range(self.added, number + 1):
            outcome.test_set.add(self.stream.test(added).features)
        self.added = number + 1
        prediction = outcome.test_set.predict().reported(self.stream)
        n = len(prediction.labels)
        row = accuracy_by_task(prediction.labels, outcome.labels[:n], outcome.tasks[:n], number + 1)
        outcome.R[number, : number + 1] = row
        outcome.predictions.append(prediction)
        outcome.seconds["evaluate"] += perf_counter() - start
        return row
