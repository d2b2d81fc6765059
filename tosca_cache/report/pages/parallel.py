"""Parallel coordinates: an axis a parameter, a line a setting, the score last; brushed along the axes or by fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log10
from typing import Any

from markupsafe import Markup

from tosca_cache.report.pages.blocks import Axis, Brush, Figure, Value
from tosca_cache.report.pages.svg import number, picture, tag
from tosca_cache.report.sweeps import plain, point_words
from tosca_cache.report.tables import with_spread

MOST_AXES, MOST_TICKS = 9, 6
WIDTH, HEIGHT, TOP, BOTTOM = 900.0, 340.0, 46.0, 316.0
LOG_FROM = 10  # factor between the smallest and the largest positive number


@dataclass(frozen=True)
class AxisScale:
    """Where values lie on an axis, 0 at the bottom and 1 at the top; log: low and high are exponents.

    zero: 0 is among the values of a logarithmic axis, and lies at its foot.
    """

    low: float
    high: float
    log: bool = False
    zero: bool = False

    def at(self, value: float) -> float:
        """The place of a value."""
        if self.log and value <= 0:
            return 0.0
        value = log10(value) if self.log else float(value)
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def parallel_blocks(settings: Sequence[Value], keys: Sequence[str], metric: str) -> list[Figure | Brush]:
    """The chart of settings with their scores, and the fields that brush it."""
    name = metric.replace("_", " ")
    columns = [(key, [s["point"].get(key) for s in settings]) for key in list(keys)[:MOST_AXES]]
    columns.append((name, [s["mean"] for s in settings]))
    axes, scales = zip(*(_axis(key, values) for key, values in columns), strict=True)
    scores = columns[-1][1]
    lowest, highest = min(scores), max(scores)
    drawn = []
    for n in reversed(range(len(settings))):  # the best on top
        one = settings[n]
        places = [
            _place(axis, scale, values[n]) for axis, scale, (_, values) in zip(axes, scales, columns, strict=True)
        ]
        share = (one["mean"] - lowest) / (highest - lowest) if highest > lowest else 1.0
        drawn.append(_line(one, places, share, len(axes)))
    title, best = "Settings and their scores", point_words(settings[0]["point"])
    says = f"{len(settings)} settings, {name} from {lowest:.2f} to {highest:.2f}; the best is {best}."
    frames = [
        _frame(n, axis, scale, values, len(axes))
        for n, (axis, scale, (_, values)) in enumerate(zip(axes, scales, columns, strict=True))
    ]
    chart = picture(title, says, tag("g", *drawn, class_="settings"), *frames, width=WIDTH, height=HEIGHT, kind="wide")
    held = tag("div", chart, data_scales=json.dumps([asdict(scale) for scale in scales]))
    reads = (
        "Each line is a setting; it crosses every axis at its value and ends at its score, the stronger the better. "
        "Drag along an axis to keep only some."
    )
    return [Figure(title, reads, held, wide=True), Brush("Brushing", axes)]


def _axis(name: str, values: Sequence[Any]) -> tuple[Axis, AxisScale]:
    """An axis of numbers, logarithmic where they span a factor of `LOG_FROM`, or of words."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        words = sorted({_word(v) for v in values})
        return Axis(name, words), AxisScale(0, len(words) - 1)
    positive = [v for v in numbers if v > 0]
    if not positive or min(numbers) < 0 or max(positive) / min(positive) < LOG_FROM:
        return Axis(name), AxisScale(min(numbers), max(numbers))
    low, high, zero = log10(min(positive)), log10(max(positive)), min(numbers) == 0
    return Axis(name), AxisScale(low - (0.25 * (high - low) if zero else 0), high, log=True, zero=zero)


def _word(value: Any) -> str:
    return "(none)" if value is None else plain(value)


def _place(axis: Axis, scale: AxisScale, value: Any) -> float:
    return scale.at(list(axis.values).index(_word(value)) if axis.values else value)


def _across(n: int, count: int) -> float:
    return 70 + n * (WIDTH - 140) / max(count - 1, 1)


def _line(one: Value, places: Sequence[float], share: float, count: int) -> Markup:
    line = " ".join(f"{_across(n, count):.0f},{BOTTOM - p * (BOTTOM - TOP):.0f}" for n, p in enumerate(places))
    at = " ".join(f"{p:.3f}" for p in places)
    tip = f"{point_words(one['point'])}: {with_spread(one['mean'], one['spread'])}"
    return tag(
        "polyline", points=line, style=f"--s:{100 * share:.0f}%", data_tip=tip, data_mark=one["mark"], data_at=at
    )


def _ticks(axis: Axis, scale: AxisScale, values: Sequence[Any]) -> list[tuple[str, float]]:
    if axis.values:
        return [(word, scale.at(n)) for n, word in enumerate(axis.values)]
    distinct = sorted(set(values))
    if len(distinct) > MOST_TICKS:
        spots = [scale.low + (scale.high - scale.low) * n / 4 for n in range(5)]
        distinct = [10**spot if scale.log else spot for spot in spots]
    shown: list[tuple[str, float]] = []
    for value in distinct:
        if not shown or scale.at(value) - shown[-1][1] > 0.05:
            shown.append((number(value), scale.at(value)))
    return shown


def _frame(n: int, axis: Axis, scale: AxisScale, values: Sequence[Any], count: int) -> Markup:
    """The axis itself, its ticks, where it is brushed, and what of it is."""
    x, tall = _across(n, count), BOTTOM - TOP
    name = axis.name if len(axis.name) <= 22 else f"{axis.name[:21]}…"
    lifted = 14 * (n % 2) if count > 7 else 0
    inner = [tag("line", x1=x, x2=x, y1=TOP, y2=BOTTOM, class_="axis")]
    inner.append(tag("text", name, x=x, y=TOP - 16 - lifted, text_anchor="middle", class_="label"))
    for text, place in _ticks(axis, scale, values):
        shown = text if len(text) <= 14 else f"{text[:13]}…"
        inner.append(tag("text", shown, x=x + 6, y=BOTTOM - place * tall + 4, class_="halo"))
    inner.append(tag("rect", x=x - 18, y=TOP, width=36, height=tall, class_="brush", data_axis=n))
    inner.append(tag("rect", x=x - 7, y=TOP, width=14, height="0", class_="brushed", data_axis=n))
    return tag("g", *inner)
