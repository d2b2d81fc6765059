"""Which points of a space are tried, in rounds: all of them, random ones, or those that earlier scores speak for.

A sampler is asked for a round of points, is told their scores, and is asked again. The same space, seed and scores
give the same points, so that an interrupted sweep that starts again asks for what its ledger already knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tosca_cache.config.checks import nearest
from tosca_cache.errors import UsageError
from tosca_cache.seeds import numpy_generator
from tosca_cache.sweep.space.draws import STREAM, Draws
from tosca_cache.sweep.space.spaces import Point, Space, check_together, grid
from tosca_cache.sweep.space.tpe import TpeSampler

SAMPLERS = ("grid", "random", "tpe")


class Sampler(Protocol):
    """Asks for points and learns from their scores. No point is asked for twice."""

    def ask(self, n: int) -> list[Point]:
        """The next points, at most `n`. Fewer once the space or the trials are used up; none: the search is over."""

    def tell(self, points: Sequence[Point], scores: Sequence[float | None]) -> None:
        """Scores of points that were asked for, larger is better; None (or NaN) if the training failed or diverged."""


def make_sampler(
    name: str, space: Space, *, trials: int | None, seed: int, base: Mapping[str, Any] | None = None
) -> Sampler:
    """The sampler of that name over a space.

    Arguments:
        name: "grid" (every point in order), "random" (see `sweep/space/draws.py`) or "tpe" (see `sweep/space/tpe.py`).
        trials: points in all; None: as many as there are, so that on a continuous range only the caller's budget ends
            the search.
        seed: of the draws; the grid has none.
        base: the setting under the points, where conditions ask for keys that no axis sets.

    Raises `UsageError` for an unknown name, fewer than one trial, a grid over a continuous range or tpe without
    optuna, and `ConfigError` if the space holds a setting that cannot be trained.
    """
    if name not in SAMPLERS:
        remedy = f"Did you mean {nearest(name, SAMPLERS)!r}? Known: {', '.join(SAMPLERS)}."
        raise UsageError(f"There is no sampler {name!r}.", where="sampler", remedy=remedy)
    if trials is not None and trials < 1:
        raise UsageError(f"{trials} trials cannot be run.", where="trials", remedy="Give a number of at least 1.")
    base = base or {}
    if name == "grid":
        return GridSampler(grid(space, base)[:trials])
    check_together(space, base)
    draws = Draws(space, base, numpy_generator(seed, STREAM))
    if name == "random":
        return RandomSampler(draws, trials)
    return TpeSampler(space, base, draws, trials, seed)


class GridSampler:
    """Every point in order; scores do not matter."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = points
        self._next = 0

    def ask(self, n: int) -> list[Point]:
        """The next points of the grid."""
        round_ = list(self._points[self._next : self._next + max(n, 0)])
        self._next += len(round_)
        return round_

    def tell(self, points: Sequence[Point], scores: Sequence[float | None]) -> None:
        """A grid learns nothing."""


class RandomSampler:
    """Points drawn at random, none twice; scores do not matter."""

    def __init__(self, draws: Draws, trials: int | None) -> None:
        self._draws = draws
        self._left = math.inf if trials is None else trials

    def ask(self, n: int) -> list[Point]:
        """Points that were not drawn before."""
        round_: list[Point] = []
        while len(round_) < min(n, self._left) and (point := self._draws.new()) is not None:
            round_.append(point)
        self._left -= len(round_)
        return round_

    def tell(self, points: Sequence[Point], scores: Sequence[float | None]) -> None:
        """Random draws learn nothing."""
