"""Tables of a run for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from rich.table import Table

METRICS = {
    "average_accuracy": "average accuracy",
    "last_accuracy": "last accuracy",
    "forgetting": "forgetting",
    "task_identification_accuracy": "task-identification accuracy",
    "accuracy_given_right_task": "accuracy given the right task",
}
CONDITIONS = {
    "per_sample": "per sample, least entropy",
    "batch_shuffled": "batch, shuffled",
    "batch_in_order": "batch, in file order (leaks the task)",
    "oracle": "oracle: the true task's module",
    "nearest_class_mean": "nearest class mean, no modules",
}
STAGES = {
    "extract": "stage one: extract (once; kept in the store)",
    "read_store": "read the store",
    "compile": "compile the training kernels (once a machine)",
    "train": "stage two: train",
    "evaluate": "stage two: route and evaluate",
    "audit": "audit of routing conditions",
}


def router_name(metrics: Mapping[str, Any]) -> str:
    """The router of a run, labelled wherever it is printed if it leaks the task."""
    return f"{metrics['router']} (leaks the task)" if metrics.get("leaks") else str(metrics["router"])


def tasks_words(metrics: Mapping[str, Any]) -> str:
    """How many tasks a run has, and what they are."""
    return f"{len(metrics['R'])} {'domains, one a task' if of_domains(metrics) else 'tasks'}"


def of_domains(metrics: Mapping[str, Any]) -> bool:
    """Whether each task of a run is a domain."""
    return metrics.get("incremental") == "domains"


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """The metrics of a run, with their spread over seeds where there are several."""
    seeds = ", ".join(metrics["seeds"])
    table = Table(title=f"{metrics['dataset']}: {tasks_words(metrics)}, router {router_name(metrics)}, seed {seeds}")
    table.add_column("metric")
    table.add_column("percent", justify="right")
    for name, title in METRICS.items():
        table.add_row(title, with_spread(metrics[name], metrics["spread"][name]))
    if metrics.get("leaks"):
        table.caption = f"Not comparable with per-sample routing: batch routing {metrics['leaks']}."
    return table


def conditions_table(metrics: Mapping[str, Any]) -> Table:
    """Last accuracy of the same modules under each routing condition."""
    table = Table(title=f"last accuracy, same modules, batches of {metrics['routing_batch_size']}")
    table.add_column("routing")
    table.add_column("percent", justify="right")
    spread = metrics["last_accuracy_by_condition_spread"]
    for name, title in CONDITIONS.items():
        table.add_row(title, with_spread(metrics["last_accuracy_by_condition"][name], spread[name]))
    return table


def seconds_table(seconds: Mapping[str, float]) -> Table:
    """Seconds of each stage."""
    table = Table(title="seconds")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for name, title in STAGES.items():
        if name in seconds:
            table.add_row(title, f"{seconds[name]:.2f}")
    return table


def last_row_table(metrics: Mapping[str, Any]) -> Table:
    """R's last row: accuracy on the test rows of every task after the last one; domains of a single seed by their names."""
    title = "accuracy by task after the last task (last row of R)"
    table = Table(title=f"{title}, router {router_name(metrics)}" if metrics.get("leaks") else title)
    row = metrics["R"][-1]
    orders = [seed.get("domains") for seed in metrics["seeds"].values()]
    names = orders[0] if len(orders) == 1 and orders[0] else range(1, len(row) + 1)
    for name in names:
        table.add_column(str(name), justify="right")
    table.add_row(*("-" if value is None else f"{value:.1f}" for value in row))
    return table


def with_spread(value: float | None, spread: float | None) -> str:
    """A mean with its sample standard deviation over seeds, where there is one; None and NaN are not defined."""
    if value is None or not isfinite(value):
        return "not defined"
    return f"{value:.2f}" if spread is None or not isfinite(spread) else f"{value:.2f} ± {spread:.2f}"
