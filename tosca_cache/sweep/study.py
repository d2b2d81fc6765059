"""Trials of a sweep in a storage of Optuna, for optuna-dashboard and Optuna's own plots; a copy of what the ledger has."""

from __future__ import annotations

from collections.abc import Sequence

from tosca_cache.errors import RunError
from tosca_cache.sweep.space import Space
from tosca_cache.sweep.space.samplers import distribution_of
from tosca_cache.sweep.trials import Scored


def write_study(storage: str, name: str, space: Space, scored: Sequence[Scored], metric: str) -> None:
    """Adds the scored settings that a study does not have yet; makes the study if there is none.

    Arguments:
        storage: what Optuna takes: a URL such as sqlite:///study.db. name: of the study.

    Raises `RunError` if the storage cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        study.set_user_attr("metric", metric)
        there = {str(trial.user_attrs.get("setting")) for trial in study.get_trials(deepcopy=False)}
        for one in scored:
            words = ", ".join(f"{key}={value}" for key, value in one.point.items())
            if words in there:
                continue
            axes = [axis for axis in space.axes if axis.key in one.point]
            study.add_trial(
                optuna.trial.create_trial(
                    params={axis.key: _shown(one.point[axis.key]) for axis in axes},
                    distributions={
                        axis.key: optuna.distributions.CategoricalDistribution([_shown(v) for v in axis.values or ()])
                        if axis.span is None
                        else distribution_of(axis)
                        for axis in axes
                    },
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


def _shown(value: object) -> str | int | float | bool | None:
    """A value as a category of Optuna: lists are texts there."""
    return value if isinstance(value, str | int | float | bool | None) else str(value)
