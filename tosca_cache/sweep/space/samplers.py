"""Which points of a space are tried, in rounds: all of them, or those that a sampler of Optuna proposes.

A sampler is asked for a round of points, is given their scores, and is asked again. The same space, seed and scores give
the same points, so that an interrupted sweep that starts again asks for what its ledger already knows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tosca_cache.config.checks import nearest
from tosca_cache.errors import UsageError
from tosca_cache.seeds import derive_seed, numpy_generator
from tosca_cache.sweep.space.axis import Axis, rounded
from tosca_cache.sweep.space.spaces import MOST_POINTS, Point, Space, canonical, check_together, grid, size

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("grid", "random", "tpe")
STREAM = "sweep"  # the name of the random numbers (`seeds.derive_seed`)
STARTUP = 10  # scores before TPE is asked: optuna's default; the first round is random whatever its size
TRIES = {"random": 100, "tpe": 5}  # proposals in a row that repeat a point before an untried one is drawn instead


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
        name: "grid" (every point in order), "random" or "tpe" (see `StudySampler`).
        trials: points in all; None: as many as there are, so that on a continuous range only the caller's budget ends
            the search.
        seed: of random and tpe; the grid has none.
        base: the setting under the points, where conditions ask for keys that no axis sets.

    Raises `UsageError` for an unknown name, fewer than one trial, or a grid over a continuous range, and `ConfigError` if
    the space holds a setting that cannot be trained.
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
    return StudySampler(name, space, base, trials, seed)


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


class StudySampler:
    """Points that a study of Optuna proposes, at random or by TPE (Bergstra et al., NeurIPS 2011), none twice.

    Every active axis is suggested by itself, so that a branch of few points is tried as often as one of many. Under TPE
    each proposal counts as a bad one for the next of its round ("constant liar"), failed points count as worse than all
    others, and conditional axes are modelled with those that they depend on (`group`). Listed values are categories; only
    ranges without a count and whole-number ranges know that neighbours are near. Where proposals repeat themselves, an
    untried point is drawn from the list of those that are left: a finite space is covered exactly.
    """

    def __init__(self, name: str, space: Space, base: Mapping[str, Any], trials: int | None, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._states, self._tries = optuna.trial.TrialState, TRIES[name]
        self._space, self._base = space, base
        self._axes, self._setting = space.ordered(), space.setting(base)
        self._generator = numpy_generator(seed, STREAM)
        self._left = math.inf if trials is None else trials
        self._seen: set[Hashable] = set()
        self._rest: list[Point] | None = None
        self._open: dict[Hashable, optuna.Trial] = {}
        own, sampler = derive_seed(seed, STREAM, name) % 2**32, optuna.samplers.RandomSampler
        if name == "random":
            chosen: optuna.samplers.BaseSampler = sampler(seed=own)
        else:
            with warnings.catch_warnings():  # group is as old as 2.8, but still called experimental
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                chosen = optuna.samplers.TPESampler(
                    seed=own, n_startup_trials=STARTUP, multivariate=True, group=True, constant_liar=True
                )
        self._study = optuna.create_study(direction="maximize", sampler=chosen)

    def ask(self, n: int) -> list[Point]:
        """The next points; an untried random one where the study repeats itself."""
        round_: list[Point] = []
        while len(round_) < min(n, self._left) and (point := self._propose()) is not None:
            round_.append(point)
        self._left -= len(round_)
        return round_

    def tell(self, points: Sequence[Point], scores: Sequence[float | None]) -> None:
        """Scores of points that were asked for; raises `KeyError` for others."""
        for point, score in zip(points, scores, strict=True):
            trial = self._open.pop(_key(point))
            if score is None or not math.isfinite(score):
                # TPE puts pruned trials behind all others, and would forget failed ones.
                self._study.tell(trial, state=self._states.PRUNED)
            else:
                self._study.tell(trial, score)

    def _propose(self) -> Point | None:
        if self._rest is None:
            for _ in range(self._tries):
                trial = self._study.ask()
                point = self._suggest(trial)
                if self._take(point, trial):
                    return point
                self._study.tell(trial, state=self._states.FAIL)  # a failed trial has no say
        if self._rest is None or self._tries == TRIES["tpe"]:
            self._rest = self._untried()
        if not self._rest:
            return None
        point, rest = self._rest[0], self._rest[1:]
        self._rest = rest if self._tries != TRIES["tpe"] else None
        self._study.enqueue_trial(
            {axis.key: _parameter(axis, point[axis.key]) for axis in self._axes if axis.key in point}
        )
        trial = self._study.ask()
        self._suggest(trial)
        self._take(point, trial)
        return point

    def _take(self, point: Point, trial: optuna.Trial) -> bool:
        """Marks a point as asked for; false if it was already."""
        key = _key(point)
        if key in self._seen:
            return False
        self._seen.add(key)
        self._open[key] = trial
        return True

    def _untried(self) -> list[Point]:
        """What was not asked for, in random order; nothing if the space cannot be listed."""
        count = size(self._space, self._base)
        if count is None or count > MOST_POINTS:
            return []
        left = [point for point in grid(self._space, self._base) if _key(point) not in self._seen]
        return [left[index] for index in self._generator.permutation(len(left))]

    def _suggest(self, trial: optuna.Trial) -> Point:
        """The point of a trial: only active axes are suggested."""
        point: Point = {}
        for axis in self._axes:
            if axis.active({**self._setting, **point}):
                point[axis.key] = _suggested(axis, trial)
        return canonical(point)


def distribution_of(axis: Axis) -> optuna.distributions.BaseDistribution:
    """The distribution of Optuna that an axis is; listed values are categories, by their position."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.span is None:
        assert axis.values is not None  # an axis without a range has values
        return CategoricalDistribution(range(len(axis.values)))
    if axis.span.kind == "int":
        return IntDistribution(int(axis.span.low), int(axis.span.high), step=axis.span.step)
    return FloatDistribution(axis.span.low, axis.span.high, log=axis.span.kind == "log")


def _suggested(axis: Axis, trial: optuna.Trial) -> Any:
    if axis.span is None:
        assert axis.values is not None
        return axis.values[trial.suggest_categorical(axis.key, range(len(axis.values)))]
    low, high = axis.span.low, axis.span.high
    if axis.span.kind == "int":
        return trial.suggest_int(axis.key, int(low), int(high), step=axis.span.step)
    return min(max(rounded(trial.suggest_float(axis.key, low, high, log=axis.span.kind == "log")), low), high)


def _parameter(axis: Axis, value: Any) -> Any:
    """A value as Optuna knows it."""
    return axis.values.index(value) if axis.span is None and axis.values is not None else value


def _key(point: Point) -> Hashable:
    """What two points have in common exactly if they are equal."""
    return frozenset(point.items())
