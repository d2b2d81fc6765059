"""What a cell is trained on and what it is scored on: where honesty about test rows is decided.

val          a part of each class's train rows is held out and scored on; the rest is trained on
first-task   the same, of the classes of the first task alone (methods.md 15, "Related")
half-1, -2   one half of the classes, in the store's order: train rows trained on, test rows scored on (methods.md 15)
test         all train rows trained on, test rows scored on: to report with, or openly as an oracle to choose with

Where tasks are domains, a part of each class of each domain is held out, the first task is the first domain, and a half is
one half of each domain's classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.config import TrainConfig
from tosca_cache.errors import UsageError
from tosca_cache.runs.experiment import make_stream, protocol_of
from tosca_cache.seeds import numpy_generator
from tosca_cache.store import Store
from tosca_cache.tasks import Arrays, TaskStream, domain_order, given_order, load_splits

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
HELD_OUT = ("val", "first-task")
_AS_LISTED: dict[str, Any] = {"init_cls": None, "task_sizes": None, "shuffle": False, "class_order": None}


@dataclass(frozen=True)
class Scenario:
    """rows: one of the names above. fraction: of the train rows that is held out, where one is."""

    rows: str
    fraction: float = 0.0

    def content(self) -> dict[str, object]:
        """What a cell's address says of it."""
        return {"rows": self.rows} | ({"fraction": self.fraction} if self.rows in HELD_OUT else {})


@dataclass(frozen=True)
class Data:
    """Both splits of a store and the names of its classes and domains."""

    train: Arrays
    test: Arrays
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...] = ()

    def only(self, classes: IntArray) -> Data:
        """Some classes, renumbered in the given order."""
        position = np.full(len(self.class_names), -1)
        position[classes] = np.arange(len(classes))

        def kept(arrays: Arrays) -> Arrays:
            learned = position[arrays.labels]
            chosen = np.flatnonzero(learned >= 0)
            return arrays.part(chosen, learned[chosen])

        return replace(
            self, train=kept(self.train), test=kept(self.test), class_names=tuple(self.class_names[c] for c in classes)
        )

    def where(self, chosen: BoolArray) -> Data:
        """Only some classes of some domains, [domains, C]; classes and domains keep their numbers."""
        splits = [s.part(np.flatnonzero(chosen[_domains(s), s.labels])) for s in (self.train, self.test)]
        return replace(self, train=splits[0], test=splits[1])

    def present(self) -> BoolArray:
        """Which classes of which domains have train rows, [domains, C]."""
        found = np.zeros((len(self.domain_names), len(self.class_names)), dtype=bool)
        found[_domains(self.train), self.train.labels] = True
        return found


def read_data(store: Store, incremental: str = "classes", *, most: float | None = None) -> Data:
    """Both splits, see `load_splits`; raises `StoreError` if tasks are to be domains and there is only one."""
    train, test = load_splits(store, incremental, most=most)
    return Data(train, test, store.class_names, store.domain_names)


def make_scenario(scenario: Scenario, config: TrainConfig, data: Data, seed: int) -> TaskStream:
    """The task stream of a cell; its test rows are those that the cell is scored on."""
    if config.incremental == "domains":
        data = _of_domains(scenario, config, data, seed)
        return make_stream(config, (data.train, data.test), data.class_names, seed, data.domain_names)
    if scenario.rows == "first-task":
        asked = protocol_of(config, seed)
        classes = asked.order_of(data.class_names)[: asked.sizes_of(len(data.class_names))[0]]
        data = data.only(classes)
        config = replace(config, **_AS_LISTED, increment=len(classes))
    if scenario.rows.startswith("half-"):
        half = len(data.class_names) // 2
        classes = np.arange(half) + (half if scenario.rows == "half-2" else 0)
        _check_half(config, half)
        config = _of_half(config, classes, data)
        data = data.only(classes)
    if scenario.rows in HELD_OUT:
        data = hold_out(data, scenario.fraction, seed)
    return make_stream(config, (data.train, data.test), data.class_names, seed)


def _of_domains(scenario: Scenario, config: TrainConfig, data: Data, seed: int) -> Data:
    """The rows of a cell whose tasks are domains."""
    present = data.present()
    if scenario.rows == "first-task":
        first = domain_order(_domains(data.train), seed, shuffle=config.shuffle)[0]
        data = data.where(present & (np.arange(len(present)) == first)[:, None])
    if scenario.rows.startswith("half-"):
        if len(few := np.flatnonzero(present.sum(1) == 1)):
            raise UsageError(
                f"domain {data.domain_names[few[0]]!r} has one class, which has no half",
                where="--select two-phase",
                remedy="use --select val",
            )
        place, half = present.cumsum(1) - 1, present.sum(1, keepdims=True) // 2
        start = half if scenario.rows == "half-2" else 0 * half
        data = data.where(present & (place >= start) & (place < start + half))
    return hold_out(data, scenario.fraction, seed, by_domain=True) if scenario.rows in HELD_OUT else data


def _domains(arrays: Arrays) -> IntArray:
    return np.zeros(len(arrays.labels), dtype=np.int64) if arrays.domains is None else arrays.domains


def hold_out(data: Data, fraction: float, seed: int, *, by_domain: bool = False) -> Data:
    """Train rows with a part of each class taken out, and that part (its clean view is scored on) in place of test rows.

    The rows depend on the seed and the class (and domain) alone, so all settings of one seed are scored on the same ones.

    Arguments:
        by_domain: take a part of each class of each domain.

    Raises `UsageError` if a class (of a domain) has one row only.
    """
    train, kept, held = data.train, [], []
    domains = _domains(train) if by_domain else np.zeros_like(train.labels)
    for d, c in np.argwhere(data.present() if by_domain else np.ones((1, len(data.class_names)))):
        names = (data.class_names[c], data.domain_names[d]) if by_domain else (data.class_names[c],)
        rows = np.flatnonzero((domains == d) & (train.labels == c))
        if len(rows) < 2:
            raise UsageError(
                f"class {' of domain '.join(map(repr, names))} has {len(rows)} train rows, of which none can be held out",
                where="--select val",
                remedy="use --select two-phase, which holds out classes",
            )
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        drawn = numpy_generator(seed, "held out", *names).permutation(rows)
        held.append(drawn[:count])
        kept.append(drawn[count:])
    splits = [train.part(np.sort(np.concatenate(rows))) for rows in (kept, held)]
    return replace(data, train=splits[0], test=splits[1])


def _of_half(config: TrainConfig, classes: IntArray, data: Data) -> TrainConfig:
    """The configuration for some of the classes: an order that was given for all is kept among them."""
    if config.class_order is None:
        return config
    order = given_order(config.class_order, data.class_names)
    kept = order[(order >= classes[0]) & (order <= classes[-1])] - classes[0]
    return replace(config, class_order=tuple(kept.tolist()))


def _check_half(config: TrainConfig, half: int) -> None:
    if config.task_sizes is not None:
        raise UsageError(
            "task_sizes says how many classes each task has, and half of the classes have no such tasks",
            where="--select two-phase",
            remedy="use --select val, or --increment in place of --task-sizes",
        )
    most = max(config.increment, config.init_cls or 0)
    if most > half:
        raise UsageError(
            f"half of the classes are {half}, fewer than the {most} of a task",
            where="--select two-phase",
            remedy="use a smaller increment, or --select val",
        )
