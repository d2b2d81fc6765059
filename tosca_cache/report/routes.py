"""Tables of routers and of what batch routing leaks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import isfinite

from rich.table import Table

from tosca_cache.report.tables import table, with_spread

Spread = tuple[float, float]
COLUMNS = {
    "last_accuracy": "last accuracy",
    "task_identification_accuracy": "task found",
    "accuracy_given_right_task": "given task",
    "without_modules": "no modules",
}


def routers_table(
    routers: Mapping[str, Mapping[str, Spread]], oracle: Spread, seeds: int, rehearsal: Collection[str] = ()
) -> Table:
    """Every router over the same modules, best first, and the true task's module as their bound.

    Arguments:
        routers: mean and spread of each number of each router. rehearsal: those that keep train rows, to be starred.
    """
    rows = []
    for name, values in sorted(routers.items(), key=lambda item: -item[1]["last_accuracy"][0]):
        cells = (with_spread(*values[key]) if isfinite(values[key][0]) else "" for key in COLUMNS)
        rows.append([name + ("*" if name in rehearsal else ""), *cells, f"{values['seconds'][0]:.2f}"])
    rows.append(["(the true task's module)", with_spread(*oracle), "100.00", with_spread(*oracle), "", ""])
    caption = "no modules: last accuracy of what the router's own classifiers answer."
    caption += " * keeps train rows (rehearsal)." if set(rehearsal) & set(routers) else ""
    title = f"same modules behind each router, percent, {seeds} seed{'s' if seeds > 1 else ''}"
    return table(title, ["router", *COLUMNS.values(), "seconds"], rows, caption)


def leak_table(conditions: Mapping[str, Spread], sizes: tuple[int, ...]) -> Table:
    """Last accuracy by the size of the batch that votes together, shuffled and in file order."""
    alone = with_spread(*conditions["per_sample"])
    rows = [["1 (per sample, least entropy)", alone, alone]]
    for size in sizes:
        rows.append([str(size), *(with_spread(*conditions[f"batch_{size}_{o}"]) for o in ("shuffled", "in_order"))])
    title = "last accuracy of the same modules, chosen by least mean entropy of a batch"
    columns = ["test rows voted together", "shuffled", "in file order (leaks the task)"]
    return table(title, columns, rows, f"With the true task's module: {with_spread(*conditions['oracle'])}.")
