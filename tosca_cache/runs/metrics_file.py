"""metrics.json of a run, read as what anybody may have written: every value that is printed has been looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tosca_cache.errors import RunError
from tosca_cache.files import Limit, read_limited, strict_json

METRICS = "metrics.json"
Number = float | None  # None: not defined
Numbers = Annotated[list[Number], Field(min_length=1)]


def _square(rows: list[list[Number]]) -> list[list[Number]]:
    if not rows or any(len(row) != len(rows) for row in rows):
        raise ValueError("not square")
    return rows


Matrix = Annotated[list[list[Number]], AfterValidator(_square)]  # R: [T, T], None above the diagonal


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Seed(_Checked):
    R: Matrix
    tasks: list[list[str]] | None = None
    domains: list[str] | None = None


class _Metrics(_Checked):
    """What is printed of a run. Those with a default came later, or are not in every run."""

    dataset: str
    method: str
    router: str | None
    leaks: str | None = None
    diverged: dict[str, str | None] | None = None
    incremental: str | None = None
    features: str | None = None
    R: Matrix
    accuracy_curve: Numbers
    average_accuracy: Number
    last_accuracy: Number
    forgetting: Number
    task_identification_accuracy: Number
    accuracy_given_right_task: Number
    performance_drop: Number = None
    harmonic_mean: Number = None
    spread: dict[str, Number]
    routing_batch_size: int
    last_accuracy_by_condition: dict[str, Number]
    last_accuracy_by_condition_spread: dict[str, Number]
    seconds: dict[str, float]
    seeds: Annotated[dict[str, _Seed], Field(min_length=1)]


def read_metrics(run: Path) -> dict[str, Any]:
    """metrics.json of a run; raises `RunError` if it is damaged, naming what is not as it must be."""
    where = run / METRICS
    try:
        found: Any = strict_json(read_limited(where, Limit.METRICS))
        _Metrics.model_validate(found)
    except OSError as error:
        why = error.strerror or str(error)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "it"
        why = f"{key} is missing" if first["type"] == "missing" else f"{key} is not as it must be"
    except ValueError as error:
        why = str(error)
    else:
        return dict(found)
    raise RunError(f"metrics cannot be read: {why}", where=where, remedy="train the run again")
