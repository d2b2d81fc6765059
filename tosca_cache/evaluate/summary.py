"""Every metric of one pass over a task stream, by its full name."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tosca_cache.evaluate import metrics

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
T = TypeVar("T")


def summarise(
    R: FloatArray,
    counts: IntArray,
    prediction: IntArray,
    modules: IntArray,
    labels: IntArray,
    tasks: IntArray,
    *,
    few_shot: bool = False,
) -> dict[str, float]:
    """Metrics (percent) from the accuracy matrix and the predictions after the last task.

    Arguments:
        R: accuracy matrix, [T, T].
        counts: test rows of each task, [T].
        prediction, modules: predicted class and answering module of each test row, [n].
        labels, tasks: the true ones, [n].
        few_shot: whether tasks after the first have a few rows of each class, so that their metrics belong to it.
    """
    few = {"performance_drop": metrics.performance_drop(R, counts), "harmonic_mean": metrics.harmonic_mean(R, counts)}
    return {
        "average_accuracy": metrics.average_accuracy(R, counts),
        "last_accuracy": metrics.last_accuracy(R, counts),
        "average_accuracy_over_tasks": metrics.average_accuracy(R, counts, weigh="tasks"),
        "last_accuracy_over_tasks": metrics.last_accuracy(R, counts, weigh="tasks"),
        "forgetting": metrics.forgetting(R),
        "backward_transfer": metrics.backward_transfer(R),
        "task_identification_accuracy": metrics.task_identification_accuracy(modules, tasks),
        "accuracy_given_right_task": metrics.accuracy_given_right_task(prediction, labels, modules, tasks),
        **(few if few_shot else {}),
    }


def mean_and_spread(values: list[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and sample standard deviation (NaN for one seed) of each metric over seeds."""
    mean = {name: float(np.mean([v[name] for v in values])) for name in values[0]}
    if len(values) == 1:
        return mean, {name: float("nan") for name in mean}
    return mean, {name: float(np.std([v[name] for v in values], ddof=1)) for name in mean}


def to_json(value: T) -> T:
    """Plain JSON values; NaN (a metric that is not defined, or an entry above R's diagonal) becomes null."""
    plain: Any = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    if isinstance(plain, dict):
        plain = {str(name): to_json(item) for name, item in plain.items()}
    elif isinstance(plain, list | tuple):
        plain = [to_json(item) for item in plain]
    elif isinstance(plain, float) and not np.isfinite(plain):
        plain = None
    return cast(T, plain)
