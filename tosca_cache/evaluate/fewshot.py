"""Metrics of few-shot class-incremental streams: base tasks with many rows, then tasks of a few shots (methods.md 8)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tosca_cache.evaluate.metrics import Weigh, accuracy_curve, as_matrix, weighted_accuracy

__all__ = [
    "base_and_new_accuracy",
    "harmonic_mean",
    "performance_drop",
]


def performance_drop(R: ArrayLike, counts: ArrayLike, *, weigh: Weigh = "samples") -> float:
    """PD = A_1 - A_T: what was lost from the base task to the last, in percentage points; 0 for one task.

    TEEN (2312.05229), which counts the base session as 0: PD = A_0 - A_last (methods.md 8).
    """
    curve = accuracy_curve(R, counts, weigh=weigh)
    return float(curve[0] - curve[-1])


def base_and_new_accuracy(
    R: ArrayLike, counts: ArrayLike, *, base: int = 1, after: int | None = None, weigh: Weigh = "samples"
) -> tuple[float, float]:
    """Accuracy (percent) after task `after` on the classes of the base tasks, and on all classes learned since.

    Arguments:
        R, counts: [T, T] and [T].
        base: number of base tasks.
        after: a task's number, counted from 0; the last if None.

    Returns:
        (base, new); new is NaN where only base tasks are learned.

    Raises:
        ValueError: there is no task `after`, or no base task.
    """
    matrix, counts = as_matrix(R), np.asarray(counts)
    learned = len(matrix) if after is None else after + 1
    if not 1 <= learned <= len(matrix) or base < 1:
        raise ValueError(f"after must name one of {len(matrix)} tasks, counted from 0, and base be at least 1")
    row = matrix[learned - 1, :learned]
    return (
        weighted_accuracy(row[:base], counts[: min(base, learned)], weigh=weigh),
        weighted_accuracy(row[base:], counts[base:learned], weigh=weigh),
    )


def harmonic_mean(
    R: ArrayLike, counts: ArrayLike, *, base: int = 1, after: int | None = None, weigh: Weigh = "samples"
) -> float:
    """HM = 2 a_base a_new / (a_base + a_new), percent: 0 if either is 0, NaN where only base tasks are learned.

    Arguments as for `base_and_new_accuracy`. TEEN (2312.05229), utils.py harm_mean: base against all later classes.
    """
    old, new = base_and_new_accuracy(R, counts, base=base, after=after, weigh=weigh)
    return 2 * old * new / (old + new) if old + new != 0 else 0.0
