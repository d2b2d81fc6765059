"""One axis of a search space: the values that one setting takes, and when it takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tosca_cache.config.checks import Check, OrNone
from tosca_cache.config.schema import KEYS, check_of, check_value, unknown_key
from tosca_cache.errors import ConfigError

# Enough for every setting there is; a longer axis is a slip of the keyboard that would only fill the memory.
MOST_VALUES = 10_000

_STORE = "It chooses the store, and a sweep runs on one store."
_STORE_REMEDY = "Run one sweep for each store."
_TASKS = ("It says what a task is, and scores of different tasks cannot be compared.", "Give it with --incremental.")
_SEEDS = ("Seeds are not searched: every setting runs with the same ones.", "Give them with --seeds 1993,1994,1995.")
NOT_SWEPT: dict[str, tuple[str, str]] = {  # key: why it is no axis, and what to do instead
    **dict.fromkeys(("dataset", "backbone", "normalize", "img_size", "views"), (_STORE, _STORE_REMEDY)),
    "incremental": _TASKS,
    "task_sizes": (_TASKS[0], "Give them with --task-sizes."),
    "class_order": (_TASKS[0], "Give it with --class-order."),
    "shots": (_TASKS[0], "Give them with --shots."),
    "seeds": _SEEDS,
    "seed": _SEEDS,  # the name that `tosca train --seed` has taught
    "device": ("It says where a sweep runs, not what it runs.", "Give it with --device."),
    "engine": ("It says how a sweep computes, not what.", "Give it with --engine."),
}
_NOT_ASKED = ("seeds", "seed", "device", "engine")  # what no condition can refer to, as a point does not depend on it


@dataclass(frozen=True)
class Span:
    """A range that a sampler may draw from.

    kind: "log" (uniform in the logarithm), "lin" (uniform) or "int" (whole numbers).
    low, high: the ends, both included.
    step: distance of the whole numbers; 0 in the other kinds.
    """

    kind: str
    low: float
    high: float
    step: int = 0


@dataclass(frozen=True)
class Condition:
    """Holds if the setting has one of `values` for `key`."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Axis:
    """What one key of `TrainConfig` takes.

    key: the setting.
    values: every value in its own type, no two alike; None if the axis is continuous.
    span: the range behind the values, if neighbours are near each other and all lie on one range; None for a list.
    when: the axis is active where all of these hold; elsewhere its key is left out of a point.
    where: the place that gave the axis, for errors. Two axes that differ only here are equal.
    """

    key: str
    values: tuple[Any, ...] | None
    span: Span | None = None
    when: tuple[Condition, ...] = ()
    where: str = field(default="", compare=False)

    def active(self, setting: Mapping[str, Any]) -> bool:
        """Whether a run with this setting has the axis. `setting` holds at least the keys of the conditions."""
        return all(setting[condition.key] in condition.values for condition in self.when)


def check_key(key: str, where: str) -> Check:
    """What the axis `key` takes. Raises `ConfigError` if there is no such key or it cannot be swept."""
    if key in NOT_SWEPT:
        reason, remedy = NOT_SWEPT[key]
        raise ConfigError(f"{key} cannot be swept. {reason}", where=where, remedy=remedy)
    if key not in KEYS:
        raise unknown_key(key, tuple(known for known in KEYS if known not in NOT_SWEPT), where)
    return check_of(key)


def values_axis(key: str, values: Iterable[object], where: str, when: tuple[Condition, ...] = ()) -> Axis:
    """An axis of listed values, each in the type of its key; equal ones count once. Raises `ConfigError`."""
    check_key(key, where)
    checked = tuple(dict.fromkeys(check_value(key, value, where=where) for value in values))
    if not checked:
        raise ConfigError(f"{key} has no values.", where=where, remedy="Give one or more.")
    if len(checked) > MOST_VALUES:
        raise too_many(key, len(checked), where)
    return Axis(key, checked, when=when, where=where)


def check_asked(key: str, where: str) -> None:
    """Raises `ConfigError` if no condition can refer to `key`."""
    if key in _NOT_ASKED:
        problem = f"A condition cannot ask for {key}: no setting of a sweep depends on it."
        raise ConfigError(problem, where=where, remedy="Take another key.")
    if key not in KEYS:
        raise unknown_key(key, tuple(known for known in KEYS if known not in _NOT_ASKED), where)


def condition(key: str, values: Iterable[object], where: str) -> Condition:
    """The condition that `key` has one of `values`. Raises `ConfigError` for an unknown key or an impossible value."""
    check_asked(key, where)
    checked = tuple(dict.fromkeys(check_value(key, value, where=where) for value in values))
    if not checked:
        raise ConfigError(f"The condition on {key} has no values.", where=where, remedy="Give one or more.")
    return Condition(key, checked)


def too_many(key: str, count: int, where: str) -> ConfigError:
    """The error for an axis of too many values."""
    return ConfigError(
        f"{key} would have {count} values; at most {MOST_VALUES} are taken.",
        where=where,
        remedy="Give fewer, or a larger step; a range without a count is drawn from by random and tpe.",
    )


def inner_check(check: Check) -> Check:
    """What a key takes when it is not None."""
    return check.inner if isinstance(check, OrNone) else check


def rounded(number: float) -> float:
    """The number to 6 significant digits: what a range gives between its ends, short to read and equal to retype."""
    return float(f"{number:.6g}")
