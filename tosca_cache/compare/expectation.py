"""Published values as data: which learner under which protocol on which features, what came out, and where that stands.

A file has a `title`, optional `[defaults]`, and `[[expectation]]` tables whose keys are the fields of `Expectation`; what a
table leaves out comes from the defaults.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tosca_cache.config.checks import nearest
from tosca_cache.errors import ConfigError, UsageError
from tosca_cache.files import Limit, read_limited

Measure = Literal[
    "last_accuracy",
    "average_accuracy",
    "last_accuracy_over_tasks",
    "average_accuracy_over_tasks",
    "forgetting",
    "accuracy_curve",
]
Numbers = Annotated[tuple[int, ...], Field(min_length=1)]
VALUES = Path(__file__).with_name("values")  # of the papers whose values come with the package


class Expectation(BaseModel):
    """What was published of one learner on one dataset.

    dataset: a name of `tosca datasets`, or of a folder. method: name of our learner. options: of its constructor.
    source: where the values stand. note: what a reader has to know of them.
    values: percent, by measure; accuracy_curve is a list, one number a task. spreads: their standard deviations over
        seeds, where published.
    increment, init_cls, shuffle, seeds: the protocol; values are means over the seeds. task_sizes, class_order: the
        classes of each task, and the classes in their order, instead.
    backbone, normalize, image_size, resize, interpolation: the features; the clean view is resized to `resize` by its
        shorter side and cropped to `image_size`.
    views: augmented views of a train row that the learner needs.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    dataset: str
    method: str
    source: str
    values: dict[Measure, float | list[float]]
    backbone: str
    normalize: str
    image_size: int
    resize: int
    interpolation: str = "bicubic"
    views: int = 0
    increment: int | None = None
    init_cls: int | None = None
    task_sizes: Numbers = ()
    shuffle: bool = True
    class_order: Annotated[tuple[int | str, ...], Field(min_length=1)] = ()
    seeds: Numbers = (1993,)
    options: dict[str, Any] = {}
    spreads: dict[Measure, float] = {}
    note: str = ""

    @model_validator(mode="after")
    def _has_tasks(self) -> Self:
        if bool(self.task_sizes) == (self.increment is not None) or (self.task_sizes and self.init_cls is not None):
            raise ValueError("give increment (and init_cls), or task_sizes")
        return self

    def under(self, task_sizes: tuple[int, ...], class_order: tuple[int | str, ...]) -> Expectation:
        """The same values beside a run under other tasks than the published ones, which the note then says.

        Raises `UsageError` for a curve of another number of tasks.
        """
        curve = self.values.get("accuracy_curve")
        if task_sizes and isinstance(curve, list) and len(curve) != len(task_sizes):
            raise UsageError(
                f"the published curve has {len(curve)} tasks, --task-sizes {len(task_sizes)}",
                where=self.source,
                remedy="give as many sizes, or values without a curve (--expectation)",
            )
        said = [name for name, given in (("task sizes", task_sizes), ("class order", class_order)) if given]
        if not said:
            return self
        note = f"ours with {' and '.join(said)} of our own, not those published"
        changed: dict[str, Any] = {"note": f"{self.note}; {note}" if self.note else note}
        if task_sizes:
            changed |= {"increment": None, "init_cls": None, "task_sizes": task_sizes}
        return self.model_copy(update=changed | {"class_order": class_order or self.class_order})


class Paper(NamedTuple):
    """The published values of one paper. name: as in `--paper`, or the path of a user's own file."""

    name: str
    title: str
    expectations: tuple[Expectation, ...]

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets that it has values for."""
        return tuple(dict.fromkeys(one.dataset for one in self.expectations))

    def of(self, dataset: str | None) -> tuple[Expectation, ...]:
        """The values for a dataset; without a name, those of the only one. Raises `UsageError` if there is none."""
        if dataset is None and len(self.datasets) == 1:
            return self.expectations
        if dataset not in self.datasets:
            asked = "no dataset was named" if dataset is None else f"{self.name} has no values for {dataset!r}"
            raise UsageError(asked, where="--dataset", remedy=f"choose of {', '.join(self.datasets)}")
        return tuple(one for one in self.expectations if one.dataset == dataset)


def shipped_papers() -> tuple[str, ...]:
    """Names of the papers whose values come with the package."""
    return tuple(sorted(path.stem for path in VALUES.glob("*.toml")))


def find_paper(name: str) -> Paper:
    """The shipped values of a paper; raises `UsageError` if there are none."""
    known = shipped_papers()
    if name not in known:
        remedy = f"did you mean {nearest(name, known)!r}? Known: {', '.join(known)}"
        raise UsageError(f"there are no published values of {name!r}", where="--paper", remedy=remedy)
    return read_paper(VALUES / f"{name}.toml", name)


def read_paper(path: Path, name: str = "") -> Paper:
    """The values of a file; raises `ConfigError` if it is missing, too large or not as it must be."""
    remedy, found = "give a TOML file of published values; see docs/reproduce.md", list[Expectation]()
    try:
        raw = tomllib.loads(read_limited(path, Limit.CONFIG).decode("utf-8-sig"))
        defaults, entries = dict(raw.get("defaults", {})), [dict(entry) for entry in raw["expectation"]]
        for one in entries:
            found.append(Expectation.model_validate_json(json.dumps(defaults | one, default=str)))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part != "[key]")
        if first["type"] == "extra_forbidden":
            remedy = f"did you mean {nearest(key, Expectation.model_fields)!r}?"
        problem = f"expectation {len(found) + 1}: {key}{': ' if key else ''}{first['msg']}"
        raise ConfigError(problem, where=path, remedy=remedy) from error
    except (OSError, ValueError, RecursionError, TypeError) as error:
        raise ConfigError(f"the published values cannot be read: {error}", where=path, remedy=remedy) from error
    except KeyError as error:
        raise ConfigError("there is no [[expectation]]", where=path, remedy=remedy) from error
    return Paper(name or str(path), str(raw.get("title", path)), tuple(found))
