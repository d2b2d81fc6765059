"""Parallel coordinates: an axis a parameter, a line a setting, the score last; brushed along the axes or by fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

from markupsafe import Markup

from tosca_cache.report.pages.blocks import Brush, Figure, Value
from tosca_cache.report.pages.svg import Scale, number, picture, scale, tag
from tosca_cache.report.sweeps import plain, point_words
from tosca_cache.report.tables import with_spread

MOST_AXES = 9
WIDTH, HEIGHT, TOP, BOTTOM = 900.0, 340.0, 46.0, 316.0
LOG_FROM = 10  # factor between the smallest and the largest number of an axis


@dataclass(frozen=True)
class Axis:
    """One axis: where it is, and its words if it has no numbers."""

    name: str
    across: float
    scale: Scale
    words: Sequence[str] = ()

    @classmethod
    def of(cls, name: str, across: float, values: Sequence[Any]) -> Axis:
        """An axis of some values: logarithmic where numbers span a factor of `LOG_FROM`, 0 at its foot then."""
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) < len(values):
            words = sorted(set(map(_word, values)))
            return cls(name, across, Scale(0, len(words) - 1, BOTTOM, TOP), words)
        positive = [v for v in numbers if v > 0]
        log = bool(positive) and min(numbers) >= 0 and max(positive) >= LOG_FROM * min(positive)
        return cls(name, across, scale(numbers, BOTTOM, TOP, log=log))

    def at(self, value: Any) -> float:
        """How high a value lies."""
        return self.scale(self.words.index(_word(value)) if self.words else value)

    @property
    def limits(self) -> dict[str, Any]:
        """What the script has to know: of a logarithmic axis low and high are exponents."""
        ends = (log10(v) if self.scale.log else v for v in (self.scale.low, self.scale.high))
        return dict(zip(("low", "high"), ends, strict=True)) | {"log": self.scale.log}


def parallel_blocks(settings: Sequence[Value], keys: Sequence[str], metric: str) -> list[Figure | Brush]:
    """The chart of settings (the best first) with their scores, and the fields that brush it."""
    columns = [(key, [s["point"].get(key) for s in settings]) for key in list(keys)[:MOST_AXES]]
    columns.append((metric.replace("_", " "), [s["mean"] for s in settings]))
    apart = (WIDTH - 140) / (len(columns) - 1)
    axes = [Axis.of(name, 70 + n * apart, values) for n, (name, values) in enumerate(columns)]
    highest, lowest = max(columns[-1][1]), min(columns[-1][1])
    drawn = []
    for n in reversed(range(len(settings))):  # the best on top
        heights = [axis.at(values[n]) for axis, (_, values) in zip(axes, columns, strict=True)]
        share = (settings[n]["mean"] - lowest) / (highest - lowest) if highest > lowest else 1.0
        drawn.append(_line(settings[n], axes, heights, share))
    title = "Settings and their scores"
    says = (
        f"{len(settings)} settings, from {lowest:.2f} to {highest:.2f}; the best is {point_words(settings[0]['point'])}"
    )
    marks = [tag("g", *drawn, class_="settings"), *(_frame(n, axis) for n, axis in enumerate(axes))]
    chart = picture(title, says, *marks, width=WIDTH, height=HEIGHT, kind="wide")
    held = tag("div", chart, data_scales=json.dumps([axis.limits for axis in axes]))
    reads = (
        "Each line is a setting; it crosses every axis at its value and ends at its score, the stronger the better. "
        "Drag along an axis to keep only some."
    )
    return [Figure(title, reads, held, wide=True), Brush([(axis.name, axis.words) for axis in axes])]


def _word(value: Any) -> str:
    return "(none)" if value is None else plain(value)


def _line(one: Value, axes: Sequence[Axis], heights: Sequence[float], share: float) -> Markup:
    line = " ".join(f"{axis.across:.0f},{y:.0f}" for axis, y in zip(axes, heights, strict=True))
    at = " ".join(f"{(BOTTOM - y) / (BOTTOM - TOP):.3f}" for y in heights)
    tip = f"{point_words(one['point'])}: {with_spread(one['mean'], one['spread'])}"
    strength = f"--s:{100 * share:.0f}%"
    return tag("polyline", points=line, style=strength, data_tip=tip, data_mark=one["mark"], data_at=at)


def _frame(n: int, axis: Axis) -> Markup:
    """The axis itself, its ticks, where it is brushed, and what of it is."""
    x, tall = axis.across, BOTTOM - TOP
    ticks = [(word, axis.at(word)) for word in axis.words]
    ticks = ticks or [(number(value), axis.at(value)) for value in axis.scale.ticks()]
    inner = [tag("line", x1=x, x2=x, y1=TOP, y2=BOTTOM, class_="axis")]
    inner.append(
        tag("text", _short(axis.name, 22), x=x, y=TOP - 16 - 14 * (n % 2), text_anchor="middle", class_="label")
    )
    inner += [tag("text", _short(text, 14), x=x + 6, y=y + 4, class_="halo") for text, y in ticks]
    inner.append(tag("rect", x=x - 18, y=TOP, width=36, height=tall, class_="brush", data_axis=n))
    inner.append(tag("rect", x=x - 7, y=TOP, width=14, height="0", class_="brushed", data_axis=n))
    return tag("g", *inner)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
