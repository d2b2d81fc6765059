"""The part of what `tosca route --json` printed: the same modules behind several routers, and what batch votes leak."""

from __future__ import annotations

import re
import shlex
from statistics import mean, stdev

from tosca_cache.report.pages.blocks import Block, Cell, Figure, Part, Section, Table, Value, mean_cell
from tosca_cache.report.pages.charts import Series, legend, lines
from tosca_cache.report.pages.provenance import origin_facts, repeat_facts
from tosca_cache.report.routes import COLUMNS
from tosca_cache.report.tables import with_spread


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
                *(mean_cell(*values[name][key]) for key in COLUMNS),
                values[name]["seconds"][0],
            ]
            for name in ordered
        ]
        reads = (
            "The same modules behind each router, best first, ± one standard deviation over the seeds; no modules: what "
            "the router's own classifiers answer."
        )
        blocks.append(Table("Routers", reads, ["router", *COLUMNS.values(), "seconds"], rows, wide=True))
    blocks += _leak(conditions)
    runs = sorted({one["run"] for one in found})
    repeat = [(run, f"tosca route {shlex.quote(run)} --json") for run in runs]
    provenance: list[Block] = [origin_facts(facts.get("made") or {}), repeat_facts(repeat)]
    sections = [Section("Routers", blocks), Section("Provenance", provenance)]
    return Part(facts["name"], "Routes", about, numbers, warnings, sections)


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
    reads = (
        "Last accuracy when so many test rows vote on one module: where file order wins over shuffled rows, the vote has "
        "read the order of the test file."
    )
    names = [str(size) for size in (1, *sizes)]
    chart = lines("What batch votes leak", reads, series, "test rows that vote together", "last accuracy (%)", names)
    numbers = Table("", "", ["rows that vote", *(one.name for one in series)], rows)
    return [Figure("What batch votes leak", reads, chart + legend([one.name for one in series]), numbers)]
