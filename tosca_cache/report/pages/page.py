"""The page itself: parts from facts, one template, and the facts as JSON, to be had again."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from tosca_cache.report.pages.blocks import Part, Value
from tosca_cache.report.pages.comparisons import comparison_part
from tosca_cache.report.pages.routes import routes_part
from tosca_cache.report.pages.runs import run_part
from tosca_cache.report.pages.stores import store_part
from tosca_cache.report.pages.sweeps import sweep_part
from tosca_cache.text import html_text

PARTS: Mapping[str, Callable[[Value], Part]] = {
    "run": run_part,
    "sweep": sweep_part,
    "comparison": comparison_part,
    "routes": routes_part,
    "store": store_part,
}
_DATA = re.compile(r'<script type="application/json" id="tosca-data">(.*?)</script>', re.S)


def render(
    targets: Sequence[Value],
    photos: Mapping[str, str] | None = None,
    *,
    made: Value | None = None,
    refresh: int | None = None,
) -> str:
    """The page of some targets.

    Arguments:
        targets: facts with a `kind` of `PARTS`, plain JSON values.
        photos: data URIs by the keys that facts have for them.
        made: what made the page: its version and when.
        refresh: seconds after which the page loads itself again, while work goes on.
    """
    parts = [PARTS[target["kind"]](target) for target in targets]
    script = _asset("page.js")
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    found = _template().render(
        title=", ".join(part.title for part in parts[:3]) + (" …" if len(parts) > 3 else ""),
        parts=parts,
        style=Markup(_asset("page.css")),
        script=Markup(script),
        policy=policy,
        data=Markup(_embedded({"format": 1, **(made or {}), "targets": list(targets)})),
        photos=dict(photos or {}),
        made=made or {},
        refresh=refresh,
    )
    return found.replace("\r", "")


def extract(text: str) -> dict[str, Any]:
    """The numbers of a page, as they were given to it; raises `ValueError` for a text that has none."""
    found = _DATA.search(text)
    if found is None:
        raise ValueError("it is no page of tosca report")
    data = json.loads(found[1])
    if not isinstance(data, dict) or "targets" not in data:
        raise ValueError("its numbers are not those of a report")
    return data


def _embedded(value: Value) -> str:
    """JSON that no parser of HTML can take for an end of the script."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["cell"] = cell
    return environment.from_string(_asset("page.html"))


def _shown(value: Any) -> Any:
    return html_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def cell(value: Any) -> str:
    """What stands in the cell of a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, float) and abs(value) < 1e-9:
        return "0.00"
    if isinstance(value, float):
        return f"{value:.2f}" if 0.01 <= abs(value) < 1e6 or value == 0 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and abs(value) > 99_999 else str(value)
