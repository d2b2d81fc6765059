"""Tables of published numbers: those of one protocol side by side, all papers, and ours beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from tosca_cache.report.compare import FROZEN, OVER_TASKS, Comparison, numbered, published_lines, to_table
from tosca_cache.report.tables import table, with_spread

MEASURES = {
    "last_accuracy": "A_T",
    "average_accuracy": "A-bar",
    **OVER_TASKS,
    "forgetting": "forgetting",
    "accuracy_curve": "A_1 .. A_T",
}
SHOWN = tuple(name for name in MEASURES if name not in ("forgetting", "accuracy_curve"))
LEAK = "†"
CAPTION = (
    f"{LEAK} routed by batches in file order, which leaks the task: not to be held against answers of single samples"
)


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row as text: learner, its values, backbone, when it was adapted, and where it stands."""
    values = [row["values"].get(name) for name in SHOWN]
    shown = ["" if one is None else with_spread(one["mean"], one["spread"]) for one in values]
    name = row["method"] + (LEAK if row["routing"] else "")
    about = "; ".join(filter(None, [row["source"], row["kind"], row["features"], row["note"]]))
    return [name, *shown, row["backbone"], "" if row["adapted"] == FROZEN else row["adapted"], about]


def published_tables(protocols: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[Group]:
    """For the terminal, a table a protocol; backbones and sources stand below it, by number."""
    shown = []
    for name, beside in protocols:
        columns, notes = [measure for measure in SHOWN if any(measure in row["values"] for row in beside)], list[str]()
        found = Comparison(name, columns, published_lines(beside, columns, notes), notes)
        shown.append(Group(to_table(found), Text("\n".join([*notes, ""]))))
    return shown


def beside_table(entries: Sequence[Mapping[str, Any]], title: str) -> Group:
    """Ours, published and the difference; of a curve, the task where they differ most. Sources stand below, by number."""
    sources, rows = list[str](), []
    for entry in entries:
        ours, published, measure = entry["ours"], entry["published"], MEASURES[entry["measure"]]
        if isinstance(published, list):
            task = max(range(len(ours)), key=lambda t: abs(ours[t] - published[t]))
            measure, ours, published = f"worst of A_1 to A_{len(ours)}: A_{task + 1}", ours[task], published[task]
        both = with_spread(ours, entry["ours_spread"]), with_spread(published, entry["published_spread"])
        source = numbered(entry["source"] + (f" ({entry['note']})" if entry["note"] else ""), sources)
        rows.append([f"{entry['dataset']}, {entry['method']}", measure, *both, f"{entry['difference']:+.2f}", source])
    made = table(title, ["dataset, learner", "measure", "ours", "published", "difference", "source"], rows, left=2)
    return Group(made, Text("\n".join(sources)))


def implied_text(dataset: str, value: float, gaps: Sequence[tuple[float, Any]], near: float) -> str:
    """The nearest known accuracies of class means, and what they were measured on, in lines."""
    fit = [one for gap, one in gaps if abs(gap) <= near]
    lines = [f"{dataset}: class means with a last accuracy of {value:g}"]
    if not fit:
        lines.append(f"  nothing known is within {near} points: other features, another split, or another learner")
    known: dict[str, list[str]] = {}
    for gap, one in gaps:
        if not fit or one in fit:
            what = f"  {one.value:.2f} ({gap:+.2f}): {one.backbone}, {one.features or 'transform not stated'}"
            known.setdefault(what, []).append("; ".join(filter(None, [one.method, one.source, one.note])))
    for what, sources in known.items():
        lines += [what, *(f"      {source}" for source in sources)]
    return "\n".join(lines)
