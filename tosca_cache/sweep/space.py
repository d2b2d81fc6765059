"""The search space of a sweep: axes as they are written on the command line and in Python, and the points of their grid.

    value,value,...         true and false for switches; a+b+c for a key that takes a list, none for the empty list
    log:LOW:HIGH:COUNT      COUNT numbers from LOW to HIGH, neighbours in equal ratio; lin: at equal distance
    log:LOW:HIGH            any number between, for the samplers random and tpe; likewise lin:LOW:HIGH

LOW and HIGH are taken as written; what lies between is rounded to 6 significant digits, or to whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tosca_cache.config.checks import INTEGERS, Kind, is_kind, none_word
from tosca_cache.config.schema import check_value, kind_of, unknown_key
from tosca_cache.errors import ConfigError, UsageError
from tosca_cache.sweep.cells import SETTING_KEYS

Point = dict[str, Any]

OPTION = "--set"
MOST_POINTS = 100_000  # no sweep trains more
NOT_SWEPT = (  # the store, the tasks, the seeds, and where a sweep computes: scores of other ones cannot be compared
    *("dataset", "backbone", "normalize", "img_size", "views", "incremental", "task_sizes", "class_order", "shots"),
    *("seeds", "seed", "device", "engine"),  # seed: the name that `tosca train --seed` has taught
)
_LINKED = ("scheduler", "milestones")  # the keys that `TrainConfig` checks together
_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True)
class Axis:
    """What one key of `TrainConfig` takes.

    key: the setting.
    values: every value in its own type, no two alike; None if a sampler draws from `range`.
    where: the place that gave the axis, for errors.
    """

    key: str
    values: tuple[Any, ...] | None
    range: BaseDistribution | None = None
    where: str = field(default="", compare=False)

    @property
    def distribution(self) -> BaseDistribution:
        """The axis to Optuna; listed values are categories."""
        return self.range or CategoricalDistribution([shown(value) for value in self.values or ()])


def shown(value: Any) -> str | float | bool | None:
    """A value as a category of Optuna: lists are texts there."""
    return str(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Space:
    """Axes in the order in which they were given; raises `ConfigError` if two have one key."""

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        keys = [axis.key for axis in self.axes]
        for axis in self.axes:
            if keys.count(axis.key) > 1:
                problem = f"{axis.key} is given twice."
                raise ConfigError(problem, where=axis.where, remedy="Join the values into one axis.")

    @property
    def finite(self) -> bool:
        """Whether every axis is a list of values."""
        return all(axis.values is not None for axis in self.axes)

    def listed(self, key: str) -> tuple[Any, ...]:
        """The values of an axis; none if there is no such axis, or no list of its values."""
        return next((axis.values or () for axis in self.axes if axis.key == key), ())


def parse_set(assignments: Sequence[str]) -> Space:
    """The space of `--set KEY=VALUES`. Raises `ConfigError`."""
    axes = []
    for assignment in assignments:
        key, _, text = (part.strip() for part in assignment.partition("="))
        if not key or not text:
            raise ConfigError(
                f"{assignment!r} does not say which key takes which values.",
                where=OPTION,
                remedy="Write KEY=VALUES, for instance lr=0.01,0.02 or lr=log:0.005:0.1:5.",
            )
        axes.append(_text_axis(key, text, f"{OPTION} {key}"))
    return Space(tuple(axes))


def make_space(axes: Mapping[str, Sequence[Any] | str] | Sequence[str]) -> Space:
    """The space of {key: values or a range's text}, or of texts as for `parse_set`. Raises `ConfigError`."""
    if not isinstance(axes, Mapping):
        return parse_set(axes)
    return Space(
        tuple(
            _text_axis(key, values, key) if isinstance(values, str) else _listed_axis(key, values, key)
            for key, values in axes.items()
        )
    )


def grid(space: Space) -> list[Point]:
    """Every combination of the axes' values, the last axis changing fastest.

    Raises `UsageError` if an axis is a range to draw from or the axes have more than `MOST_POINTS` combinations.
    """
    for axis in space.axes:
        if isinstance(axis.range, IntDistribution | FloatDistribution):
            kind = "log" if axis.range.log else "lin"
            remedy = f"Give a count, {axis.key}={kind}:{axis.range.low}:{axis.range.high}:5, or take random or tpe."
            problem = f"{axis.key} is a range to draw from, and a grid needs listed values."
            raise UsageError(problem, where=axis.where, remedy=remedy)
    values = [axis.values or () for axis in space.axes]
    if (count := math.prod(map(len, values))) > MOST_POINTS:
        remedy = "Give fewer values, or take the sampler random with a number of trials."
        raise UsageError(f"The grid has {count} points, more than {MOST_POINTS}.", where="grid", remedy=remedy)
    keys = [axis.key for axis in space.axes]
    return [dict(zip(keys, chosen, strict=True)) for chosen in product(*values)]


def fixed(space: Space) -> tuple[Point, Space]:
    """Axes of one value, as a point, and the space of the others: such an axis is no choice.

    A scheduler whose milestones are searched stays with them: they are right or wrong only together.
    """
    alone = [axis for axis in space.axes if axis.values is not None and len(axis.values) == 1]
    if any(axis.key in _LINKED and axis not in alone for axis in space.axes):
        alone = [axis for axis in alone if axis.key not in _LINKED]
    point = {axis.key: axis.values[0] for axis in alone if axis.values}
    return point, Space(tuple(axis for axis in space.axes if axis not in alone))


def rounded(number: float) -> float:
    """The number to 6 significant digits: what a range gives between its ends, short to read and equal to retype."""
    return float(f"{number:.6g}")


def _listed_axis(key: str, values: Iterable[object], where: str) -> Axis:
    """An axis of listed values, each in the type of its key; equal ones count once."""
    _check_key(key, where)
    checked = tuple(dict.fromkeys(check_value(key, value, where=where) for value in values))
    if not checked:
        raise ConfigError(f"{key} has no values.", where=where, remedy="Give one or more.")
    return Axis(key, checked, None, where)


def _check_key(key: str, where: str) -> Kind:
    """What an axis takes; raises `ConfigError` if there is no such key or it cannot be swept."""
    if key in NOT_SWEPT:
        option = "seeds" if key == "seed" else key.replace("_", "-")
        problem = f"{key} cannot be swept: all cells of a sweep have the same."
        raise ConfigError(problem, where=where, remedy=f"Give it with --{option}, in a sweep of its own for each.")
    if key not in SETTING_KEYS:
        raise unknown_key(key, tuple(known for known in SETTING_KEYS if known not in NOT_SWEPT), where)
    return kind_of(key)


def _text_axis(key: str, text: str, where: str) -> Axis:
    """The axis that `text` describes: a range, or comma-separated values."""
    kind = _check_key(key, where)
    if is_kind(kind, int, float) and ":" in text:
        return _range_axis(key, kind, text, where)
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        raise ConfigError(f"{key} has an empty value.", where=where, remedy="Remove the extra comma.")
    return _listed_axis(key, (_from_text(kind, part) for part in parts), where)


def _from_text(kind: Kind, text: str) -> object:
    """The value that a text stands for; the text itself where it stands for none, so that it is refused."""
    if text == none_word(kind):
        return None
    if is_kind(kind, bool):
        return _FLAGS.get(text, text)
    if is_kind(kind, INTEGERS):
        return () if text == "none" else text.replace("+", ",")
    try:
        return int(text) if is_kind(kind, int) else float(text) if is_kind(kind, float) else text
    except ValueError:
        return text


def _range_axis(key: str, kind_of_key: Kind, text: str, where: str) -> Axis:
    """The axis of a range `KIND:LOW:HIGH[:COUNT]` of a key that takes numbers."""
    kind, *parts = (part.strip() for part in text.split(":"))
    count = _from_text(int, parts[2]) if len(parts) == 3 else None
    right = kind in ("log", "lin") and len(parts) in (2, 3)
    if not right or not (count is None or (isinstance(count, int) and 2 <= count <= MOST_POINTS)):
        remedy = f"Write log:LOW:HIGH[:COUNT] or lin:LOW:HIGH[:COUNT], with a whole number from 2 to {MOST_POINTS}."
        raise ConfigError(f"{text!r} is no range that {key} takes.", where=where, remedy=remedy)
    low, high = (check_value(key, _from_text(kind_of_key, part), where=where) for part in parts[:2])
    if low is None or high is None or low >= high or (kind == "log" and low == 0):
        remedy = "Give the lower end first; a logarithmic range begins above 0."
        raise ConfigError(f"The range {text!r} is empty.", where=where, remedy=remedy)
    whole, log = is_kind(kind_of_key, int), kind == "log"
    if not isinstance(count, int):
        return Axis(key, None, (IntDistribution if whole else FloatDistribution)(low, high, log=log), where)
    between = (np.geomspace if log else np.linspace)(low, high, count)[1:-1]
    inner = (round(number) if whole else rounded(number) for number in between)
    return _listed_axis(key, (low, *inner, high), where)
