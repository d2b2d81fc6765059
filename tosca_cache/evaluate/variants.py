"""Forgetting and transfer as other toolboxes define them, to compare with the figures that they print (docs/metrics.md).

`metrics.forgetting`, `metrics.backward_transfer` and `metrics.forward_transfer` are ours. All are in percent (Avalanche and
Continuum print fractions) and NaN for one task (Avalanche and Continuum print 0). Sums run over tasks 1 ... T.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from tosca_cache.evaluate.metrics import (
    FloatArray,
    as_matrix,
    backward_transfer,
    forgetting,
    mean_over_tasks,
    on_or_below_diagonal,
)

__all__ = [
    "FORGETTING",
    "backward_transfer_continuum",
    "backward_transfer_continuum_release",
    "forgetting_avalanche",
    "forgetting_by_definition",
    "forgetting_continuum",
    "forgetting_continuum_release",
    "forgetting_mammoth",
    "forgetting_pilot",
]


def _from_best(R: FloatArray, read: FloatArray) -> float:
    """1/(T-1) sum_{j<T} (max_i read[i, j] - R[T, j])."""
    return mean_over_tasks(read[:, :-1].max(0) - R[-1, :-1], R, slice(0, -1))


def forgetting_pilot(R: ArrayLike) -> float:
    """F = 1/(T-1) sum_{j<T} (max_{i in j..T} R[i, j] - R[T, j]).

    The maximum includes the last row, so that no term is negative: a task that gained by the last one counts as 0.
    LAMDA-PILOT, trainer.py, option print_forget.
    """
    matrix = as_matrix(R)
    return _from_best(matrix, np.where(on_or_below_diagonal(matrix), matrix, -np.inf))


def forgetting_mammoth(R: ArrayLike) -> float:
    """F = 1/(T-1) sum_{j<T} (max_{i in j-1..T} R[i, j] - R[T, j]).

    As PILOT's, but mammoth also tests task j just before it learns it (for forward transfer) and puts that accuracy into
    the same table, so that the maximum may come from there. Where R has NaN above its diagonal the two are equal.
    mammoth, utils/metrics.py forgetting, utils/training.py train.
    """
    matrix = as_matrix(R)
    read = np.where(on_or_below_diagonal(matrix), matrix, -np.inf)
    just_above = np.arange(len(matrix) - 1)
    untaught = matrix.diagonal(1)
    read[just_above, just_above + 1] = np.where(np.isnan(untaught), -np.inf, untaught)
    return _from_best(matrix, read)


def forgetting_avalanche(R: ArrayLike) -> float:
    """F = 1/(T-1) sum_{j<T} (R[j, j] - R[T, j]) = -BWT.

    From the accuracy when just learned, not from the best. Avalanche, evaluation/metrics/forgetting_bwt.py,
    StreamForgetting as it stands after the last task.
    """
    return -backward_transfer(R)


def forgetting_continuum(R: ArrayLike) -> float:
    """Chaudhry's eq. 3, as `metrics.forgetting`: Continuum's repository since c14e70f, continuum/metrics/metrics.py."""
    return forgetting(R)


def forgetting_continuum_release(R: ArrayLike) -> float:
    """F = 1/(T-1) sum_{j<T-1} (max_{i in j..T-2} R[i, j] - R[T, j]): Continuum 1.2.7, the last release.

    Its ranges end one early: task T-1 is left out of the sum, not of its divisor, and row T-1 out of the maximum (known
    as issues 281 and 291). NaN for one task, 0 for two.
    """
    matrix = as_matrix(R)
    T = len(matrix)
    if T < 3:
        return 0.0 if T == 2 else float("nan")
    before = np.where(on_or_below_diagonal(matrix), matrix, -np.inf)[: T - 2, : T - 2]
    terms = before.max(0) - matrix[-1, : T - 2]
    return mean_over_tasks(np.append(terms, 0.0), matrix, slice(0, -1))


def backward_transfer_continuum(R: ArrayLike) -> float:
    """BWT = 2/(T(T-1)) sum_{i>1} sum_{j<i} (R[i, j] - R[j, j]): over all later steps, not only the last.

    Diaz-Rodriguez et al., "Don't forget, there is more than forgetting", 2018; Continuum's repository since c14e70f.
    """
    return _over_pairs(as_matrix(R), gap=1)


def backward_transfer_continuum_release(R: ArrayLike) -> float:
    """BWT = 2/(T(T-1)) sum_{i>2} sum_{j<i-1} (R[i, j] - R[j, j]): Continuum 1.2.7, the last release.

    The step right after a task was learned is left out of the sum, not of its divisor.
    """
    return _over_pairs(as_matrix(R), gap=2)


def _over_pairs(R: FloatArray, gap: int) -> float:
    """Sum of R[i, j] - R[j, j] over i - j >= gap, divided by the number of pairs i > j of tasks that have test rows."""
    tested = ~np.isnan(R.diagonal())
    change = (R - R.diagonal())[:, tested]
    later = np.tril(np.ones(R.shape, dtype=bool), -1)[:, tested]
    summed = np.tril(np.ones(R.shape, dtype=bool), -gap)[:, tested]
    return float(change[summed].sum() / later.sum()) if later.any() else float("nan")


FORGETTING: dict[str, Callable[[ArrayLike], float]] = {
    "Chaudhry": forgetting,
    "PILOT": forgetting_pilot,
    "mammoth": forgetting_mammoth,
    "Avalanche": forgetting_avalanche,
    "Continuum": forgetting_continuum,
    "Continuum 1.2.7": forgetting_continuum_release,
}


def forgetting_by_definition(R: ArrayLike) -> dict[str, float]:
    """Forgetting (percent) under every definition, by the name of who uses it."""
    return {name: definition(R) for name, definition in FORGETTING.items()}
