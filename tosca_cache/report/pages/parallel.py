"""Parallel coordinates: an axis a parameter, a line a setting, the score last; brushed along the axes or by fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
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


def parallel_blocks(settings: Sequence[Value], keys: Sequence[str], metric: str) -> list[Figure | Brush]:
    """The chart of settings with their scores, and the fields that brush it."""
    name = metric.replace("_", " ")
    columns = [(key, [s["point"].get(key) for s in settings]) for key in list(keys)[:MOST_AXES]]
    columns.append((name, [s["mean"] for s in settings]))
    axes = [_axis(key, values) for key, values in columns]
    scores = columns[-1][1]
    lowest, highest = min(scores), max(scores)
    drawn = []
    for n in reversed(range(len(settings))):  # the best on top
        places = [_place(axis, values[n]) for axis, (_, values) in zip(axes, columns, strict=True)]
        share = (scores[n] - lowest) / (highest - lowest) if highest > lowest else 1.0
        drawn.append(_line(settings[n], places, share))
    title, best = "Settings and their scores", point_words(settings[0]["point"])
    says = f"{len(settings)} settings, {name} from {lowest:.2f} to {highest:.2f}; the best is {best}."
    frames = [
        _frame(n, axis, values, len(axes)) for n, (axis, (_, values)) in enumerate(zip(axes, columns, strict=True))
    ]
    chart = picture(title, says, tag("g", *drawn, class_="settings"), *frames, width=WIDTH, height=HEIGHT, kind="wide")
    held = tag("div", chart, data_scales=json.dumps([asdict(axis) for axis in axes]))
    reads = (
        "Each line is a setting; it crosses every axis at its value and ends at its score, the stronger the better. "
        "Drag along an axis to keep only some."
    )
    return [Figure(title, reads, held, wide=True), Brush(axes)]


def _axis(name: str, values: Sequence[Any]) -> Axis:
    """An axis of numbers, logarithmic where they span a factor of `LOG_FROM`, or of words."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        words = sorted({_word(v) for v in values})
        return Axis(name, 0, len(words) - 1, values=words)
    positive = [v for v in numbers if v > 0]
    if not positive or min(numbers) < 0 or max(positive) / min(positive) < LOG_FROM:
        return Axis(name, min(numbers), max(numbers))
    low, high = log10(min(positive)), log10(max(positive))
    return Axis(name, low - (0.25 * (high - low) if min(numbers) == 0 else 0), high, log=True)  # 0 lies at the foot


def _word(value: Any) -> str:
    return "(none)" if value is None else plain(value)


def _place(axis: Axis, value: Any) -> float:
    return axis.at(list(axis.values).index(_word(value)) if axis.values else value)


def _across(n: int, count: int) -> float:
    return 70 + n * (WIDTH - 140) / max(count - 1, 1)


def _line(one: Value, places: Sequence[float], share: float) -> Markup:
    line = " ".join(f"{_across(n, len(places)):.0f},{BOTTOM - p * (BOTTOM - TOP):.0f}" for n, p in enumerate(places))
    at = " ".join(f"{p:.3f}" for p in places)
    tip = f"{point_words(one['point'])}: {with_spread(one['mean'], one['spread'])}"
    return tag(
        "polyline", points=line, style=f"--s:{100 * share:.0f}%", data_tip=tip, data_mark=one["mark"], data_at=at
    )


def _ticks(axis: Axis, values: Sequence[Any]) -> list[tuple[str, float]]:
    if axis.values:
        return [(word, axis.at(n)) for n, word in enumerate(axis.values)]
    distinct = sorted(set(values))
    if len(distinct) > MOST_TICKS:
        spots = [axis.low + (axis.high - axis.low) * n / 4 for n in range(5)]
        distinct = [10**spot if axis.log else spot for spot in spots]
    shown: list[tuple[str, float]] = []
    for value in distinct:
        if not shown or axis.at(value) - shown[-1][1] > 0.05:
            shown.append((number(value), axis.at(value)))
    return shown


def _frame(n: int, axis: Axis, values: Sequence[Any], count: int) -> Markup:
    """The axis itself, its ticks, where it is brushed, and what of it is."""
    x, tall = _across(n, count), BOTTOM - TOP
    name = axis.name if len(axis.name) <= 22 else f"{axis.name[:21]}…"
    lifted = 14 * (n % 2) if count > 7 else 0
    inner = [tag("line", x1=x, x2=x, y1=TOP, y2=BOTTOM, class_="axis")]
    inner.append(tag("text", name, x=x, y=TOP - 16 - lifted, text_anchor="middle", class_="label"))
    for text, place in _ticks(axis, values):
        shown = text if len(text) <= 14 else f"{text[:13]}…"
        inner.append(tag("text", shown, x=x + 6, y=BOTTOM - place * tall + 4, class_="halo"))
    inner.append(tag("rect", x=x - 18, y=TOP, width=36, height=tall, class_="brush", data_axis=n))
    inner.append(tag("rect", x=x - 7, y=TOP, width=14, height="0", class_="brushed", data_axis=n))
    return tag("g", *inner)
