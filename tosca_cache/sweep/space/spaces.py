"""The search space of a sweep: axes from the command line or a file, and the points of their grid.

A point says the values of the active axes only. Whether a conditional axis is active is decided by the setting that
the point leads to: its own values over the base setting over the defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tosca_cache.config.schema import KEYS, TrainConfig, check_value, default_of
from tosca_cache.errors import ConfigError, UsageError
from tosca_cache.sweep.space.axis import Axis, values_axis
from tosca_cache.sweep.space.file import read_axes
from tosca_cache.sweep.space.text import assigned_axis, text_axis

Point = dict[str, Any]

OPTION = "--set"
MOST_POINTS = 1_000_000  # a longer list would fill the memory, and no sweep trains them all
_NO_BASE: Mapping[str, Any] = {}
_LINKED = ("scheduler", "milestones")  # the keys that `TrainConfig` checks together


@dataclass(frozen=True)
class Space:
    """Axes in the order in which they were given.

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
            for condition in axis.when:
                asked = by_key.get(condition.key)
                if asked is not None and asked.values is None:
                    problem = f"{axis.key} depends on {asked.key}, which is continuous."
                    remedy = f"Let {axis.key} depend on listed values, or give {asked.key} a count."
                    raise ConfigError(problem, where=axis.where, remedy=remedy)
        self.ordered()

    def ordered(self, keys: Sequence[str] | None = None) -> tuple[Axis, ...]:
        """The axes as given, except that each comes after those that its conditions ask for.

        Arguments:
            keys: leave out axes that are neither one of these nor asked for on the way to one; None: all.
        """
        by_key = {axis.key: axis for axis in self.axes}
        placed: dict[str, Axis] = {}

        def place(axis: Axis, way: tuple[str, ...]) -> None:
            """Puts an axis behind those that it asks for; way: the axes that asked for it."""
            if axis.key in way:
                circle = " -> ".join((*way[way.index(axis.key) :], axis.key))
                problem = f"Conditions ask for each other in a circle: {circle}."
                raise ConfigError(problem, where=axis.where, remedy="Take one of these conditions away.")
            if axis.key not in placed:
                for condition in axis.when:
                    if condition.key in by_key:
                        place(by_key[condition.key], (*way, axis.key))
                placed[axis.key] = axis

        for axis in self.axes:
            if keys is None or axis.key in keys:
                place(axis, ())
        return tuple(placed.values())

    def listed(self, key: str) -> tuple[Any, ...]:
        """The values of an axis; none if there is no such axis, or no list of its values."""
        return next((axis.values or () for axis in self.axes if axis.key == key), ())

    def setting(self, base: Mapping[str, Any] = _NO_BASE) -> dict[str, Any]:
        """What the conditions can ask for before any axis has a value: those keys in `base`, else in the defaults."""
        asked = {condition.key for axis in self.axes for condition in axis.when}
        return {key: check_value(key, base.get(key, default_of(key))) for key in KEYS if key in asked}


def parse_set(assignments: Sequence[str]) -> Space:
    """The space of `--set KEY=VALUES[@KEY=value,...]` (grammar: `sweep/space/text.py`). Raises `ConfigError`."""
    return Space(tuple(assigned_axis(assignment, OPTION) for assignment in assignments))


def make_space(axes: Mapping[str, Sequence[Any] | str] | Sequence[str]) -> Space:
    """The space of {key: values or a range's text}, or of texts as for `parse_set`. Raises `ConfigError`."""
    if not isinstance(axes, Mapping):
        return parse_set(axes)
    return Space(
        tuple(
            text_axis(key, values, key) if isinstance(values, str) else values_axis(key, values, key)
            for key, values in axes.items()
        )
    )


def read_space(path: Path) -> Space:
    """The space of a TOML file (form: `sweep/space/file.py`). Raises `ConfigError` that names file and place."""
    return Space(read_axes(path))


def merge(file: Space | None, given: Space) -> Space:
    """Both spaces in one: an axis of `given` replaces that of `file` with the same key, conditions included.

    Raises `ConfigError` as `Space` does, for instance if the conditions of both together form a circle.
    """
    replaced = {axis.key: axis for axis in given.axes}
    kept = () if file is None else file.axes
    axes = [replaced.pop(axis.key, axis) for axis in kept]
    return Space((*axes, *replaced.values()))


def fixed(space: Space) -> tuple[Point, Space]:
    """Axes with one value and no condition, as a point, and the space of the others: such an axis is no choice.

    Keys that are right or wrong only together stay together: a scheduler whose milestones are searched is no part of the
    point.
    """
    alone = [axis for axis in space.axes if axis.values is not None and len(axis.values) == 1 and not axis.when]
    if any(axis.key in _LINKED and axis not in alone for axis in space.axes):
        alone = [axis for axis in alone if axis.key not in _LINKED]
    point = canonical({axis.key: axis.values[0] for axis in alone if axis.values is not None})
    return point, Space(tuple(axis for axis in space.axes if axis not in alone))


def grid(space: Space, base: Mapping[str, Any] = _NO_BASE) -> list[Point]:
    """Every combination of the active axes' values, no two alike; the last axis changes fastest (`Space.ordered`).

    Arguments:
        base: the setting that every point is laid over, where conditions ask for a key that no axis sets.

    Raises `UsageError` if an axis that is ever active is continuous or there are more than `MOST_POINTS`,
    `ConfigError` if a combination cannot be trained.
    """
    never = idle(space, base)
    for axis in space.axes:
        if axis.span is not None and axis.values is None and axis.key not in never:
            text = f"{axis.span.kind}:{axis.span.low}:{axis.span.high}"
            problem = f"{axis.key} is a continuous range, and a grid needs listed values."
            remedy = f"Give a count, {axis.key}={text}:5, or take the sampler random or tpe."
            raise UsageError(problem, where=axis.where, remedy=remedy)
    count = size(space, base)
    if count is not None and count > MOST_POINTS:
        remedy = "Give fewer values, or take the sampler random with a number of trials."
        raise UsageError(f"The grid has {count} points, more than {MOST_POINTS}.", where="grid", remedy=remedy)
    check_together(space, base)
    return [canonical(point) for point in _combinations(space.ordered(), space.setting(base))]


def size(space: Space, base: Mapping[str, Any] = _NO_BASE) -> int | None:
    """How many points `grid` has, without listing them; None if an axis is continuous and ever active.

    Only the axes that conditions ask for are enumerated; the others multiply.
    """
    setting = space.setting(base)
    asked, free = _asked_and_free(space)
    total = 0
    for point in _combinations(asked, setting):
        lengths = [axis.values and len(axis.values) for axis in free if axis.active(setting | point)]
        if None in lengths:
            return None
        total += math.prod(length or 0 for length in lengths)
    return total


def idle(space: Space, base: Mapping[str, Any] = _NO_BASE) -> tuple[str, ...]:
    """Keys of the axes that no point sets, because their conditions never hold: worth a word to the user."""
    setting = space.setting(base)
    asked, _ = _asked_and_free(space)
    settings = [setting | point for point in _combinations(asked, setting)]
    return tuple(axis.key for axis in space.axes if not any(axis.active(each) for each in settings))


def check_together(space: Space, base: Mapping[str, Any] = _NO_BASE) -> None:
    """Raises `ConfigError` if values that are right one by one give a setting that is wrong, such as steplr alone."""
    linked = space.ordered(_LINKED)
    if not any(axis.key in _LINKED for axis in linked):
        return
    start = {key: base.get(key, default_of(key)) for key in _LINKED}
    for point in _combinations(linked, space.setting(base)):
        try:
            TrainConfig(**{key: (start | point)[key] for key in _LINKED})
        except ConfigError as error:
            shown = ", ".join(f"{key}={value}" for key, value in point.items())
            remedy = "Give them where they are needed: milestones=10+15,5+10@scheduler=steplr."
            raise ConfigError(error.problem, where=f"the point {shown}", remedy=remedy) from None


def canonical(point: Mapping[str, Any]) -> Point:
    """The point with its keys in the order of `KEYS`, however the axes stood."""
    return {key: point[key] for key in KEYS if key in point}


def _asked_and_free(space: Space) -> tuple[tuple[Axis, ...], list[Axis]]:
    """The axes that conditions ask for, directly or on the way, and the others."""
    asked = space.ordered([condition.key for axis in space.axes for condition in axis.when])
    return asked, [axis for axis in space.axes if axis not in asked]


def _combinations(axes: Sequence[Axis], setting: Mapping[str, Any]) -> list[Point]:
    """Points of finite axes, each after those that it asks for."""
    points: list[Point] = [{}]
    for axis in axes:
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
