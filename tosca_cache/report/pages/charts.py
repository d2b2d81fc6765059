"""Charts of a page: lines with bands, heat maps, bars and intervals, points. Series differ by dashes and markers, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite

from markupsafe import Markup

from tosca_cache.report.pages.svg import (
    BOTTOM,
    COLOURS,
    HEIGHT,
    LEFT,
    OUTLINES,
    RIGHT,
    SHAPES,
    TOP,
    WIDTH,
    Number,
    Scale,
    axes,
    cividis,
    number,
    percent_scale,
    picture,
    scale,
    tag,
)

DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4", "4 4", "12 3 3 3")


@dataclass(frozen=True)
class Series:
    """One line. y: None where there is none. spread: half the height of its band. mark: what the script calls it."""

    name: str
    x: Sequence[float]
    y: Sequence[Number]
    spread: Sequence[Number] = ()
    mark: str = ""


@dataclass(frozen=True)
class Point:
    """One point of a scatter. group: its colour, and from the ninth on its shape. label: text beside it.

    mark: what the script calls it (the row of a table).
    """

    x: float
    y: float
    tip: str
    group: int = 0
    mark: str = ""
    photo: str = ""
    label: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar, or one point with its interval. hatched: not to be compared with the others."""

    label: str
    value: Number
    low: Number = None
    high: Number = None
    hatched: bool = False
    colour: int = 0
    tip: str = ""


def lines(
    title: str, says: str, series: Sequence[Series], x_title: str, y_title: str, x_names: Sequence[str] = ()
) -> Markup:
    """Lines over whole numbers, with bands; the legend is under the chart. x_names: of the places 0, 1, ... along x."""
    xs = sorted({x for one in series for x in one.x})
    ys: list[Number] = [v for one in series for v in one.y]
    for one in series:
        pairs = [(v, s) for v, s in zip(one.y, one.spread, strict=False) if v is not None and s is not None]
        ys += [v + sign * s for v, s in pairs for sign in (-1, 1)]
    x = scale(xs, LEFT, WIDTH - RIGHT) if len(xs) > 1 else Scale(xs[0] - 1, xs[0] + 1, LEFT, WIDTH - RIGHT)
    y = percent_scale(ys, HEIGHT - BOTTOM, TOP)
    every = max(1, ceil(len(xs) / 12))
    names: dict[float, str] = dict(enumerate(x_names))
    marks = axes(x, y, x_title, y_title, xs[::every], names)
    for place, one in enumerate(series):
        marks.append(tag("g", *_line(one, place, x, y, names), data_mark=one.mark, class_=f"c{place % COLOURS}"))
    return picture(title, says, *marks, data_low=f"{y.low:.6g}", data_high=f"{y.high:.6g}")


def _line(one: Series, place: int, x: Scale, y: Scale, names: Mapping[float, str]) -> list[Markup]:
    known = [(a, b, n) for n, (a, b) in enumerate(zip(one.x, one.y, strict=True)) if b is not None]
    spread = [one.spread[n] if n < len(one.spread) else None for _, _, n in known]
    marks = []
    band = [(a, b, s) for (a, b, _), s in zip(known, spread, strict=True) if s is not None]
    if len(band) > 1:
        over = [f"{x(a):.1f},{y(min(b + s, y.high)):.1f}" for a, b, s in band]
        under = [f"{x(a):.1f},{y(max(b - s, y.low)):.1f}" for a, b, s in reversed(band)]
        marks.append(tag("polygon", points=" ".join(over + under), class_="band"))
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b, _ in known)
    marks.append(tag("polyline", points=path, class_="line", stroke_dasharray=DASHES[place % len(DASHES)]))
    for (a, b, _), s in zip(known, spread, strict=True):
        around = f" ± {s:.2f}" if s is not None else ""
        marks.append(_marker(place, x(a), y(b), f"{one.name}, {names.get(a) or number(a)}: {b:.2f}{around}"))
    return marks


def _marker(shape: int, x: float, y: float, tip: str) -> Markup:
    outline = OUTLINES[shape % SHAPES]
    return tag("path", d=outline, transform=f"translate({x:.1f} {y:.1f})", data_tip=tip, class_="dot")


def legend(names: Sequence[str], marks: Sequence[str] = ()) -> Markup:
    """The names of series beside a piece of each line."""
    entries = []
    for place, name in enumerate(names):
        piece = tag(
            "svg",
            tag("line", x1=1, x2=29, y1=6, y2=6, class_="line", stroke_dasharray=DASHES[place % len(DASHES)]),
            _marker(place, 15, 6, ""),
            viewBox="0 0 30 12",
            aria_hidden="true",
            class_=f"key c{place % COLOURS}",
        )
        entries.append(tag("li", piece, tag("bdi", name), data_mark=marks[place] if marks else None))
    return tag("ul", *entries, class_="legend")


def heat_map(
    title: str, says: str, values: Sequence[Sequence[Number]], rows: str, columns: str, *, low: float, high: float
) -> Markup:
    """A matrix; tips say row and column, counted from 1. low, high: the values of the darkest and the lightest colour."""
    height, width = len(values), max(map(len, values))
    side = (WIDTH - LEFT - RIGHT) / max(width, 1)
    side = min(side, 44.0)
    written, gap = width <= 12, 0 if width > 25 else 1
    marks: list[Markup] = []
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            if value is None or not isfinite(value):
                continue
            at = (value - low) / (high - low) if high > low else 1.0
            x, y = LEFT + j * side, TOP + i * side
            tip = f"{rows} {i + 1}, {columns} {j + 1}: {value:.1f}"
            fill = cividis(at)
            marks.append(tag("rect", x=x, y=y, width=side - gap, height=side - gap, fill=fill, data_tip=tip))
            if written:
                shade = "value on-dark" if at < 0.55 else "value on-light"
                text = {"x": x + side / 2, "y": y + side / 2 + 4, "class_": shade}
                marks.append(tag("text", f"{value:.0f}", text_anchor="middle", **text))
    every = max(1, ceil(max(width, height) / 12))
    for n in range(0, height, every):
        marks.append(tag("text", n + 1, x=LEFT - 5, y=TOP + (n + 0.5) * side + 4, text_anchor="end"))
    bottom = TOP + height * side
    for n in range(0, width, every):
        marks.append(tag("text", n + 1, x=LEFT + (n + 0.5) * side, y=bottom + 15, text_anchor="middle"))
    marks.append(tag("text", columns, x=LEFT + width * side / 2, y=bottom + 32, text_anchor="middle", class_="name"))
    middle = TOP + height * side / 2
    turned = f"rotate(-90 11 {middle:.1f})"
    marks.append(tag("text", rows, x=11, y=middle, text_anchor="middle", class_="name", transform=turned))
    return picture(title, says, *marks, height=bottom + BOTTOM)


def bars(title: str, says: str, found: Sequence[Bar], x_title: str, *, from_zero: bool = True) -> Markup:
    """Horizontal bars, or (not from zero) points with intervals, and a line at zero if it is near; labels stand above."""
    step = 34
    values: list[Number] = [v for bar in found for v in (bar.value, bar.low, bar.high)]
    x = scale(values, 12, WIDTH - 58, least=1.0)
    if from_zero:
        x = Scale(
            min(0.0, *(v for v in values if v is not None)), max(v for v in values if v is not None), 12, WIDTH - 58
        )
    bottom = TOP + step * len(found)
    marks: list[Markup] = [tag("line", x1=x(v), x2=x(v), y1=TOP, y2=bottom, class_="grid") for v in x.ticks()]
    marks += [tag("text", number(v), x=x(v), y=bottom + 15, text_anchor="middle") for v in x.ticks()]
    if x.low < 0 < x.high:
        marks.append(tag("line", x1=x(0), x2=x(0), y1=TOP, y2=bottom, class_="axis"))
    for n, bar in enumerate(found):
        marks += _bar(bar, TOP + n * step, x, from_zero=from_zero)
    marks.append(tag("text", x_title, x=(x.start + x.end) / 2, y=bottom + 32, text_anchor="middle", class_="name"))
    return picture(title, says, hatching(), *marks, height=bottom + BOTTOM)


def _bar(bar: Bar, top: float, x: Scale, *, from_zero: bool) -> list[Markup]:
    shown = bar.label if len(bar.label) <= 60 else f"{bar.label[:59]}…"
    marks = [tag("text", shown, x=x.start, y=top + 11, class_="label")]
    if bar.value is None or not isfinite(bar.value):
        return [*marks, tag("text", "not defined", x=x.start, y=top + 25, class_="quiet")]
    tip, at, middle = bar.tip or f"{bar.label}: {bar.value:.2f}", x(bar.value), top + 22
    kind = "hatched" if bar.hatched else "bar"
    if from_zero:
        box = {"x": min(x(0), at), "y": top + 15, "width": max(abs(at - x(0)), 1.0), "height": 13}
        marks.append(tag("rect", class_=f"{kind} c{bar.colour % COLOURS}", data_tip=tip, **box))
    if bar.low is not None and bar.high is not None:
        marks.append(tag("line", x1=x(bar.low), x2=x(bar.high), y1=middle, y2=middle, class_="whisker"))
    if not from_zero:
        marks.append(tag("circle", cx=at, cy=middle, r=4, class_=f"dot c{bar.colour % COLOURS}", data_tip=tip))
    return [*marks, tag("text", f"{bar.value:.2f}", x=WIDTH - 4, y=top + 26, text_anchor="end", class_="label")]


def hatching() -> Markup:
    """The pattern of what leaks."""
    stripe = tag("path", d="M0 8L8 0M-2 2L2 -2M6 10L10 6", class_="stripe")
    pattern = tag("pattern", stripe, id="hatch", width=8, height=8, patternUnits="userSpaceOnUse")
    return tag("defs", pattern)


def scatter(
    title: str,
    says: str,
    points: Sequence[Point],
    x_title: str,
    y_title: str,
    *,
    log: bool = False,
    front: Sequence[tuple[float, float]] = (),
    bare: bool = False,
) -> Markup:
    """Points. log: of x. front: a line through the best. bare: without numbers at the axes, which mean nothing."""
    left, bottom = (RIGHT, HEIGHT - TOP) if bare else (LEFT, HEIGHT - BOTTOM)
    x = scale([p.x for p in points], left, WIDTH - RIGHT, log=log)
    y = scale([p.y for p in points], bottom, TOP, least=0.0 if bare else 2.0)
    marks = [] if bare else axes(x, y, x_title, y_title)
    if front:
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in front)
        marks.append(tag("polyline", points=path, class_="front"))
    size = 3.2 if len(points) < 1500 else 2.2
    for p in points:
        marks.append(_dot(p, x(p.x), y(p.y), size))
    marks += _labels([(p.label, x(p.x), y(p.y)) for p in points if p.label])
    return picture(title, says, *marks)


def _labels(points: Sequence[tuple[str, float, float]]) -> list[Markup]:
    """Names beside points, below or above them; those that would cover another are left to the pointer."""
    taken: list[tuple[float, float, float]] = []
    marks = []
    for name, x, y in points:
        wide, right = 6.5 * len(name), x > WIDTH / 2
        start = x - 6 - wide if right else x + 6
        for at in (y + 14, y - 6):
            if all(abs(at - other) > 12 or start > high or start + wide < low for low, high, other in taken):
                taken.append((start, start + wide, at))
                place = {"x": x - 6 if right else x + 6, "y": at, "text_anchor": "end" if right else "start"}
                marks.append(tag("text", name, class_="halo", **place))
                break
    return marks


def _dot(p: Point, x: float, y: float, size: float) -> Markup:
    data = {"class_": f"dot c{p.group % COLOURS}", "data_tip": p.tip, "data_mark": p.mark, "data_photo": p.photo}
    shape = p.group // COLOURS % SHAPES
    if shape == 0:
        return tag("circle", cx=x, cy=y, r=size, **data)
    place = f"translate({x:.1f} {y:.1f})" + ("" if size > 3 else " scale(.7)")
    return tag("path", d=OUTLINES[shape], transform=place, **data)


def point_legend(names: Sequence[str]) -> Markup:
    """The names of a scatter's groups, each beside its colour and shape."""
    entries = []
    for group, name in enumerate(names):
        dot = tag("path", d=OUTLINES[group // COLOURS % SHAPES], transform="translate(6 6)", class_="dot")
        piece = tag("svg", dot, viewBox="0 0 12 12", aria_hidden="true", class_=f"key point c{group % COLOURS}")
        entries.append(tag("li", piece, tag("bdi", name)))
    return tag("ul", *entries, class_="legend")
