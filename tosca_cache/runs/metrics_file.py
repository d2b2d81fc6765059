"""metrics.json of a run, read as what anybody may have written: every value that is printed has been looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tosca_cache.errors import RunError
from tosca_cache.files import Limit, read_limited, strict_json

METRICS = "metrics.json"
MEASURED = (
    "average_accuracy",
    "last_accuracy",
    "forgetting",
    "task_identification_accuracy",
    "accuracy_given_right_task",
)
CONDITIONS = ("per_sample", "batch_shuffled", "batch_in_order", "oracle", "nearest_class_mean", "lda", "pool")
FEW_SHOT = ("performance_drop", "harmonic_mean")
Check = Callable[[Any], bool]


def read_metrics(run: Path) -> dict[str, Any]:
    """metrics.json of a run; raises `RunError` if it is damaged, naming what is not as it must be."""
    where = run / METRICS
    try:
        found = strict_json(read_limited(where, Limit.METRICS))
    except OSError as error:
        raise _unreadable(where, error.strerror or str(error)) from error
    except ValueError as error:
        raise _unreadable(where, str(error)) from error
    if not isinstance(found, dict):
        raise _unreadable(where, "it holds no object")
    for key, check in _CHECKS.items():
        if not check(found.get(key)) or (key not in found and key not in _OPTIONAL):
            raise _unreadable(where, f"{key} is missing" if key not in found else f"{key} is not as it must be")
    return found


def _unreadable(where: Path, why: str) -> RunError:
    return RunError(f"metrics cannot be read: {why}", where=where, remedy="train the run again")


def _number(value: Any) -> bool:
    return value is None or type(value) in (int, float)


def _text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_number, value))


def _matrix(value: Any) -> bool:
    """R: [T, T], null above the diagonal and where nothing is defined."""
    return isinstance(value, list) and bool(value) and all(_numbers(row) and len(row) == len(value) for row in value)


def _has(names: tuple[str, ...]) -> Check:
    return lambda value: (
        isinstance(value, dict)
        and all(_number(value.get(name)) for name in names)
        and all(map(_number, value.values()))
    )


def _seeds(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_seed, value.values()))


def _seed(value: Any) -> bool:
    if not isinstance(value, dict) or not _matrix(value.get("R")):
        return False
    tasks = value.get("tasks")
    return _names(value.get("domains")) and (tasks is None or (isinstance(tasks, list) and all(map(_names, tasks))))


def _names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))


_OPTIONAL = ("leaks", "diverged", "incremental", *FEW_SHOT)
_CHECKS: Mapping[str, Check] = {
    "dataset": lambda value: isinstance(value, str),
    "method": lambda value: isinstance(value, str),
    "router": _text,
    "leaks": _text,
    "diverged": lambda value: value is None or (isinstance(value, dict) and all(map(_text, value.values()))),
    "incremental": _text,
    "R": _matrix,
    "accuracy_curve": _numbers,
    **dict.fromkeys((*MEASURED, *FEW_SHOT), _number),
    "spread": _has(MEASURED),
    "routing_batch_size": lambda value: type(value) is int,
    "last_accuracy_by_condition": _has(CONDITIONS),
    "last_accuracy_by_condition_spread": _has(CONDITIONS),
    "seconds": lambda value: isinstance(value, dict) and all(type(item) in (int, float) for item in value.values()),
    "seeds": _seeds,
}
