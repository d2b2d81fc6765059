"""Settings that a search tries: their cells, and what they reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

import numpy as np

from tosca_cache.config import TrainConfig
from tosca_cache.sweep.cells import Cell, cells_of, setting_of, with_point
from tosca_cache.sweep.request import SweepRequest
from tosca_cache.sweep.scenario import Scenario
from tosca_cache.sweep.space import Point


@dataclass(frozen=True)
class Trial:
    """A point, the setting that it leads to, and its cells in every scenario of the search, one a seed."""

    point: Point
    config: TrainConfig
    cells: Mapping[Scenario, Sequence[Cell]]

    @classmethod
    def of(cls, point: Point, request: SweepRequest, store: str) -> Trial:
        """The trial of a point; store: digest of the fingerprint of the store."""
        config = with_point(request.base, point)
        return cls(point, config, {s: cells_of(config, request.seeds, s, store) for s in request.searched})


@dataclass(frozen=True)
class Scored:
    """A setting and what it reached. point: what the space says of it. mean, spread: of the metric, over its seeds."""

    point: Point
    config: TrainConfig
    mean: float
    spread: float
    seeds: int

    def words(self) -> str:
        """The point and its score."""
        values = ", ".join(f"{key} {value}" for key, value in self.point.items()) or "the base setting"
        return f"{self.mean:.2f} ± {self.spread:.2f}: {values}" if self.seeds > 1 else f"{self.mean:.2f}: {values}"


def distinct(points: Sequence[Point], known: Sequence[Point], base: TrainConfig) -> list[Point]:
    """Points that lead to settings which no earlier point leads to (they may differ in a key that does not count)."""
    seen = {repr(setting_of(with_point(base, point))) for point in known}
    fresh = []
    for point in points:
        name = repr(setting_of(with_point(base, point)))
        if name not in seen:
            seen.add(name)
            fresh.append(point)
    return fresh


def mean_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; NaN where there are too few."""
    if not values:
        return nan, nan
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else nan
