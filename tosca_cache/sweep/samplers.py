"""Which points of a space are tried, in rounds: all of them, or those that a study of Optuna proposes.

A sampler is asked for a round of points, is given their scores, and is asked again. The same space, seed and scores give
the same points, so that an interrupted sweep that starts again asks for what its ledger already knows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tosca_cache.config import TrainConfig
from tosca_cache.errors import RunError, UsageError
from tosca_cache.seeds import derive_seed, numpy_generator
from tosca_cache.sweep.cells import Scored, check_choice, setting_of, with_point
from tosca_cache.sweep.space import Axis, Point, Space, grid, rounded, shown

SAMPLERS = ("grid", "random", "tpe")
STREAM = "sweep"  # the name of the random numbers (`seeds.derive_seed`)
TRIES = 30  # proposals in a row that repeat a setting before an untried one is drawn instead

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Sampler:
    """Asks for points and learns from their scores; no two lead to one setting.

    Under TPE (Bergstra et al., NeurIPS 2011) each proposal counts as a bad one for the next of its round ("constant liar"),
    failed points count as worse than all others, and conditional axes are modelled with those that they depend on
    (`group`). Where proposals repeat themselves, an untried point is drawn from the list of those that are left: a finite
    space is covered exactly.

    Arguments:
        name: "grid" (every point in order), "random" or "tpe".
        base: the setting under the points.
        trials: points in all; None: as many as there are, so that on a continuous range only the caller's budget ends
            the search.
        seed: of random and tpe; the grid has none.

    Raises `UsageError` for an unknown name, fewer than one trial, or a grid over a continuous range.
    """

    def __init__(self, name: str, space: Space, base: TrainConfig, *, trials: int | None, seed: int) -> None:
        check_choice("--sampler", name, SAMPLERS)
        if trials is not None and trials < 1:
            raise UsageError(f"{trials} trials cannot be run.", where="trials", remedy="Give a number of at least 1.")
        self._space, self._base, self._seed = space, base, seed
        self._left = math.inf if trials is None else trials
        self._seen: set[str] = set()
        self._open: dict[str, optuna.Trial] = {}
        self._study = None if name == "grid" else _study(name, seed)
        self._rest: Iterator[Point] | None = iter(grid(space, base)) if name == "grid" else None

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
        if self._study is not None:
            for point, score in zip(points, scores, strict=True):
                trial = self._open.pop(self._setting(point))
                if score is None or not math.isfinite(score):
                    self._study.tell(
                        trial, state=TrialState.PRUNED
                    )  # TPE puts these last, and would forget failed ones
                else:
                    self._study.tell(trial, score)

    def _setting(self, point: Point) -> str:
        """What two points have in common exactly if they lead to one setting."""
        return repr(setting_of(with_point(self._base, point)))

    def _is_new(self, point: Point, trial: optuna.Trial | None = None) -> bool:
        """Whether no earlier point has led to this setting; if so, it is marked as asked for."""
        setting = self._setting(point)
        if setting in self._seen:
            return False
        self._seen.add(setting)
        if trial is not None:
            self._open[setting] = trial
        return True

    def _next(self) -> Point | None:
        if self._study is None:
            return self._untried()
        for _ in range(TRIES):
            trial = self._study.ask()
            point = self._suggested(trial)
            if self._is_new(point, trial):
                return point
            self._study.tell(trial, state=TrialState.FAIL)  # a failed trial has no say
        if (rest := self._untried()) is not None:
            self._study.enqueue_trial({key: shown(value) for key, value in rest.items()})
            trial = self._study.ask()
            self._suggested(trial)
            self._open[self._setting(rest)] = trial
        return rest

    def _untried(self) -> Point | None:
        """The next point that was not asked for: of a grid in its order, else in random order; None of an endless space."""
        if self._rest is None:
            left = grid(self._space, self._base) if self._space.finite else []
            order = numpy_generator(self._seed, STREAM).permutation(len(left))
            self._rest = iter([left[index] for index in order])
        return next((point for point in self._rest if self._is_new(point)), None)

    def _suggested(self, trial: optuna.Trial) -> Point:
        """The point of a trial: only active axes are suggested."""
        point: Point = {}
        for axis in self._space.axes:
            if axis.active(vars(self._base) | point):
                point[axis.key] = _value(axis, trial)
        return point


def _study(name: str, seed: int) -> optuna.Study:
    own = derive_seed(seed, STREAM, name) % 2**32
    if name == "random":
        return optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=own))
    with warnings.catch_warnings():  # group is as old as 2.8, but still called experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        tpe = optuna.samplers.TPESampler(seed=own, multivariate=True, group=True, constant_liar=True)
    return optuna.create_study(direction="maximize", sampler=tpe)


def _value(axis: Axis, trial: optuna.Trial) -> Any:
    """What a trial says of an axis."""
    d = axis.distribution
    if isinstance(d, IntDistribution):
        return trial.suggest_int(axis.key, d.low, d.high, step=d.step)
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
