"""Charts of Vega-Altair for notebooks: what `plot()` of runs, sweeps, comparisons and stores gives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from typing import Any

from tosca_cache.errors import UsageError

# Okabe and Ito's colours, safe for the colour-blind; dark enough on white.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444b52", "#7a5cc4"]


def needed(package: str, what: str) -> Any:
    """A package of the extra `notebook`, which is loaded now; raises `UsageError` if it is not installed."""
    if find_spec(package) is None:
        remedy = "pip install 'tosca-cache[notebook]'"
        raise UsageError(f"{what} needs the package {package}", where=what, remedy=remedy)
    return import_module(package)


def chart(rows: Sequence[Mapping[str, Any]], title: str, mark: str, x: str, y: str, color: str, error: str = "") -> Any:
    """Plain rows as an Altair chart; all their fields show under the pointer.

    Numbers that are None or not finite are left out of their rows. Names are only ever values of a field, which stand in
    the chart as JSON without angle brackets: Altair writes charts into a script of the notebook's page as they are.

    Arguments:
        mark: of Vega-Lite. x, y, color: fields of the rows with their types, such as `task:O`. error: half the length of
            a bar along x.
    """
    alt = needed("altair", "plot()")
    known = [{k: v for k, v in row.items() if not _unknown(v)} for row in rows]
    text = json.dumps(known, allow_nan=False)
    text = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    data = alt.InlineData(values=text, format=alt.JsonDataFormat(type="json"))
    axes = [
        kind(field, scale=alt.Scale(zero=False)) if field.endswith(":Q") else kind(field, sort=None)
        for kind, field in ((alt.X, x), (alt.Y, y))
    ]
    base = alt.Chart(data, mark=mark).encode(*axes, color=color)
    shown = base.encode(tooltip=[f"{key}:N" for key in dict.fromkeys(key for row in known for key in row)])
    if error:
        shown += base.mark_errorbar().encode(xError=error)
    return (
        (shown.interactive() if x.endswith(":Q") else shown).properties(title=title).configure_range(category=COLOURS)
    )


def curves(curves: Mapping[str, Sequence[float | None]], title: str) -> Any:
    """Lines of accuracy (percent) after each task, by name."""
    rows = [
        {"name": name, "task": t + 1, "accuracy": value}
        for name, curve in curves.items()
        for t, value in enumerate(curve)
        if not _unknown(value)
    ]
    return chart(rows, title, "line", "task:O", "accuracy:Q", "name:N")


def _unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not isfinite(value))
