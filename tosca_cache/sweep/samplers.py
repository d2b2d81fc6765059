"""Which points of a space are tried, in rounds: all of them, or those that a study of Optuna proposes.

A sampler is asked for a round of points, is given their scores, and is asked again. The same space, seed and scores give
the same points, so that an interrupted sweep that starts again asks for what its ledger already knows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tosca_cache.config import TrainConfig
from tosca_cache.errors import RunError, UsageError
from tosca_cache.seeds import derive_seed
from tosca_cache.sweep.cells import Scored, check_choice, setting_of, with_point
from tosca_cache.sweep.space import Axis, Point, Space, grid, rounded, shown

SAMPLERS = ("grid", "random", "tpe")
TRIES = 30  # proposals in a row that repeat a setting before an untried one is taken instead

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Sampler:
    """Asks for points and learns from their scores; no two lead to one setting.

    Keys that do not count beside the others (momentum under adam) are left out of a point. Under TPE (Bergstra et al.,
    NeurIPS 2011) each proposal counts as a bad one for the next of its round ("constant liar"), and failed points count as
    worse than all others. Where proposals repeat themselves, untried points of a finite space
    are taken in order instead.

    Arguments:
        name: "grid" (every point in order), "random" or "tpe".
        base: the setting under the points.
        trials: points in all; None: as many as there are.
        seed: of random and tpe; the grid has none.

    Raises `UsageError` for an unknown name, fewer than one trial, or a grid over a range without a count.
    """

    def __init__(self, name: str, space: Space, base: TrainConfig, *, trials: int | None, seed: int) -> None:
        check_choice("--sampler", name, SAMPLERS)
        if trials is not None and trials < 1:
            raise UsageError(f"{trials} trials cannot be run.", where="trials", remedy="Give a number of at least 1.")
        self._space, self._base = space, base
        self._left = math.inf if trials is None else trials
        self._tried: dict[str, optuna.Trial | None] = {}  # by setting
        self._study = None if name == "grid" else _study(name, seed)
        self._rest = iter(grid(space)) if name == "grid" else None

    def ask(self, n: int) -> list[Point]:
        """The next points, at most `n`. Fewer once the space or the trials are used up; none: the search is over.

        Raises `ConfigError` if a point leads to a setting that cannot be trained.
        """
        points: list[Point] = []
        while len(points) < min(n, self._left) and (point := self._next()) is not None:
            points.append(point)
        self._left -= len(points)
        return points

    def tell(self, points: Sequence[Point], scores: Sequence[float | None]) -> None:
        """Scores of points that were asked for, larger is better; None (or NaN) if the training failed or diverged."""
        if self._study is None:
            return
        for point, score in zip(points, scores, strict=True):
            trial = self._tried[repr(setting_of(with_point(self._base, point)))]
            if trial is None:  # taken where proposals repeated themselves
                continue
            if score is None or not math.isfinite(score):
                self._study.tell(trial, state=TrialState.PRUNED)  # TPE puts these last, and would forget failed ones
            else:
                self._study.tell(trial, score)

    def _next(self) -> Point | None:
        for _ in range(TRIES):
            if self._study is None:
                break
            trial = self._study.ask()
            point = self._new({axis.key: _value(axis, trial) for axis in self._space.axes}, trial)
            if point is not None:
                return point
            self._study.tell(trial, state=TrialState.FAIL)  # a failed trial has no say
        if self._rest is None:
            self._rest = iter(grid(self._space) if self._space.finite else ())
        return next((new for point in self._rest if (new := self._new(point)) is not None), None)

    def _new(self, point: Point, trial: optuna.Trial | None = None) -> Point | None:
        """The keys of a point that count; None if an earlier one has led to the same setting."""
        setting = setting_of(with_point(self._base, point))
        if repr(setting) in self._tried:
            return None
        self._tried[repr(setting)] = trial
        return {key: value for key, value in point.items() if key in setting}


def _study(name: str, seed: int) -> optuna.Study:
    own = derive_seed(seed, "sweep", name) % 2**32
    with warnings.catch_warnings():  # as old as 2.8, but still called experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        tpe = optuna.samplers.TPESampler(seed=own, multivariate=True, constant_liar=True)
    return optuna.create_study(
        direction="maximize", sampler=tpe if name == "tpe" else optuna.samplers.RandomSampler(seed=own)
    )


def _value(axis: Axis, trial: optuna.Trial) -> Any:
    """What a trial says of an axis."""
    d = axis.distribution
    if isinstance(d, IntDistribution):
        return trial.suggest_int(axis.key, d.low, d.high, log=d.log)
    if isinstance(d, FloatDistribution):
        return min(max(rounded(trial.suggest_float(axis.key, d.low, d.high, log=d.log)), d.low), d.high)
    assert isinstance(d, CategoricalDistribution) and axis.values is not None
    return axis.values[d.choices.index(trial.suggest_categorical(axis.key, d.choices))]


def write_study(storage: str, name: str, space: Space, scored: Sequence[Scored], metric: str) -> None:
    """Adds the scored settings that a study in a storage of Optuna does not have yet; makes the study if there is none.

    Arguments:
        storage: what Optuna takes: a URL such as sqlite:///study.db. name: of the study.

    Raises `RunError` if the storage cannot be written.
    """
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        study.set_user_attr("metric", metric)
        there = {str(trial.user_attrs.get("setting")) for trial in study.get_trials(deepcopy=False)}
        for one in scored:
            words = ", ".join(f"{key}={value}" for key, value in one.point.items())
            if words not in there:
                study.add_trial(
                    optuna.trial.create_trial(
                        params={key: shown(value) for key, value in one.point.items()},
                        distributions={axis.key: axis.distribution for axis in space.axes if axis.key in one.point},
                        value=one.mean,
                        user_attrs={"setting": words, "spread": one.spread, "seeds": one.seeds},
                    )
                )
    except Exception as error:  # a storage may be any database, each with errors of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(
            f"trials cannot be written to this storage: {reason}",
            where=storage,
            remedy="give for example sqlite:///study.db; the ledger has all results",
        ) from error
