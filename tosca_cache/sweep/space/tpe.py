"""Tree-structured Parzen estimation (Bergstra et al., NeurIPS 2011) by optuna, in rounds and over conditional spaces."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tosca_cache.errors import UsageError
from tosca_cache.seeds import derive_seed
from tosca_cache.sweep.space.axis import Axis
from tosca_cache.sweep.space.draws import STREAM, Draws, name_of, within
from tosca_cache.sweep.space.spaces import Point, Space, canonical

if TYPE_CHECKING:
    import optuna

STARTUP = 10  # scores before the estimator is asked: optuna's default; the first round is random whatever its size
_TRIES = 5  # proposals in a row that repeat a point before one is drawn at random instead


class TpeSampler:
    """Points that the scores so far speak for.

    A round is proposed one by one, and each proposal counts as a bad one for the next ("constant liar"), so that a
    round does not crowd on one spot. Failed points count as worse than all others. Conditional axes are modelled with
    those that they depend on (`group`). Listed values are categories; only ranges without a count and whole-number
    ranges know that neighbours are near. Where optuna insists on points that were asked for already, an untried one is
    drawn at random: a finite space ends, and nothing is trained twice.
    """

    def __init__(self, space: Space, base: Mapping[str, Any], draws: Draws, trials: int | None, seed: int) -> None:
        self._optuna = _optuna()
        self._axes, self._setting, self._draws = space.ordered(), space.setting(base), draws
        self._left = math.inf if trials is None else trials
        self._open: dict[Hashable, optuna.Trial] = {}
        with warnings.catch_warnings():  # group is as old as 2.8, but still called experimental
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            sampler = self._optuna.samplers.TPESampler(
                seed=derive_seed(seed, STREAM, "tpe") % 2**32,
                n_startup_trials=STARTUP,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
        self._study = self._optuna.create_study(direction="maximize", sampler=sampler)

    def ask(self, n: int) -> list[Point]:
        """The next points; an untried random one where the estimator repeats itself."""
        round_: list[Point] = []
        while len(round_) < min(n, self._left) and (point := self._propose()) is not None:
            round_.append(point)
        self._left -= len(round_)
        return round_

    def tell(self, points: Sequence[Point], scores: Sequence[float | None]) -> None:
        """Scores of points that were asked for; raises `KeyError` for others."""
        for point, score in zip(points, scores, strict=True):
            trial = self._open.pop(name_of(point))
            if score is None or not math.isfinite(score):
                # The estimator puts pruned trials behind all others, and would forget failed ones.
                self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)
            else:
                self._study.tell(trial, score)

    def _propose(self) -> Point | None:
        for _ in range(_TRIES):
            trial = self._study.ask()
            point = self._suggest(trial)
            if self._draws.take(point):
                self._open[name_of(point)] = trial
                return point
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)  # a failed trial has no say
        drawn = self._draws.new()
        if drawn is not None:
            self._study.enqueue_trial(self._parameters(drawn))
            trial = self._study.ask()
            self._suggest(trial)
            self._open[name_of(drawn)] = trial
        return drawn

    def _suggest(self, trial: optuna.Trial) -> Point:
        """The point of a trial, defined by run: only active axes are asked for."""
        point: Point = {}
        for axis in self._axes:
            if axis.active({**self._setting, **point}):
                point[axis.key] = _suggested(axis, trial)
        return canonical(point)

    def _parameters(self, point: Point) -> dict[str, Any]:
        """The point as optuna knows it: listed values by their position."""
        by_key = {axis.key: axis for axis in self._axes}
        return {key: _parameter(by_key[key], value) for key, value in point.items()}


def _suggested(axis: Axis, trial: optuna.Trial) -> Any:
    if axis.span is None:
        assert axis.values is not None  # an axis without a range has values
        # By position, as optuna's categories cannot be lists.
        return axis.values[trial.suggest_categorical(axis.key, range(len(axis.values)))]
    if axis.span.kind == "int":
        return trial.suggest_int(axis.key, int(axis.span.low), int(axis.span.high), step=axis.span.step)
    number = trial.suggest_float(axis.key, axis.span.low, axis.span.high, log=axis.span.kind == "log")
    return within(axis, number)


def _parameter(axis: Axis, value: Any) -> Any:
    return axis.values.index(value) if axis.span is None and axis.values is not None else value


def _optuna() -> Any:
    """The library, quiet; imported only here, as it is optional and slow to load."""
    try:
        import optuna
    except ImportError as error:
        remedy = 'pip install "tosca-cache[optuna]", or take the sampler random.'
        raise UsageError("The sampler tpe needs optuna, which is not there.", where="sampler", remedy=remedy) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
