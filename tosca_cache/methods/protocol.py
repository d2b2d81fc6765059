"""Runs one method over one task stream and fills R."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from tosca_cache.evaluate.metrics import accuracy_by_task
from tosca_cache.methods.base import IntArray, Method, Prediction, Watch
from tosca_cache.tasks import TaskStream

TaskDone = Callable[[int, NDArray[np.float64]], None]


@dataclass
class Outcome:
    """What one pass over a stream gives.

    Classes are as the stream reports them (`TaskStream.class_of`): where tasks are domains, a right class is right in
    whichever domain it was found.

    R: accuracy matrix [T, T] in percent, NaN above the diagonal.
    labels, tasks, rows: true class, true task and store row of every test row, in file order, [n].
    predictions: after every task, on the test rows of all tasks seen.
    counts: test rows of each task, [T].
    seconds: `train` and `evaluate`.
    watch: the watched test rows after the last task.
    """

    R: NDArray[np.float64]
    labels: IntArray
    tasks: IntArray
    rows: IntArray
    counts: IntArray
    watch: Watch
    predictions: list[Prediction] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "evaluate": 0.0})


def run_protocol(
    method: Method,
    stream: TaskStream,
    *,
    on_task: TaskDone | None = None,
    on_epoch: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Observes every task in turn and evaluates on the test rows of all tasks seen after each.

    Arguments:
        on_task: called with the task's number and its row of R, [number + 1].
        on_epoch: called with task and epoch numbers while training.
    """
    T = len(stream)
    tests = [stream.test(number) for number in range(T)]
    counts = np.array([len(test) for test in tests])
    outcome = Outcome(
        R=np.full((T, T), np.nan),
        labels=stream.class_of[np.concatenate([test.labels for test in tests])],
        tasks=np.repeat(np.arange(T), counts),
        rows=np.concatenate([test.index for test in tests]),
        counts=counts,
        watch=method.watch(),
    )
    for task in stream:
        start = perf_counter()
        method.observe(task, on_epoch=None if on_epoch is None else _bind(on_epoch, task.number))
        trained = perf_counter()
        outcome.watch.add(tests[task.number].features[:, 0])
        learned = outcome.watch.predict()
        prediction = Prediction(stream.class_of[learned.labels], learned.modules)
        n = len(prediction.labels)
        row = accuracy_by_task(prediction.labels, outcome.labels[:n], outcome.tasks[:n], task.number + 1)
        outcome.R[task.number, : task.number + 1] = row
        outcome.predictions.append(prediction)
        outcome.seconds["train"] += trained - start
        outcome.seconds["evaluate"] += perf_counter() - trained
        if on_task is not None:
            on_task(task.number, row)
    return outcome


def _bind(on_epoch: Callable[[int, int], None], task: int) -> Callable[[int], None]:
    return lambda epoch: on_epoch(task, epoch)
