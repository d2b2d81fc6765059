"""What `tosca route` found of some seeds, over these: routers, and what batch routing leaks; as tables for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.table import Table

from tosca_cache.report.tables import over_seeds, table, with_spread

COLUMNS = {
    "last_accuracy": "last accuracy",
    "task_identification_accuracy": "task found",
    "accuracy_given_right_task": "given task",
    "without_modules": "no modules",
}
Found = Sequence[Mapping[str, Any]]  # a seed each, as the command prints them: run, seed, routers, conditions
Numbers = Mapping[str, Mapping[str, float | None]]  # mean and spread, by name


def routers_of(found: Found) -> list[tuple[str, Numbers]]:
    """The numbers of each router over the seeds, the best last accuracy first."""
    routers = []
    for name in dict.fromkeys(name for one in found for name in one.get("routers", {})):
        seeds = [one["routers"][name] for one in found if name in one.get("routers", {})]
        routers.append((name, {key: over_seeds([seed.get(key) for seed in seeds]) for key in (*COLUMNS, "seconds")}))
    return sorted(routers, key=lambda router: -(router[1]["last_accuracy"]["mean"] or 0.0))


def conditions_of(found: Found) -> tuple[Numbers, list[int]]:
    """Last accuracy under each routing condition over the seeds, and the sizes of the batches that vote."""
    conditions = {key: over_seeds([one["conditions"].get(key) for one in found]) for key in found[0]["conditions"]}
    return conditions, sorted(int(key.split("_")[1]) for key in conditions if key.endswith("_in_order"))


def route_tables(found: Found, rehearsal: Collection[str] = ()) -> list[Table]:
    """Every router over the same modules, and their last accuracy by the size of the batch that votes together.

    Arguments:
        rehearsal: routers that keep train rows, to be starred.
    """
    (conditions, sizes), routers = conditions_of(found), routers_of(found)
    oracle, rows = with_spread(**conditions["oracle"]), []
    for name, numbers in routers:
        cells = ("" if numbers[key]["mean"] is None else with_spread(**numbers[key]) for key in COLUMNS)
        rows.append([name + ("*" if name in rehearsal else ""), *cells, f"{numbers['seconds']['mean']:.2f}"])
    rows.append(["(the true task's module)", oracle, "100.00", oracle, "", ""])
    caption = "no modules: last accuracy of what the router's own classifiers answer."
    caption += " * keeps train rows (rehearsal)." if any(name in rehearsal for name, _ in routers) else ""
    title = f"same modules behind each router, percent, {len(found)} seed{'s' if len(found) > 1 else ''}"
    alone = with_spread(**conditions["per_sample"])
    votes = [["1 (per sample, least entropy)", alone, alone]]
    for size in sizes:
        votes.append([str(size), *(with_spread(**conditions[f"batch_{size}_{o}"]) for o in ("shuffled", "in_order"))])
    return [
        table(title, ["router", *COLUMNS.values(), "seconds"], rows, caption),
        table(
            "last accuracy of the same modules, chosen by least mean entropy of a batch",
            ["test rows voted together", "shuffled", "in file order (leaks the task)"],
            votes,
            f"With the true task's module: {oracle}.",
        ),
    ]
