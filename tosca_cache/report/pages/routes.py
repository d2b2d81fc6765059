"""The part of what `tosca route --json` printed: the same modules behind several routers, and what batch votes leak."""

from __future__ import annotations

import re
import shlex

from tosca_cache.report.pages.blocks import (
    Block,
    Cell,
    Figure,
    Part,
    Table,
    Value,
    mean_cell,
    origin_facts,
    repeat_facts,
)
from tosca_cache.report.pages.charts import Series, lines
from tosca_cache.report.routes import COLUMNS
from tosca_cache.report.tables import over_seeds, with_spread

NONE: dict[str, float | None] = {"mean": None, "spread": None}


def routes_part(facts: Value) -> Part:
    """The part of routes; `found` of the facts is the list that the command printed."""
    found = facts["found"]
    names = dict.fromkeys(name for one in found for name in one.get("routers", {}))
    seeds = {name: [one["routers"][name] for one in found if name in one.get("routers", {})] for name in names}
    values = {
        name: {key: over_seeds([s.get(key) for s in known]) for key in (*COLUMNS, "seconds")}
        for name, known in seeds.items()
    }
    ordered = sorted(values, key=lambda name: -(values[name]["last_accuracy"]["mean"] or 0.0))
    conditions = {key: over_seeds([one["conditions"].get(key) for one in found]) for key in found[0]["conditions"]}
    best = with_spread(**values[ordered[0]]["last_accuracy"]) if ordered else "none"
    numbers = [
        (f"best router: {ordered[0]}" if ordered else "routers", best),
        ("with the true task's module", with_spread(**conditions.get("oracle", NONE))),
        ("per sample, least entropy", with_spread(**conditions.get("per_sample", NONE))),
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
            [name, *(mean_cell(**values[name][key]) for key in COLUMNS), values[name]["seconds"]["mean"]]
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
    sections = [("Routers", blocks), ("Provenance", provenance)]
    return Part(facts["name"], "Routes", about, numbers, warnings, sections)


def _leak(conditions: dict[str, dict[str, float | None]]) -> list[Figure]:
    sizes = sorted({int(m[1]) for key in conditions if (m := re.fullmatch(r"batch_(\d+)_in_order", key))})
    if not sizes:
        return []
    series = []
    for order, name in (("shuffled", "shuffled"), ("in_order", "in file order: leaks the task")):
        found = [conditions["per_sample"], *(conditions.get(f"batch_{size}_{order}", NONE) for size in sizes)]
        series.append(Series(name, range(len(found)), [v["mean"] for v in found], [v["spread"] for v in found]))
    reads = (
        "Last accuracy when so many test rows vote on one module: where file order wins over shuffled rows, the vote has "
        "read the order of the test file."
    )
    names, x_title = [str(size) for size in (1, *sizes)], "test rows that vote together"
    title = "What batch votes leak"
    return [lines(title, reads, series, x_title, "last accuracy (%)", says=reads, x_names=names)]
