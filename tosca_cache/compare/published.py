"""Published numbers, one record a number: `published.csv`, and the values that `tosca reproduce` can run.

Several sources of one cell stand side by side. Backbones that are adapted are another table than frozen ones, always.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from tosca_cache.compare.expectation import find_paper, shipped_papers
from tosca_cache.datasets import known
from tosca_cache.errors import UsageError
from tosca_cache.tasks import task_sizes

Adapted = Literal["no", "first session", "every task", "jointly", "not stated"]
BATCHES = "batch in file order"
FROZEN = "no"
MEANS = ("simplecil", "nmc")  # learners whose last accuracy no class order, seed or option changes
NEAR = 0.15  # points: as near as two digits, and a run of other library versions, let one expect
LAST = ("last_accuracy", "last_accuracy_over_tasks")


class Published(BaseModel):
    """One published number, percent.

    dataset, init_cls, increment, tasks: the protocol; None where the source does not say. backbone: timm's or the source's
    name. adapted: whether and when the backbone was trained. routing: what an answer depends on besides its row, empty for
    nothing. method: our name where it is ours. value: a curve has one number a task. spread: standard deviation over the
    seeds (their number). source: where it stands; kind: paper, log, figure (digitised) or second-hand. features: transform.
    note: what a reader has to know.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    method: str
    metric: str
    value: float | tuple[float, ...]
    backbone: str
    adapted: Adapted
    source: str
    kind: Literal["paper", "log", "figure", "second-hand"]
    init_cls: int | None = None
    increment: int | None = None
    tasks: int | None = None
    routing: str = ""
    spread: float | None = None
    seeds: int | None = None
    features: str = ""
    note: str = ""

    @field_validator("init_cls", "increment", "tasks", "spread", "seeds", mode="before")
    @classmethod
    def _none(cls, given: Any) -> Any:
        return None if given == "" else given

    @field_validator("value", mode="before")
    @classmethod
    def _curve(cls, given: Any) -> Any:
        return tuple(given.split()) if isinstance(given, str) and " " in given else given


@cache
def published() -> tuple[Published, ...]:
    """All records: by dataset, then protocol, in the order of their sources."""
    text = files("tosca_cache.compare").joinpath("published.csv").read_text(encoding="utf-8")
    records = [Published.model_validate(row) for row in csv.DictReader(text.splitlines())]
    return tuple(sorted([*_runnable(), *records], key=lambda one: (one.dataset, one.increment or 0, one.tasks or 0)))


def _runnable() -> list[Published]:
    """The values of `compare.expectation`: all of frozen backbones."""
    records = []
    for one in [one for name in shipped_papers() for one in find_paper(name).expectations]:
        dataset = known(one.dataset)
        assert dataset is not None and one.increment is not None
        common = {
            **{key: getattr(one, key) for key in ("dataset", "method", "backbone", "init_cls", "increment", "source")},
            "tasks": len(task_sizes(dataset.classes, one.increment, one.init_cls)),
            "adapted": FROZEN,
            "kind": "log" if "logs" in one.source or "repository" in one.source else "paper",
            "seeds": len(one.seeds),
            "features": f"{'inputs in [0, 1]' if one.normalize == 'none' else one.normalize}, resize {one.resize}",
            "note": "; ".join(filter(None, ["" if one.shuffle else "tasks in order, not shuffled", one.note])),
        }
        records += [
            Published.model_validate(common | {"metric": metric, "value": value, "spread": one.spreads.get(metric)})
            for metric, value in one.values.items()
        ]
    return records


def under(dataset: str, sizes: Sequence[int]) -> list[Published]:
    """The records of a dataset whose tasks have these numbers of classes."""
    return [one for one in published() if one.dataset == dataset and _fits(one, sizes)]


def _fits(one: Published, sizes: Sequence[int]) -> bool:
    if one.increment is None or (one.tasks is not None and one.tasks != len(sizes)):
        return False
    first = one.init_cls or one.increment
    return sizes[0] == first and all(size == one.increment for size in sizes[1:-1]) and sizes[-1] <= one.increment


def beside(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`rows` of what was published under a comparison's protocol (`compare.summary`); none for few shots or domains."""
    if found.get("incremental") != "classes" or found["shots"]:
        return []
    return rows(under(found["dataset"], found["task_sizes"]))


def rows(records: Iterable[Published]) -> list[dict[str, Any]]:
    """Records side by side, one a learner and source: what they share, and `values`, {metric: {mean, spread}}."""
    shared = ("method", "backbone", "adapted", "routing", "source", "kind", "seeds", "features", "note")
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in records:
        key = tuple(getattr(one, name) for name in shared)
        row = found.setdefault(key, dict(zip(shared, key, strict=True)) | {"values": {}})
        row["values"][one.metric] = {"mean": one.value, "spread": one.spread}
    return list(found.values())


def by_protocol(records: Iterable[Published]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Records by dataset, tasks and whether the backbone was adapted: a title, and the rows of each, best first."""
    found = []
    ordered = sorted(records, key=lambda one: (one.dataset, one.tasks or 0, one.increment or 0, one.adapted != FROZEN))
    for _, group in groupby(ordered, lambda one: (one.dataset, one.tasks, one.increment, one.adapted != FROZEN)):
        some = list(group)
        beside = [row for row in rows(some) if any(name != "accuracy_curve" for name in row["values"])]
        one = some[0]
        sizes = f", {one.increment} classes each" if one.increment else ""
        tasks = f"{one.tasks} tasks{sizes}" if one.tasks else "protocol not stated"
        title = f"{one.dataset}: {tasks}, {'frozen' if one.adapted == FROZEN else 'adapted'} backbone"
        found.append((title, sorted(beside, key=lambda row: -max(_last(row), default=0.0))))
    return found


def _last(row: Mapping[str, Any]) -> list[float]:
    return [value["mean"] for name, value in row["values"].items() if name in LAST]


def implied(dataset: str, accuracy: float, most: int = 5) -> list[tuple[float, Published]]:
    """What a published last accuracy of class means says of its features: the nearest known ones, and how far they are.

    Class means are not trained, and their last accuracy depends on no class order, so that it tells backbone, transform and
    split apart. Raises `UsageError` for a dataset of which none is known.
    """
    of_means = [one for one in published() if one.method in MEANS and one.metric in LAST and one.adapted == FROZEN]
    datasets = sorted({one.dataset for one in of_means})
    if dataset not in datasets:
        raise UsageError(
            f"no accuracy of class means is known for {dataset!r}"[:200],
            where="--which",
            remedy=f"known are {', '.join(datasets)}",
        )
    gaps = [(accuracy - one.value, one) for one in of_means if one.dataset == dataset and isinstance(one.value, float)]
    ordered = sorted(gaps, key=lambda gap: abs(gap[0]))
    distinct = {(one.value, one.backbone, one.features, one.source): (gap, one) for gap, one in reversed(ordered)}
    return list(reversed(distinct.values()))[:most]
