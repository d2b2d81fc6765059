"""Routing by whole test batches, and by the true task: here to measure a leak and a bound, never to be a default.

The reference takes the mean entropy over a batch of 48 consecutive test rows, and its test rows come class by class: the
batch votes on its own task, so the order of the test file gives the task away (methods.md 16.5).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating]

LEAKS = "leaks the task through the order of the test file"


def batch_modules(entropy: FloatArray, batch_size: int, order: IntArray | None = None) -> IntArray:
    """One module for every batch of consecutive rows: the least mean entropy over the batch.

    Arguments:
        entropy: [T, n] in file order.
        batch_size: rows a batch; the last one may be short.
        order: the order in which rows are batched, [n]; file order if None.

    Returns:
        Module of every row, in file order, [n].
    """
    rows = entropy.shape[1]
    order = np.arange(rows) if order is None else order
    modules = np.empty(rows, dtype=np.int64)
    for start in range(0, rows, batch_size):
        batch = order[start : start + batch_size]
        modules[batch] = entropy[:, batch].mean(1).argmin()
    return modules


def pick(prediction: IntArray, modules: IntArray) -> IntArray:
    """The prediction of the chosen module for each row: [T, n] and [n] to [n]."""
    return np.take_along_axis(prediction, modules[None], axis=0)[0]


def audit(
    entropy: FloatArray, prediction: IntArray, labels: IntArray, tasks: IntArray, *, batch_size: int, seed: int
) -> dict[str, float]:
    """Accuracy (percent) of the same modules under the four conditions of reference/tosca.md, "Inference after task t".

    Arguments:
        entropy, prediction: of every module for every test row, [T, n], rows in file order (class by class).
        labels: true classes, [n].
        tasks: true task of every row, [n].
        batch_size: rows a batch of the two batch conditions.
        seed: of the shuffled order.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    modules = {
        "per_sample": entropy.argmin(0),
        "batch_shuffled": batch_modules(entropy, batch_size, shuffled),
        "batch_in_order": batch_modules(entropy, batch_size),
        "oracle": tasks,
    }
    return {name: 100 * float((pick(prediction, chosen) == labels).mean()) for name, chosen in modules.items()}
