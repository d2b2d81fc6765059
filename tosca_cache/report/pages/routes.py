"""The part of what `tosca route --json` printed: the same modules behind several routers, and what batch votes leak."""

from __future__ import annotations

import re
from statistics import mean, stdev

from tosca_cache.report.pages.blocks import Block, Cell, Figure, Part, Section, Table, Value, with_spread
from tosca_cache.report.pages.charts import Series, legend, lines
from tosca_cache.report.routes import COLUMNS


def routes_part(facts: Value) -> Part:
    """The part of routes; `found` of the facts is the list that the command printed."""
    found = facts["found"]
    routers = {
        name: [one["routers"][name] for one in found if name in one.get("routers", {})]
        for one in found
        for name in one.get("routers", {})
    }
    values = {
        name: {key: _spread([s.get(key) for s in seeds]) for key in (*COLUMNS, "seconds")}
        for name, seeds in routers.items()
    }
    ordered = sorted(values, key=lambda name: -(values[name]["last_accuracy"][0] or 0.0))
    conditions = {key: _spread([one["conditions"].get(key) for one in found]) for key in found[0]["conditions"]}
    numbers = [
        (
            f"best router: {ordered[0]}" if ordered else "routers",
            with_spread(*values[ordered[0]]["last_accuracy"]) if ordered else "none",
        ),
        ("with the true task's module", with_spread(*conditions.get("oracle", (None, None)))),
        ("per sample, least entropy", with_spread(*conditions.get("per_sample", (None, None)))),
    ]
    about: list[tuple[str, Cell]] = [
        ("runs", ", ".join(sorted({one["run"] for one in found}))),
        ("seeds", ", ".join(str(one["seed"]) for one in found)),
    ]
    warnings = (
        ["Batch votes in file order leak the task; they stand here to show how much, and are no result."]
        if conditions
        else []
    )
    blocks: list[Block] = []
    if ordered:
        rows: list[list[Cell]] = [
            [
                name,
                *(values[name][key][0] for key in COLUMNS),
                values[name]["last_accuracy"][1],
                values[name]["seconds"][0],
            ]
            for name in ordered
        ]
        reads = "The same modules behind each router, best first; no modules: what the router's own classifiers answer."
        blocks.append(
            Table("Routers", reads, ["router", *COLUMNS.values(), "spread of last accuracy", "seconds"], rows)
        )
    blocks += _leak(conditions)
    return Part(facts["name"], "Routes", about, numbers, warnings, [Section("Routers", blocks)])


def _spread(values: list[float | None]) -> tuple[float | None, float | None]:
    known = [v for v in values if v is not None]
    return (mean(known) if known else None, stdev(known) if len(known) > 1 else None)


def _leak(conditions: dict[str, tuple[float | None, float | None]]) -> list[Figure]:
    sizes = sorted({int(m[1]) for key in conditions if (m := re.fullmatch(r"batch_(\d+)_in_order", key))})
    if not sizes:
        return []
    x = range(len(sizes) + 1)
    series = []
    for order, name in (("shuffled", "shuffled"), ("in_order", "in file order: leaks the task")):
        found = [conditions["per_sample"], *(conditions.get(f"batch_{size}_{order}", (None, None)) for size in sizes)]
        series.append(Series(name, list(x), [v for v, _ in found], [s for _, s in found]))
    rows: list[list[Cell]] = [[size, *(one.y[n] for one in series)] for n, size in enumerate((1, *sizes))]
    steps = ", ".join(map(str, sizes))
    reads = f"Last accuracy when so many test rows vote on one module: 0 is one row alone, then {steps} rows."
    chart = lines("What batch votes leak", reads, series, "batch size, in steps", "last accuracy (%)")
    numbers = Table("", "", ["rows that vote", *(one.name for one in series)], rows)
    return [Figure("What batch votes leak", reads, chart + legend([one.name for one in series]), numbers)]
