"""What charts are made of: SVG elements, scales, axes, colours; inline SVG that needs no script and says what it shows.

Drawn 440 units wide, so that letters can be read on a phone. Every mark carries its values in `data-tip`, which the page's
script shows under the pointer or the arrow keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from markupsafe import Markup

from tosca_cache.text import html_text

WIDTH, HEIGHT = 440, 280
COLOURS = 8  # of the page's palette (Okabe and Ito), which is safe for the colour-blind
OUTLINES = (
    "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0",
    "M-3-3h6v6h-6z",
    "M0-4l4 7h-8z",
)  # round, square, triangle
SHAPES = len(OUTLINES)
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40
Number = float | None


def tag(name: str, *inner: object, **attributes: object) -> Markup:
    """An element; whatever it is given is text, unless it is `Markup`. An attribute `a_b` is `a-b`; `class_` is `class`."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
        if value is not None and value != ""
    )
    return Markup(f"<{name}{given}>{''.join(map(_escaped, inner))}</{name}>")


def _escaped(value: object) -> str:
    if isinstance(value, Markup):
        return str(value)
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return str(Markup.escape(html_text(str(value))))


def words(text: object, x: float, y: float, anchor: str, kind: str = "", **more: object) -> Markup:
    """Text in a chart. anchor: which end of it lies at x; kind: its class."""
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=kind, **more)


def picture(
    title: str, says: str, *marks: object, width: float = WIDTH, height: float = HEIGHT, kind: str = "", **data: object
) -> Markup:
    """An SVG with a text alternative. Its marks are read one by one with the arrow keys."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", says),
        *marks,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=f"{title}. {says}",
        tabindex=0,
        **data,
        class_=f"chart {kind}".strip(),
    )


@dataclass(frozen=True)
class Scale:
    """From values to places along an axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (log10(self.low), log10(self.high)) if self.log else (self.low, self.high)
        at = log10(max(value, self.low)) if self.log else value
        return self.start + (self.end - self.start) * ((at - low) / (high - low) if high > low else 0.5)

    def ticks(self) -> list[float]:
        """About five round values; powers of ten where the axis is logarithmic and reaches over some."""
        if self.log:
            powers = [10.0**p for p in range(floor(log10(self.low)), ceil(log10(self.high)) + 1)]
            for factors in ((1,), (1, 2, 5)):
                found = [f * power for power in powers for f in factors if self.low <= f * power <= self.high]
                if len(found) > 2:
                    return found[:: ceil(len(found) / 6)]
        if self.high <= self.low:
            return [self.low]
        rough = (self.high - self.low) / 5
        unit = 10 ** floor(log10(rough))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough * 0.999)
        return [n * step for n in range(ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9) + 1)]


def scale(values: Sequence[Number], start: float, end: float, *, log: bool = False, least: float = 0.0) -> Scale:
    """A scale that holds all values, with a little room around them; least: the smallest reach."""
    found = [v for v in values if v is not None and isfinite(v) and (not log or v > 0)] or [1.0]
    low, high = min(found), max(found)
    if log:
        return Scale(low / 1.3, high * 1.3, start, end, log=True)
    room = max((high - low) * 0.05, (least - (high - low)) / 2, 1e-9 * max(abs(high), 1))
    return Scale(low - room, high + room, start, end)


def percent_scale(values: Sequence[Number], start: float, end: float) -> Scale:
    """A scale for accuracies: not beyond 0 and 100."""
    found = scale(values, start, end, least=4.0)
    return Scale(max(0.0, found.low), min(100.0, found.high) if found.high <= 104 else found.high, start, end)


def number(value: Number) -> str:
    """A number for people, short."""
    if value is None or not isfinite(value):
        return "-"
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.1e}".replace("e+0", "e").replace("e-0", "e-").replace(".0e", "e")
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def axes(
    x: Scale,
    y: Scale,
    x_title: str,
    y_title: str,
    x_ticks: Sequence[float] | None = None,
    names: Mapping[float, str] | None = None,
) -> list[Markup]:
    """Grid, ticks and titles. names: of values of x that are not to be read as numbers."""
    names, marks = names or {}, list[Markup]()
    for value in y.ticks():
        marks.append(tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid"))
        marks.append(words(number(value), x.start - 5, y(value) + 4, "end"))
    for value in x.ticks() if x_ticks is None else x_ticks:
        marks.append(words(names.get(value) or number(value), x(value), y.start + 15, "middle"))
    marks.append(tag("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis"))
    return marks + axis_names(x_title, (x.start + x.end) / 2, y.start, y_title, (y.start + y.end) / 2)


def axis_names(x_title: str, x: float, bottom: float, y_title: str = "", y: float = 0.0) -> list[Markup]:
    """The titles of the axes, below the chart and, if there is one, turned at its left."""
    turned = {"transform": f"rotate(-90 11 {y:.1f})"}
    below = words(x_title, x, bottom + 32, "middle", "name")
    return [below, *([words(y_title, 11, y, "middle", "name", **turned)] if y_title else [])]


_CIVIDIS = ("#00224e", "#213d6b", "#4a546c", "#696970", "#898578", "#a59c74", "#c9b869", "#fee838")


def cividis(at: float) -> str:
    """A colour between dark blue and yellow, which the colour-blind see alike (Nunez et al., PLoS ONE 13, 2018)."""
    place = min(max(at, 0.0), 1.0) * (len(_CIVIDIS) - 1)
    n = min(int(place), len(_CIVIDIS) - 2)
    pairs = [(int(_CIVIDIS[n][c : c + 2], 16), int(_CIVIDIS[n + 1][c : c + 2], 16)) for c in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * (place - n)):02x}" for a, b in pairs)
