"""The search space of a sweep: axes, which are distributions of Optuna or lists of values, and the points of their grid.

A point says the values of the active axes only. Whether a conditional axis is active is decided by the setting that the
point leads to: its own values over the base setting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from tosca_cache.config.schema import TrainConfig
from tosca_cache.errors import ConfigError, UsageError

Point = dict[str, Any]

MOST_POINTS = 100_000  # no sweep trains more
_LINKED = ("scheduler", "milestones")  # the keys that `TrainConfig` checks together


@dataclass(frozen=True)
class Axis:
    """What one key of `TrainConfig` takes.

    key: the setting.
    values: every value in its own type, no two alike; None if the axis is continuous.
    range: what a sampler draws from, if neighbours are near each other; None for a list.
    when: the axis is active where the setting has one of these values for each of these keys.
    where: the place that gave the axis, for errors. Two axes that differ only here are equal.
    """

    key: str
    values: tuple[Any, ...] | None
    range: BaseDistribution | None = None
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    where: str = field(default="", compare=False)

    def active(self, setting: Mapping[str, Any]) -> bool:
        """Whether a run with this setting has the axis. `setting` holds at least the keys of the conditions."""
        return all(setting[key] in values for key, values in self.when.items())

    @property
    def distribution(self) -> BaseDistribution:
        """The axis to Optuna; listed values are categories."""
        return self.range or CategoricalDistribution([shown(value) for value in self.values or ()])


def shown(value: Any) -> str | float | bool | None:
    """A value as a category of Optuna: lists are texts there."""
    return str(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Space:
    """Axes; each comes after those that its conditions ask for, otherwise they stay in the order in which they were given.

    Raises `ConfigError` if two axes have one key, if conditions ask for each other in a circle, or if one asks for a
    continuous axis, which has no value that could be met.
    """

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        by_key: dict[str, Axis] = {}
        for axis in self.axes:
            if axis.key in by_key:
                problem = f"{axis.key} is given twice."
                raise ConfigError(problem, where=axis.where, remedy="Join the values into one axis.")
            by_key[axis.key] = axis
        for axis in self.axes:
            for asked in axis.when.keys() & by_key.keys():
                if by_key[asked].values is None:
                    problem = f"{axis.key} depends on {asked}, which is continuous."
                    remedy = f"Let {axis.key} depend on listed values, or give {asked} a count."
                    raise ConfigError(problem, where=axis.where, remedy=remedy)
        asks = {axis.key: [key for key in axis.when if key in by_key] for axis in self.axes}
        try:
            order = tuple(TopologicalSorter(asks).static_order())
        except CycleError as error:
            circle = error.args[1]
            raise ConfigError(
                f"Conditions ask for each other in a circle: {' -> '.join(circle)}.",
                where=by_key[circle[0]].where,
                remedy="Take one of these conditions away.",
            ) from None
        object.__setattr__(self, "axes", tuple(by_key[key] for key in order))

    @property
    def finite(self) -> bool:
        """Whether no axis is continuous."""
        return all(axis.values is not None for axis in self.axes)

    def listed(self, key: str) -> tuple[Any, ...]:
        """The values of an axis; none if there is no such axis, or no list of its values."""
        return next((axis.values or () for axis in self.axes if axis.key == key), ())


def grid(space: Space, base: TrainConfig) -> list[Point]:
    """Every combination of the active axes' values, no two alike; the last axis changes fastest.

    Arguments:
        base: the setting that every point is laid over.

    Raises `UsageError` if an axis is continuous or the axes have more than `MOST_POINTS` combinations.
    """
    for axis in space.axes:
        if axis.values is None:
            problem = f"{axis.key} is a continuous range, and a grid needs listed values."
            kind, low, high = _ends(axis.range)
            remedy = f"Give a count, {axis.key}={kind}:{low}:{high}:5, or take the sampler random or tpe."
            raise UsageError(problem, where=axis.where, remedy=remedy)
    count = math.prod(len(axis.values or ()) for axis in space.axes)
    if count > MOST_POINTS:
        remedy = "Give fewer values, or take the sampler random with a number of trials."
        raise UsageError(f"The grid has {count} points, more than {MOST_POINTS}.", where="grid", remedy=remedy)
    setting, points = vars(base), list[Point]([{}])
    for axis in space.axes:
        points = [
            longer
            for point in points
            for longer in (
                [{**point, axis.key: value} for value in axis.values or ()]
                if axis.active({**setting, **point})
                else [point]
            )
        ]
    return points


def fixed(space: Space) -> tuple[Point, Space]:
    """Axes with one value and no condition, as a point, and the space of the others: such an axis is no choice.

    Keys that are right or wrong only together stay together: a scheduler whose milestones are searched is no part of the
    point.
    """
    alone = [axis for axis in space.axes if axis.values is not None and len(axis.values) == 1 and not axis.when]
    if any(axis.key in _LINKED and axis not in alone for axis in space.axes):
        alone = [axis for axis in alone if axis.key not in _LINKED]
    point = {axis.key: axis.values[0] for axis in alone if axis.values}
    return point, Space(tuple(axis for axis in space.axes if axis not in alone))


def merge(file: Space | None, given: Space) -> Space:
    """Both spaces in one: an axis of `given` replaces that of `file` with the same key, conditions included."""
    replaced = {axis.key: axis for axis in given.axes}
    kept = () if file is None else file.axes
    axes = [replaced.pop(axis.key, axis) for axis in kept]
    return Space((*axes, *replaced.values()))


def rounded(number: float) -> float:
    """The number to 6 significant digits: what a range gives between its ends, short to read and equal to retype."""
    return float(f"{number:.6g}")


def _ends(range: BaseDistribution | None) -> tuple[str, float, float]:
    """Kind and ends of a continuous range."""
    assert isinstance(range, FloatDistribution)
    return "log" if range.log else "lin", range.low, range.high
