"""Maps of features: an image a point, coloured by class, domain or task, its thumbnail under the pointer."""

from __future__ import annotations

from collections.abc import Sequence

from tosca_cache.report.pages.blocks import Figure, Value
from tosca_cache.report.pages.charts import Point, point_legend, scatter
from tosca_cache.report.pages.svg import COLOURS, SHAPES

MOST_NAMED = COLOURS * SHAPES  # groups that differ in colour or shape


def map_figure(title: str, found: Value, groups: Sequence[int], names: Sequence[str], kind: str) -> Figure:
    """The map `found` of `runs.store_facts.map_facts`.

    Arguments:
        groups: of each point; names: of the groups. kind: what a group is, in one word.
    """
    classes = found["classes"]
    points = []
    for (x, y, c, split, path, key), group in zip(found["points"], groups, strict=True):
        said = classes[c] if kind == "class" else f"{names[group]}, {classes[c]}"
        points.append(Point(x, y, f"{said}: {path}" + (" (test)" if split == "test" else ""), group, photo=key or ""))
    says = f"{len(points)} images of {len(names)} {plural(kind)}, by {found['how']}."
    reads = f"Each point is an image, coloured by {kind}; near ones look alike to the backbone. By {found['how']}."
    chart = scatter(title, says, points, "", "", bare=True)
    if len(names) <= MOST_NAMED:
        chart += point_legend(names)
    else:
        reads += f" There are more {plural(kind)} than colours and shapes, so each stands for several."
    return Figure(title, reads, chart)


def plural(kind: str) -> str:
    """The plural of `class`, `domain`, `task`."""
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"
