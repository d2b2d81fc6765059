"""Tables of published values: all that are known, and ours beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from tosca_cache.report.tables import with_spread

MEASURES = {
    "last_accuracy": "A_T",
    "average_accuracy": "A-bar",
    "last_accuracy_over_tasks": "A_T, mean over tasks",
    "average_accuracy_over_tasks": "A-bar, means over tasks",
    "forgetting": "forgetting",
    "accuracy_curve": "A_1 .. A_T",
}


def beside_table(entries: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Ours, published and the difference; of a curve, the task where they differ most. Sources stand below, by number."""
    table = Table("dataset", "learner", "measure", title=title)
    for column in ("ours", "published", "difference"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("source")
    sources = _sources(entries)
    for entry in entries:
        ours, published, measure = entry["ours"], entry["published"], MEASURES[entry["measure"]]
        if isinstance(published, list):
            task = max(range(len(ours)), key=lambda t: abs(ours[t] - published[t]))
            measure, ours, published = f"worst of A_1 to A_{len(ours)}: A_{task + 1}", ours[task], published[task]
        table.add_row(
            entry["dataset"],
            entry["method"],
            measure,
            with_spread(ours, entry["ours_spread"]),
            with_spread(published, entry["published_spread"]),
            f"{entry['difference']:+.2f}",
            Text(f"[{sources.index(_source(entry)) + 1}]"),
        )
    table.caption = Text("\n".join(f"[{number}] {source}" for number, source in enumerate(sources, 1)))
    table.caption_justify = "left"
    return table


def _sources(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(_source(entry) for entry in entries))


def _source(entry: Mapping[str, Any]) -> str:
    return entry["source"] + (f" ({entry['note']})" if entry["note"] else "")


def papers_table(papers: Sequence[Any], learners: Sequence[str]) -> Table:
    """All published values that are known, by paper and source; learners that are not registered are marked."""
    table = Table("dataset", "learner", "protocol", "published", title="published values")
    for paper in papers:
        table.add_row(Text(f"--paper {paper.name}", style="bold"))
        for one in paper.expectations:
            shown = [
                f"{MEASURES[name]} {value:.2f}" for name, value in one.values.items() if not isinstance(value, list)
            ]
            missing = "" if one.method in learners else " (not registered)"
            sizes = f"increment {one.increment}" + ("" if one.init_cls is None else f", first {one.init_cls}")
            sizes = f"tasks of {', '.join(map(str, one.task_sizes))}" if one.task_sizes else sizes
            order = ", an order of its own" if one.class_order else "" if one.shuffle else ", in order"
            seeds = f", {len(one.seeds)} seeds" if len(one.seeds) > 1 else ""
            table.add_row(one.dataset, one.method + missing, f"{sizes}{order}{seeds}", ", ".join(shown))
        table.add_section()
    table.caption = Text("\n".join(f"{paper.name}: {source}" for paper in papers for source in _all_sources(paper)))
    table.caption_justify = "left"
    return table


def _all_sources(paper: Any) -> list[str]:
    return list(dict.fromkeys(one.source for one in paper.expectations))
