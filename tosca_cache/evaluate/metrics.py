"""Metrics as pure functions of the accuracy matrix R and the test counts (methods.md 17.2).

R[i, j] is the accuracy (percent) after task i on the test rows of task j, all classes seen being candidates; entries above
the diagonal are NaN. `counts[j]` is the number of test rows of task j.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def accuracy_by_task(prediction: IntArray, labels: IntArray, tasks: IntArray, seen: int) -> FloatArray:
    """Accuracy (percent) on the rows of each of the `seen` tasks, [seen]: one row of R."""
    right = np.bincount(tasks, weights=prediction == labels, minlength=seen)
    return 100 * right / np.bincount(tasks, minlength=seen)


def accuracy_curve(R: ArrayLike, counts: ArrayLike, *, weigh: str = "samples") -> FloatArray:
    """A_i after every task, [T]: over all test rows seen so far (`samples`), or the plain mean over tasks (`tasks`)."""
    R, counts = np.asarray(R, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    weights = counts if weigh == "samples" else np.ones_like(counts)
    return np.array([np.average(R[i, : i + 1], weights=weights[: i + 1]) for i in range(len(R))])


def average_accuracy(R: ArrayLike, counts: ArrayLike, *, weigh: str = "samples") -> float:
    """A-bar: the mean of A_1 ... A_T."""
    return float(accuracy_curve(R, counts, weigh=weigh).mean())


def last_accuracy(R: ArrayLike, counts: ArrayLike, *, weigh: str = "samples") -> float:
    """A_T: accuracy after the last task."""
    return float(accuracy_curve(R, counts, weigh=weigh)[-1])


def forgetting(R: ArrayLike) -> float:
    """F = 1/(T-1) sum_{j<T} (max_{i in j..T-1} R[i, j] - R[T, j]); NaN for one task."""
    R = np.asarray(R, dtype=np.float64)
    T = len(R)
    if T < 2:
        return float("nan")
    return float(np.mean([R[j : T - 1, j].max() - R[T - 1, j] for j in range(T - 1)]))


def backward_transfer(R: ArrayLike) -> float:
    """BWT = 1/(T-1) sum_{j<T} (R[T, j] - R[j, j]); NaN for one task."""
    R = np.asarray(R, dtype=np.float64)
    T = len(R)
    if T < 2:
        return float("nan")
    return float(np.mean([R[T - 1, j] - R[j, j] for j in range(T - 1)]))


def task_identification_accuracy(modules: IntArray, tasks: IntArray) -> float:
    """Share (percent) of test rows answered by the module of their own task."""
    return 100 * float((modules == tasks).mean())


def accuracy_given_right_task(prediction: IntArray, labels: IntArray, modules: IntArray, tasks: IntArray) -> float:
    """Accuracy (percent) on the rows whose task was identified; NaN if there is none."""
    right = modules == tasks
    return 100 * float((prediction[right] == labels[right]).mean()) if right.any() else float("nan")
