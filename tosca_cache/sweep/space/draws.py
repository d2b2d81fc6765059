"""Random points of a search space, without repetition."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from tosca_cache.sweep.space.axis import Axis, rounded
from tosca_cache.sweep.space.spaces import MOST_POINTS, Point, Space, canonical, grid, size

STREAM = "sweep"  # the name of the random numbers (`seeds.derive_seed`)
_TRIES = 100  # draws in a row that give nothing new before the rest of the space is listed


class Draws:
    """Random points of a space, none twice.

    Each active axis is drawn by itself, its values equally likely (in the logarithm on a log range), so that a branch
    of few points is tried as often as one of many. A finite space is covered exactly: when draws repeat themselves, what
    is left of it is listed and shuffled.
    """

    def __init__(self, space: Space, base: Mapping[str, Any], generator: np.random.Generator) -> None:
        self._space, self._base, self._generator = space, base, generator
        self._axes, self._setting = space.ordered(), space.setting(base)
        self._seen: set[Hashable] = set()
        self._rest: list[Point] | None = None

    def take(self, point: Point) -> bool:
        """Marks a point as asked for; false if it was already."""
        known = len(self._seen)
        self._seen.add(name_of(point))
        return len(self._seen) > known

    def new(self) -> Point | None:
        """A point that was not asked for before; None if there is none left, or if none can be found."""
        if self._rest is None:
            for _ in range(_TRIES):
                point = self._draw()
                if self.take(point):
                    return point
            self._rest = self._list_rest()
        while self._rest:
            point = self._rest.pop()
            if self.take(point):  # a model may have asked for it since the rest was listed
                return point
        return None

    def _draw(self) -> Point:
        point: Point = {}
        for axis in self._axes:
            if axis.active({**self._setting, **point}):
                point[axis.key] = _drawn(axis, self._generator)
        return canonical(point)

    def _list_rest(self) -> list[Point]:
        """What was not asked for, in random order; nothing if the space cannot be listed."""
        count = size(self._space, self._base)
        if count is None or count > MOST_POINTS:
            return []
        left = [point for point in grid(self._space, self._base) if name_of(point) not in self._seen]
        return [left[index] for index in self._generator.permutation(len(left))]


def _drawn(axis: Axis, generator: np.random.Generator) -> Any:
    """One value of an axis, all equally likely; numbers between the ends of a range to 6 significant digits."""
    if axis.values is not None:
        return axis.values[generator.integers(len(axis.values))]
    assert axis.span is not None  # an axis without values has a range
    low, high = axis.span.low, axis.span.high
    if axis.span.kind == "log":
        number = math.exp(generator.uniform(math.log(low), math.log(high)))
    else:
        number = float(generator.uniform(low, high))
    return within(axis, number)


def within(axis: Axis, number: float) -> float:
    """A number of a continuous axis as points have it: to 6 significant digits, and not outside its ends for it."""
    assert axis.span is not None
    return min(max(rounded(number), axis.span.low), axis.span.high)


def name_of(point: Point) -> Hashable:
    """What two points have in common exactly if they are equal."""
    return frozenset(point.items())
