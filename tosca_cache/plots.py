"""Charts of Vega-Altair for notebooks: what `plot()` of runs, sweeps, comparisons and stores gives.

Altair is loaded when a chart is asked for. Charts are made from plain rows; names are only ever values of a field, which
stand in the chart as JSON without angle brackets: Altair writes charts into a script of the notebook's page as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from typing import Any

from tosca_cache.errors import UsageError

# Okabe and Ito's colours, safe for the colour-blind; dark enough on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444b52", "#7a5cc4")
SHAPES = ("circle", "square", "triangle-up", "diamond")  # of what has the same colour
Row = Mapping[str, Any]


def needed(package: str, what: str) -> Any:
    """A package of the extra `notebook`; raises `UsageError` if it is not installed."""
    if find_spec(package) is None:
        remedy = "pip install 'tosca-cache[notebook]'"
        raise UsageError(f"{what} needs the package {package}", where=what, remedy=remedy)
    return import_module(package)


def altair() -> Any:
    """The package Altair; raises `UsageError` if it is not installed."""
    return needed("altair", "plot()")


def curves(rows: Sequence[Row], title: str) -> Any:
    """Lines over tasks. rows: name, task (from 1), accuracy (percent) and, where known, spread (its standard deviation)."""
    alt, known = altair(), _with_ends(rows, "accuracy")
    base = _chart(known).encode(x=alt.X("task", type="ordinal", title="tasks learned", axis=alt.Axis(labelAngle=0)))
    y = alt.Y("accuracy", type="quantitative", title="accuracy (%)", scale=alt.Scale(zero=False))
    lines = base.mark_line(point=True).encode(y=y, color=_colour("name"), tooltip=_tips(known, ".2f"))
    ends = {"y": alt.Y("low", type="quantitative"), "y2": alt.Y2("high")}
    band = base.mark_area(opacity=0.15).encode(**ends, color=_colour("name"))
    return (band + lines if any("low" in row for row in known) else lines).properties(title=title, width=320)


def matrix(R: Sequence[Sequence[float | None]]) -> Any:
    """The accuracy matrix R [T, T] as a heat map with its values; what is None or NaN is left out."""
    alt = altair()
    cells = [
        {"after": i + 1, "task": j + 1, "accuracy": float(value)}
        for i, row in enumerate(R)
        for j, value in enumerate(row)
        if value is not None and isfinite(value)
    ]
    base = _chart(cells).encode(
        x=alt.X("task", type="ordinal", title="test rows of task", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("after", type="ordinal", title="after task"),
    )
    colour = alt.Color("accuracy", type="quantitative", title="accuracy (%)", scale=alt.Scale(scheme="cividis"))
    shown = base.mark_rect().encode(color=colour, tooltip=_tips(cells, ".2f"))
    if len(R) > 15:
        return shown.properties(title="accuracy matrix")
    middle = (max(c["accuracy"] for c in cells) + min(c["accuracy"] for c in cells)) / 2 if cells else 0.0
    ink = alt.condition(f"datum.accuracy > {middle}", alt.value("#000"), alt.value("#fff"))
    text = base.mark_text().encode(text=alt.Text("accuracy", type="quantitative", format=".0f"), color=ink)
    return (shown + text).properties(title="accuracy matrix")


def intervals(rows: Sequence[Row], title: str, x_title: str) -> Any:
    """Points with one standard deviation on both sides. rows: name, value, group and, where known, spread; best on top."""
    alt, known = altair(), _with_ends(rows, "value")
    y = alt.Y("name", type="nominal", sort=_as_given(), title=None, axis=alt.Axis(labelLimit=400))
    base = _chart(known).encode(y=y)
    x = alt.X("value", type="quantitative", title=x_title, scale=alt.Scale(zero=False))
    points = base.mark_point(filled=True, size=70).encode(x=x, color=_colour("group"), tooltip=_tips(known, ".2f"))
    ends = {"x": alt.X("low", type="quantitative", title=x_title), "x2": alt.X2("high")}
    return (base.mark_rule().encode(**ends) + points).properties(title=title)


def points(
    rows: Sequence[Row], title: str, x: str, y: str, group: str, *, log: bool = False, bare: bool = False
) -> Any:
    """A scatter that can be moved and zoomed. x, y, group: fields of the rows; all others show under the pointer.

    log: the axis of x is logarithmic. bare: axes without numbers, which mean nothing.
    """
    alt = altair()
    axis = alt.Axis(labels=False, ticks=False, grid=False, title=None) if bare else alt.Undefined
    scale = alt.Scale(type="log") if log else alt.Scale(zero=False)
    shown = [{k: v for k, v in row.items() if not (bare and k in (x, y))} for row in rows]
    shapes = alt.Scale(range=[shape for shape in SHAPES for _ in COLOURS])
    return (
        _chart(rows)
        .mark_point(filled=True, size=25 if len(rows) > 200 else 60)
        .encode(
            x=alt.X(x, type="quantitative", title=x.replace("_", " "), scale=scale, axis=axis),
            y=alt.Y(y, type="quantitative", title=y.replace("_", " "), scale=alt.Scale(zero=False), axis=axis),
            color=_colour(group),
            shape=alt.Shape(group, type="nominal", title=None, scale=shapes, sort=_as_given()),
            tooltip=_tips(shown, ".6~g"),
        )
        .properties(title=title, width=420, height=320)
        .interactive()
    )


def beside(*charts: Any) -> Any:
    """Charts side by side, each with its own colours."""
    return altair().hconcat(*charts).resolve_scale(color="independent")


def _with_ends(rows: Sequence[Row], key: str) -> list[dict[str, Any]]:
    """Rows whose value is known, with `low` and `high` where its spread is."""
    found = []
    for row in rows:
        if row[key] is not None and isfinite(row[key]):
            s = row.get("spread")
            known = s is not None and isfinite(s)
            ends = {"low": row[key] - s, "high": row[key] + s} if known else {}
            found.append({k: v for k, v in row.items() if known or k != "spread"} | ends)
    return found


def _chart(rows: Sequence[Row]) -> Any:
    """A chart of rows, which get a field `place`: their order."""
    alt = altair()
    text = json.dumps([{**row, "place": n} for n, row in enumerate(rows)], allow_nan=False)
    text = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return alt.Chart(alt.InlineData(values=text, format=alt.JsonDataFormat(type="json")))


def _as_given() -> Any:
    """Values of a field in the order in which they come first."""
    return altair().EncodingSortField(field="place", op="min")


def _colour(field: str) -> Any:
    alt = altair()
    scale = alt.Scale(range=list(COLOURS))
    return alt.Color(field, type="nominal", title=None, scale=scale, sort=_as_given())


def _tips(rows: Sequence[Row], form: str) -> list[Any]:
    alt = altair()
    kinds = {key: isinstance(value, float) for row in rows for key, value in row.items()}
    return [
        alt.Tooltip(key, type="quantitative", format=form) if number else alt.Tooltip(key, type="nominal")
        for key, number in kinds.items()
    ]
