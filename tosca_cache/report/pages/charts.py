"""Charts of a page: lines with bands, heat maps, bars and intervals, points. Series differ by dashes and markers, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite

from markupsafe import Markup

from tosca_cache.report.pages.blocks import Cell, Figure, Table
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
    axis_names,
    cividis,
    number,
    percent_scale,
    picture,
    scale,
    tag,
    words,
)

DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4", "4 4", "12 3 3 3")
MOST_SAID = 10  # values in the text alternative of a chart; all are in its table


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
    """One point of a scatter. group: its colour, and from the ninth on its shape. mark: what the script calls it."""

    x: float
    y: float
    tip: str
    group: int = 0
    mark: str = ""
    photo: str = ""


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
    more: Sequence[Cell] = ()


def interval(mean: Number, spread: Number) -> tuple[Number, Number]:
    """One standard deviation on both sides of a mean, where there is one."""
    return (None, None) if mean is None or spread is None else (mean - spread, mean + spread)


def lines(
    title: str, reads: str, series: Sequence[Series], x_title: str, y_title: str, *, x_names: Sequence[str] = ()
) -> Figure:
    """Lines over whole numbers, with bands, a legend and their numbers. x_names: of the places 0, 1, ... along x."""
    xs = sorted({x for one in series for x in one.x})
    ys: list[Number] = [v for one in series for v in one.y]
    for one in series:
        ys += [edge for pair in zip(one.y, one.spread, strict=False) for edge in interval(*pair)]
    x = scale(xs, LEFT, WIDTH - RIGHT) if len(xs) > 1 else Scale(xs[0] - 1, xs[0] + 1, LEFT, WIDTH - RIGHT)
    y = percent_scale(ys, HEIGHT - BOTTOM, TOP)
    names: dict[float, str] = dict(enumerate(x_names))
    marks, keys = axes(x, y, x_title, y_title, xs[:: max(1, ceil(len(xs) / 12))], names), []
    for place, one in enumerate(series):
        colour, dashes = f"c{place % COLOURS}", DASHES[place % len(DASHES)]
        marks.append(tag("g", *_line(one, place, x, y, names), data_mark=one.mark, class_=colour))
        line = tag("line", x1=1, x2=29, y1=6, y2=6, class_="line", stroke_dasharray=dashes)
        keys.append((one.name, one.mark, _key(colour, 30, line, _marker(place, 15, 6))))
    known = [(one.name, [v for v in one.y if v is not None]) for one in series]
    says = "; ".join(f"{name} from {v[0]:.1f} to {v[-1]:.1f}" for name, v in known[:MOST_SAID] if v)
    chart = picture(title, says, *marks, data_low=f"{y.low:.6g}", data_high=f"{y.high:.6g}")
    values = [dict(zip(one.x, one.y, strict=True)) for one in series]
    rows: list[list[Cell]] = [[names.get(at, at), *(found.get(at) for found in values)] for at in xs]
    numbers = Table("", "", [x_title, *(one.name for one in series)], rows)
    return Figure(title, reads, chart + _legend(keys), numbers)


def _line(one: Series, place: int, x: Scale, y: Scale, names: Mapping[float, str]) -> list[Markup]:
    spreads = [*one.spread, *[None] * (len(one.y) - len(one.spread))]
    known = [(a, b, s) for a, b, s in zip(one.x, one.y, spreads, strict=True) if b is not None]
    marks, band = [], [(a, b, s) for a, b, s in known if s is not None]
    if len(band) > 1:
        over = [f"{x(a):.1f},{y(min(b + s, y.high)):.1f}" for a, b, s in band]
        under = [f"{x(a):.1f},{y(max(b - s, y.low)):.1f}" for a, b, s in reversed(band)]
        marks.append(tag("polygon", points=" ".join(over + under), class_="band"))
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b, _ in known)
    marks.append(tag("polyline", points=path, class_="line", stroke_dasharray=DASHES[place % len(DASHES)]))
    for a, b, s in known:
        around = f" ± {s:.2f}" if s is not None else ""
        tip = f"{one.name}, {names.get(a) or number(a)}: {b:.2f}{around}"
        marks.append(_marker(place, x(a), y(b), data_tip=tip))
    return marks


def _marker(shape: int, x: float, y: float, *, small: bool = False, **more: object) -> Markup:
    place = f"translate({x:.1f} {y:.1f})" + (" scale(.7)" if small else "")
    return tag("path", d=OUTLINES[shape % SHAPES], transform=place, **({"class_": "dot"} | more))


def _key(colour: str, width: int, *marks: Markup) -> Markup:
    """What stands before a name in a legend."""
    kind = f"key {colour}{' point' if width == 12 else ''}"
    return tag("svg", *marks, viewBox=f"0 0 {width} 12", aria_hidden="true", class_=kind)


def _legend(entries: Iterable[tuple[str, str, Markup]]) -> Markup:
    """Names, what the script calls them, and what stands before them."""
    shown = [tag("li", key, tag("bdi", name), data_mark=mark) for name, mark, key in entries]
    return tag("ul", *shown, class_="legend") if shown else Markup()


def heat_map(title: str, reads: str, values: Sequence[Sequence[Number]], rows: str, columns: str, low: float) -> Figure:
    """A matrix of percent; tips say row and column, counted from 1. low: the value of the darkest colour."""
    height, width = len(values), max(map(len, values))
    side = min((WIDTH - LEFT - RIGHT) / max(width, 1), 44.0)
    gap, bottom, marks, known = 0 if width > 25 else 1, TOP + height * side, list[Markup](), list[float]()
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            if value is None or not isfinite(value):
                continue
            known.append(value)
            at = (value - low) / (100.0 - low) if low < 100 else 1.0
            x, y, tip = LEFT + j * side, TOP + i * side, f"{rows} {i + 1}, {columns} {j + 1}: {value:.1f}"
            marks.append(tag("rect", x=x, y=y, width=side - gap, height=side - gap, fill=cividis(at), data_tip=tip))
            if width <= 12:
                shade = "value on-dark" if at < 0.55 else "value on-light"
                marks.append(words(f"{value:.0f}", x + side / 2, y + side / 2 + 4, "middle", shade))
    every = max(1, ceil(max(width, height) / 12))
    marks += [words(n + 1, LEFT - 5, TOP + (n + 0.5) * side + 4, "end") for n in range(0, height, every)]
    marks += [words(n + 1, LEFT + (n + 0.5) * side, bottom + 15, "middle") for n in range(0, width, every)]
    marks += axis_names(columns, LEFT + width * side / 2, bottom, rows, TOP + height * side / 2)
    says = f"{height} rows; from {min(known):.1f} to {max(known):.1f} percent, light is high" if known else "No values"
    heads = [rows, *(f"{columns} {j + 1}" for j in range(width))]
    numbers = Table("", "", heads, [[i + 1, *row] for i, row in enumerate(values)])
    return Figure(title, reads, picture(title, says, *marks, height=bottom + BOTTOM), numbers)


def bars(
    title: str, reads: str, found: Sequence[Bar], x_title: str, columns: Sequence[str] = (), *, from_zero: bool = True
) -> Figure:
    """Horizontal bars, or (not from zero) points with intervals, and a line at zero if it is near; labels stand above.

    columns: of the numbers of each bar: its label, its value, its `more`; none for no table.
    """
    step, bottom = 34, TOP + 34 * len(found)
    values: list[Number] = [v for bar in found for v in (bar.value, bar.low, bar.high)]
    x = scale(values, 12, WIDTH - 58, least=1.0)
    if from_zero:
        known = [v for v in values if v is not None]
        x = Scale(min(0.0, *known), max(known), 12, WIDTH - 58)
    marks: list[Markup] = [tag("line", x1=x(v), x2=x(v), y1=TOP, y2=bottom, class_="grid") for v in x.ticks()]
    marks += [words(number(v), x(v), bottom + 15, "middle") for v in x.ticks()]
    if x.low < 0 < x.high:
        marks.append(tag("line", x1=x(0), x2=x(0), y1=TOP, y2=bottom, class_="axis"))
    for n, bar in enumerate(found):
        marks += _bar(bar, TOP + n * step, x, from_zero=from_zero)
    marks += axis_names(x_title, (x.start + x.end) / 2, bottom)
    stripe = tag("path", d="M0 8L8 0M-2 2L2 -2M6 10L10 6", class_="stripe")  # of what leaks
    pattern = tag("defs", tag("pattern", stripe, id="hatch", width=8, height=8, patternUnits="userSpaceOnUse"))
    says = "; ".join(bar.tip or f"{bar.label}: {number(bar.value)}" for bar in found[:MOST_SAID])
    numbers = Table("", "", columns, [[bar.label, bar.value, *bar.more] for bar in found]) if columns else None
    return Figure(title, reads, picture(title, says, pattern, *marks, height=bottom + BOTTOM), numbers)


def _bar(bar: Bar, top: float, x: Scale, *, from_zero: bool) -> list[Markup]:
    shown = bar.label if len(bar.label) <= 60 else f"{bar.label[:59]}…"
    marks = [words(shown, x.start, top + 11, "", "label")]
    if bar.value is None or not isfinite(bar.value):
        return [*marks, words("not defined", x.start, top + 25, "", "quiet")]
    tip, at, middle = bar.tip or f"{bar.label}: {bar.value:.2f}", x(bar.value), top + 22
    kind = "hatched" if bar.hatched else "bar"
    if from_zero:
        box = {"x": min(x(0), at), "y": top + 15, "width": max(abs(at - x(0)), 1.0), "height": 13}
        marks.append(tag("rect", class_=f"{kind} c{bar.colour % COLOURS}", data_tip=tip, **box))
    if bar.low is not None and bar.high is not None:
        marks.append(tag("line", x1=x(bar.low), x2=x(bar.high), y1=middle, y2=middle, class_="whisker"))
    if not from_zero:
        marks.append(tag("circle", cx=at, cy=middle, r=4, class_=f"dot c{bar.colour % COLOURS}", data_tip=tip))
    return [*marks, words(f"{bar.value:.2f}", WIDTH - 4, top + 26, "end", "label")]


def scatter(
    title: str,
    reads: str,
    points: Sequence[Point],
    x_title: str = "",
    y_title: str = "",
    *,
    log: bool = False,
    front: Sequence[tuple[float, float]] = (),
    numbers: Table | None = None,
    groups: Sequence[str] = (),
) -> Figure:
    """Points. log: of x. front: a line through the best. groups: names of the points' groups.

    Without titles there are no numbers at the axes, which mean nothing then.
    """
    bare = not x_title
    left, bottom = (RIGHT, HEIGHT - TOP) if bare else (LEFT, HEIGHT - BOTTOM)
    x = scale([p.x for p in points], left, WIDTH - RIGHT, log=log)
    y = scale([p.y for p in points], bottom, TOP, least=0.0 if bare else 2.0)
    marks = [] if bare else axes(x, y, x_title, y_title)
    if front:
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in front)
        marks.append(tag("polyline", points=path, class_="front"))
    for p in points:
        data = {"class_": f"dot c{p.group % COLOURS}", "data_tip": p.tip, "data_mark": p.mark, "data_photo": p.photo}
        marks.append(_marker(p.group // COLOURS, x(p.x), y(p.y), small=len(points) >= 1500, **data))
    says = "; ".join([f"{len(points)} points", *([] if bare else [p.tip for p in points[:MOST_SAID]])])
    keys = [_key(f"c{group % COLOURS}", 12, _marker(group // COLOURS, 6, 6)) for group in range(len(groups))]
    legend = _legend((name, "", key) for name, key in zip(groups, keys, strict=True))
    return Figure(title, reads, picture(title, says, *marks) + legend, numbers)
