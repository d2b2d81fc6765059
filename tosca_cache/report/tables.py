"""Tables for the terminal, those of a run first, and what words and numbers in them look like."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from rich.table import Table

METRICS = {
    "average_accuracy": "average accuracy",
    "last_accuracy": "last accuracy",
    "forgetting": "forgetting",
    "task_identification_accuracy": "task-identification accuracy",
    "accuracy_given_right_task": "accuracy given the right task",
    "performance_drop": "performance drop",
    "harmonic_mean": "harmonic mean of first and later classes",
}
CONDITIONS = {
    "per_sample": "per sample, least entropy",
    "batch_shuffled": "batch, shuffled",
    "batch_in_order": "batch, in file order (leaks the task)",
    "oracle": "oracle: the true task's module",
    "nearest_class_mean": "no modules: nearest class mean",
    "lda": "no modules: LDA",
    "pool": "no modules: opinion pool",
}
STAGES = {
    "extract": "stage one: extract (once; kept in the store)",
    "read_store": "read the store",
    "compile": "compile the training kernels (once a machine)",
    "train": "stage two: train",
    "evaluate": "stage two: route and evaluate",
    "audit": "audit of routing conditions",
    "closed_forms": "classifiers without modules",
}


def learner_words(metrics: Mapping[str, Any]) -> str:
    """The learner of a run and its router, labelled wherever it is printed if it leaks the task."""
    router = f", router {metrics['router']}" if metrics.get("router") else ""
    return f"{metrics['method']}{router}{' (leaks the task)' if metrics.get('leaks') else ''}"


def tasks_words(metrics: Mapping[str, Any]) -> str:
    """How many tasks a run has, what they are, and whether the backbone was adapted on the first one."""
    return f"{len(metrics['R'])} {'domains, one a task' if of_domains(metrics) else 'tasks'}{features_words(metrics)}"


def features_words(found: Mapping[str, Any]) -> str:
    """What tells results on adapted features from those on frozen ones; empty for these."""
    features = found.get("features")
    return "" if features in (None, "frozen") else f", {features}"


def of_domains(metrics: Mapping[str, Any]) -> bool:
    """Whether each task of a run is a domain."""
    return metrics.get("incremental") == "domains"


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", *, left: int = 1
) -> Table:
    """A table whose first columns (`left` of them) have names, and whose others have numbers, which are never broken."""
    made = Table(title=title, caption=caption or None)
    for n, column in enumerate(columns):
        made.add_column(column, justify="left" if n < left else "right", overflow="fold", no_wrap=n >= left)
    for row in rows:
        made.add_row(*row)
    return made


def run_tables(metrics: Mapping[str, Any]) -> list[Table]:
    """Metrics with their spread over seeds, accuracy by task, the same modules under each routing condition, seconds."""
    seeds, caption = ", ".join(metrics["seeds"]), ""
    if metrics.get("diverged"):
        caption = f"DIVERGED: seed {', '.join(metrics['diverged'])}; these numbers mean nothing."
    elif metrics.get("leaks"):
        caption = f"Not comparable with per-sample routing: batch routing {metrics['leaks']}."
    title = f"{metrics['dataset']}: {tasks_words(metrics)}, {learner_words(metrics)}, seed {seeds}"
    values = [(text, metrics[name], metrics["spread"].get(name)) for name, text in METRICS.items() if name in metrics]
    last, spread = metrics["last_accuracy_by_condition"], metrics["last_accuracy_by_condition_spread"]
    conditions = [(text, v, spread.get(key)) for key, text in CONDITIONS.items() if (v := last.get(key)) is not None]
    size = f", batches of {metrics['routing_batch_size']}" if metrics.get("router") else ""
    seconds = [(text, f"{metrics['seconds'][key]:.2f}") for key, text in STAGES.items() if key in metrics["seconds"]]
    return [
        table(title, ["metric", "percent"], [(text, with_spread(*value)) for text, *value in values], caption),
        _last_row(metrics),
        table(
            f"last accuracy, same features{size}",
            ["routing" if size else "classifier", "percent"],
            [(text, with_spread(*value)) for text, *value in conditions],
        ),
        table("seconds", ["stage", "seconds"], seconds),
    ]


def _last_row(metrics: Mapping[str, Any]) -> Table:
    """R's last row: accuracy on the test rows of every task after the last one, and what the task holds.

    What it holds are its domain or its classes by name, where all seeds have the same ones.
    """
    title, caption = "accuracy by task after the last task (last row of R)", ""
    title += f", {learner_words(metrics)}" if metrics.get("leaks") else ""
    values = ["-" if value is None else f"{value:.1f}" for value in metrics["R"][-1]]
    columns = {"task": [str(t + 1) for t in range(len(values))]}
    what = "domains" if of_domains(metrics) else "tasks"
    orders = [seed.get(what) for seed in metrics["seeds"].values()]
    if orders.count(orders[0]) < len(orders):
        caption = "each seed has an order of its own: metrics.json, seeds, tasks"
    elif orders[0] and what == "domains":
        columns["domain"] = list(map(str, orders[0]))
    elif orders[0]:
        columns["classes"] = [few_names(names) for names in orders[0]]
    columns["percent"] = values
    return table(title, list(columns), zip(*columns.values(), strict=True), caption, left=len(columns) - 1)


def few_names(names: Sequence[Any], most: int = 60) -> str:
    """The first of some names, whole, as far as they fit into so many characters, and how many more there are."""
    shown = [str(names[0])] if names else []
    for name in names[1:]:
        if len(", ".join([*shown, str(name)])) > most:
            return f"{', '.join(shown)} and {len(names) - len(shown)} more"
        shown.append(str(name))
    return ", ".join(shown)


def over_seeds(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and sample standard deviation of what is known, as far as they are."""
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.mean(known) if known else None,
        "spread": statistics.stdev(known) if len(known) > 1 else None,
    }


def with_spread(mean: float | None, spread: float | None) -> str:
    """A mean with its sample standard deviation over seeds, where there is one; None and NaN are not defined."""
    if mean is None or not isfinite(mean):
        return "not defined"
    return f"{mean:.2f}" if spread is None or not isfinite(spread) else f"{mean:.2f} ± {spread:.2f}"
