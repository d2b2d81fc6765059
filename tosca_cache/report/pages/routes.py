"""The part of what `tosca route --json` printed: the same modules behind several routers, and what batch votes leak."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

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
from tosca_cache.report.routes import COLUMNS, Numbers, conditions_of, routers_of
from tosca_cache.report.tables import with_spread


def routes_part(facts: Value) -> Part:
    """The part of routes; `found` of the facts is the list that the command printed."""
    found = facts["found"]
    routers, (conditions, sizes) = routers_of(found), conditions_of(found)
    rows = [[name, *(mean_cell(**n[key]) for key in COLUMNS), n["seconds"]["mean"]] for name, n in routers]
    said = {"oracle": "with the true task's module", "per_sample": "per sample, least entropy"}
    matter = [(f"best router: {name}", with_spread(**n["last_accuracy"])) for name, n in routers[:1]]
    matter += [(text, with_spread(**conditions[key])) for key, text in said.items() if key in conditions]
    runs = sorted({one["run"] for one in found})
    about: list[tuple[str, Cell]] = [("runs", ", ".join(runs)), ("seeds", ", ".join(str(one["seed"]) for one in found))]
    leak = "Batch votes in file order leak the task; they stand here to show how much, and are no result."
    reads = "The same modules behind each router, best first; no modules: what the router's own classifiers answer."
    columns = ["router", *COLUMNS.values(), "seconds"]
    shown: list[Block] = [Table("Routers", reads, columns, rows, wide=True)] if rows else []
    repeat = [(run, f"tosca route {shlex.quote(run)} --json") for run in runs]
    provenance: list[Block] = [origin_facts(facts.get("made") or {}), repeat_facts(repeat)]
    sections = [("Routers", [*shown, *_leak(conditions, sizes)]), ("Provenance", provenance)]
    return Part(facts["name"], "Routes", about, matter, [leak] if conditions else [], sections)


def _leak(conditions: Numbers, sizes: Sequence[int]) -> list[Figure]:
    """Last accuracy by the number of rows that vote together, shuffled and in file order."""
    series = []
    for order, name in (("shuffled", "shuffled"), ("in_order", "in file order: leaks the task")):
        found = [conditions["per_sample"], *(conditions[f"batch_{size}_{order}"] for size in sizes)] if sizes else []
        series.append(Series(name, range(len(found)), [v["mean"] for v in found], [v["spread"] for v in found]))
    reads = (
        "Last accuracy when so many test rows vote on one module: where file order wins over shuffled rows, the vote has "
        "read the order of the test file."
    )
    names, x_title = [str(size) for size in (1, *sizes)], "test rows that vote together"
    return [lines("What batch votes leak", reads, series, x_title, "last accuracy (%)", x_names=names)] if sizes else []
