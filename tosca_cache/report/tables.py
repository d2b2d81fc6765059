"""Tables of a run for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
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


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """The metrics of a run, with their spread over seeds where there are several."""
    seeds = ", ".join(metrics["seeds"])
    table = Table(title=f"{metrics['dataset']}: {tasks_words(metrics)}, {learner_words(metrics)}, seed {seeds}")
    table.add_column("metric")
    table.add_column("percent", justify="right")
    for name, title in METRICS.items():
        if name in metrics:  # those of few-shot streams are not in all runs
            table.add_row(title, with_spread(metrics[name], metrics["spread"].get(name)))
    if metrics.get("diverged"):
        table.caption = f"DIVERGED: seed {', '.join(metrics['diverged'])}; these numbers mean nothing."
    elif metrics.get("leaks"):
        table.caption = f"Not comparable with per-sample routing: batch routing {metrics['leaks']}."
    return table


def conditions_table(metrics: Mapping[str, Any]) -> Table:
    """Last accuracy of the same modules under each routing condition, and of classifiers of the same features."""
    size = f", batches of {metrics['routing_batch_size']}" if metrics.get("router") else ""
    table = Table(title=f"last accuracy, same features{size}")
    table.add_column("routing" if size else "classifier")
    table.add_column("percent", justify="right")
    spread = metrics["last_accuracy_by_condition_spread"]
    for name, title in CONDITIONS.items():
        if (value := metrics["last_accuracy_by_condition"].get(name)) is not None:
            table.add_row(title, with_spread(value, spread.get(name)))
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
    """R's last row: accuracy on the test rows of every task after the last one, and what the task holds.

    What it holds are its domain or its classes by name, where all seeds have the same ones.
    """
    title = "accuracy by task after the last task (last row of R)"
    table = Table(title=f"{title}, {learner_words(metrics)}" if metrics.get("leaks") else title)
    row, held = metrics["R"][-1], _held(metrics)
    for name in ("task", *(held or {}), "percent"):
        table.add_column(name, justify="right" if name == "percent" else "left", overflow="fold")
    for t, value in enumerate(row):
        table.add_row(
            str(t + 1), *(words[t] for words in (held or {}).values()), "-" if value is None else f"{value:.1f}"
        )
    if held is None:
        table.caption = "each seed has an order of its own: metrics.json, seeds, tasks"
    return table


def _held(metrics: Mapping[str, Any]) -> dict[str, list[str]] | None:
    """{what: in words, for each task}; empty for runs that do not say it, None if it differs between seeds."""
    found: list[dict[str, list[str]]] = []
    for seed in metrics["seeds"].values():
        words = {"domain": list(map(str, seed["domains"]))} if seed.get("domains") else {}
        if not words and seed.get("tasks"):
            words = {"classes": [few_names(names) for names in seed["tasks"]]}
        found.append({what: each for what, each in words.items() if len(each) == len(metrics["R"])})
    return found[0] if all(each == found[0] for each in found) else None


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
