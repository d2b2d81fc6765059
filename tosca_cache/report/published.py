"""Tables of published numbers: those of one protocol side by side, and what one of them says of its features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tosca_cache.report.compare import FROZEN
from tosca_cache.report.reproduce import MEASURES
from tosca_cache.report.tables import with_spread

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
        measures = [measure for measure in SHOWN if any(measure in row["values"] for row in beside)]
        table = Table("learner", title=Text(name))
        for measure in measures:
            table.add_column(MEASURES[measure], justify="right", no_wrap=True)
        sources: list[str] = []
        for row in beside:
            learner, *values, backbone, adapted, about = cells(row)
            said = "; ".join(filter(None, [backbone, adapted and f"adapted: {adapted}", about]))
            if said not in sources:
                sources.append(said)
            kept = [value for measure, value in zip(SHOWN, values, strict=True) if measure in measures]
            table.add_row(Text(f"{learner} [{sources.index(said) + 1}]"), *kept)
        notes = [f"[{number}] {said}" for number, said in enumerate(sources, 1)]
        leaks = [CAPTION] if any(row["routing"] for row in beside) else []
        shown.append(Group(table, Text("\n".join([*notes, *leaks, ""]))))
    return shown


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
