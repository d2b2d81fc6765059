"""Metrics as pure functions of the accuracy matrix R, the test counts and the predictions (methods.md 17.2).

R[i, j] is the accuracy (percent) after task i on the test rows of task j, all classes seen being candidates; tasks count
from 0 here and from 1 in formulas. Entries above the diagonal are NaN unless tasks were tested before they were learned.
`counts[j]` is the number of test rows of task j. A task without test rows has a column of NaN and is left out of every
mean; any other NaN on or below the diagonal makes the metrics that read it NaN.

docs/metrics.md has worked examples, and what other toolboxes mean by the same words.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "accuracy_by_task",
    "accuracy_curve",
    "accuracy_given_right_task",
    "average_accuracy",
    "backward_transfer",
    "forgetting",
    "harmonic_mean",
    "last_accuracy",
    "performance_drop",
    "task_identification_accuracy",
    "weighted_accuracy",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Weigh = Literal["samples", "tasks"]

UNDEFINED = float("nan")


def as_matrix(R: ArrayLike) -> FloatArray:
    """R as float64, [T, T]; ValueError if it is not square or holds no task."""
    matrix = np.asarray(R, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"R must be a square matrix, a row and a column for every task, not of shape {matrix.shape}")
    return matrix


def on_or_below_diagonal(R: FloatArray) -> BoolArray:
    """Where R[i, j] was measured after task j was learned, [T, T]."""
    return np.tril(np.ones(R.shape, dtype=bool))


def mean_over_tasks(terms: FloatArray, R: FloatArray, tasks: slice) -> float:
    """Mean of the terms of those `tasks` that have test rows; NaN if there are none.

    Arguments:
        terms: one value for every task of `tasks`.
        R: [T, T].
    """
    tested: BoolArray = np.any(~np.isnan(R) & on_or_below_diagonal(R), axis=0)
    kept = terms[tested[tasks]]
    return float(kept.mean()) if len(kept) else UNDEFINED


def accuracy_by_task(prediction: IntArray, labels: IntArray, tasks: IntArray, seen: int) -> FloatArray:
    """Accuracy (percent) on the rows of each of the `seen` tasks, [seen]: one row of R; NaN for a task without rows."""
    right = np.bincount(tasks, weights=prediction == labels, minlength=seen)
    with np.errstate(invalid="ignore"):
        return 100 * right / np.bincount(tasks, minlength=seen)


def weighted_accuracy(accuracies: FloatArray, counts: ArrayLike, *, weigh: Weigh = "samples") -> float:
    """Accuracy over the rows of several tasks together (`samples`), or the plain mean of their accuracies (`tasks`).

    Arguments:
        accuracies: accuracy (percent) on the rows of each task, [k].
        counts: test rows of each task, [k]; tasks without rows are left out.

    Raises:
        ValueError: an unknown `weigh`, or counts of another length.
    """
    if weigh not in ("samples", "tasks"):
        raise ValueError(f'weigh must be "samples" or "tasks", not {weigh!r}')
    rows = np.asarray(counts, dtype=np.float64)
    if rows.shape != accuracies.shape:
        raise ValueError(f"counts must hold one number for each of {len(accuracies)} tasks, not shape {rows.shape}")
    tested = np.greater(rows, 0)
    if not tested.any():
        return UNDEFINED
    return float(np.average(accuracies[tested], weights=rows[tested] if weigh == "samples" else None))


def accuracy_curve(R: ArrayLike, counts: ArrayLike, *, weigh: Weigh = "samples") -> FloatArray:
    """A_i after every task, [T]: over all test rows seen so far (`samples`), or the plain mean over tasks (`tasks`).

    samples: A_i = sum_{j<=i} n_j R[i, j] / sum_{j<=i} n_j, what PILOT prints (rounded there to two decimals);
    tasks: A_i = 1/i sum_{j<=i} R[i, j], what RanPAC, mammoth and GEM report. Equal when all tasks have the same counts.
    """
    matrix, counts = as_matrix(R), np.asarray(counts)
    if counts.shape != matrix.shape[:1]:
        raise ValueError(f"counts must hold one number for each of {len(matrix)} tasks, not shape {counts.shape}")
    curve = [weighted_accuracy(row[: i + 1], counts[: i + 1], weigh=weigh) for i, row in enumerate(matrix)]
    return np.array(curve)


def average_accuracy(R: ArrayLike, counts: ArrayLike, *, weigh: Weigh = "samples") -> float:
    """A-bar = 1/T sum_i A_i: the mean of the accuracy curve (iCaRL's average incremental accuracy)."""
    return float(accuracy_curve(R, counts, weigh=weigh).mean())


def last_accuracy(R: ArrayLike, counts: ArrayLike, *, weigh: Weigh = "samples") -> float:
    """A_T: accuracy after the last task."""
    return float(accuracy_curve(R, counts, weigh=weigh)[-1])


def forgetting(R: ArrayLike) -> float:
    """F = 1/(T-1) sum_{j<T} (max_{i in j..T-1} R[i, j] - R[T, j]); NaN for one task.

    Chaudhry et al., "Riemannian Walk", ECCV 2018, eq. 3. A term is negative where the last task helped an earlier one.
    """
    matrix = as_matrix(R)
    before = np.where(on_or_below_diagonal(matrix), matrix, -np.inf)[:-1, :-1]
    return mean_over_tasks(before.max(0, initial=-np.inf) - matrix[-1, :-1], matrix, slice(0, -1))


def backward_transfer(R: ArrayLike) -> float:
    """BWT = 1/(T-1) sum_{j<T} (R[T, j] - R[j, j]); NaN for one task.

    Lopez-Paz and Ranzato, "Gradient Episodic Memory", NeurIPS 2017, section 2; the same in mammoth and Avalanche.
    """
    matrix = as_matrix(R)
    return mean_over_tasks(matrix[-1, :-1] - matrix.diagonal()[:-1], matrix, slice(0, -1))


def performance_drop(R: ArrayLike, counts: ArrayLike) -> float:
    """PD = A_1 - A_T: what was lost from the base task to the last, in percentage points; 0 for one task.

    TEEN (2312.05229), which counts the base session as 0: PD = A_0 - A_last (methods.md 8).
    """
    curve = accuracy_curve(R, counts)
    return float(curve[0] - curve[-1])


def harmonic_mean(R: ArrayLike, counts: ArrayLike) -> float:
    """HM = 2 a_base a_new / (a_base + a_new), percent, after the last task; 0 if either is 0, NaN for one task.

    a_base is the accuracy on the classes of the first task, a_new that on all later ones. TEEN (2312.05229), utils.py
    harm_mean.
    """
    last, rows = as_matrix(R)[-1], np.asarray(counts)
    old, new = weighted_accuracy(last[:1], rows[:1]), weighted_accuracy(last[1:], rows[1:])
    return 2 * old * new / (old + new) if old + new != 0 else 0.0


def share(mask: BoolArray) -> float:
    """Percent of rows that are true; NaN of no rows."""
    return 100 * float(mask.mean()) if len(mask) else UNDEFINED


def task_identification_accuracy(modules: IntArray, tasks: IntArray) -> float:
    """TIA = mean 1[module = task]: share (percent) of test rows answered by the module of their own task.

    Arguments:
        modules: answering module of each row, or where a method has no router the task of the predicted class, [n].
        tasks: true task of each row, [n].
    """
    return share(modules == tasks)


def accuracy_given_right_task(prediction: IntArray, labels: IntArray, modules: IntArray, tasks: IntArray) -> float:
    """P(class right | task right): accuracy (percent) on the rows whose task was identified; NaN if there is none.

    Where a wrong task cannot give the right class, accuracy = TIA * this (methods.md 17.2).
    """
    right = modules == tasks
    return share(prediction[right] == labels[right])
