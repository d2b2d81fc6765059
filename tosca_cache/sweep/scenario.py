"""What a cell is trained on and what it is scored on: where honesty about test rows is decided.

val          a part of each class's train rows is held out and scored on; the rest is trained on
first-task   the same, of the first task alone (methods.md 15, "Related")
half-1, -2   one half of the classes, in the store's order: train rows trained on, test rows scored on (methods.md 15)
test         all train rows trained on, test rows scored on: to report with, or openly as an oracle to choose with

Where tasks are domains, a part of each class of each domain is held out; halves are of class streams.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tosca_cache.config import TrainConfig
from tosca_cache.errors import UsageError
from tosca_cache.runs.experiment import make_stream
from tosca_cache.seeds import numpy_generator
from tosca_cache.store import Store
from tosca_cache.tasks import Arrays, TaskStream, load_splits

IntArray = NDArray[np.int64]
HELD_OUT = ("val", "first-task")


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


def read_data(store: Store, incremental: str = "classes", *, most: float | None = None) -> Data:
    """Both splits, see `load_splits`; raises `StoreError` if tasks are to be domains and there is only one."""
    train, test = load_splits(store, incremental, most=most)
    return Data(train, test, store.class_names, store.domain_names)


def make_scenario(scenario: Scenario, config: TrainConfig, data: Data, seed: int) -> TaskStream:
    """The task stream of a cell; its test rows are those that the cell is scored on."""
    domains = config.incremental == "domains"
    if scenario.rows.startswith("half-"):
        data = _half(config, data, first=scenario.rows == "half-1")
    if scenario.rows in HELD_OUT:
        data = hold_out(data, scenario.fraction, seed, by_domain=domains)
    names = data.domain_names if domains else ()
    stream = make_stream(config, (data.train, data.test), data.class_names, seed, names)
    return stream.first(1) if scenario.rows == "first-task" else stream


def hold_out(data: Data, fraction: float, seed: int, *, by_domain: bool = False) -> Data:
    """Train rows with a part of each class taken out, and that part (its clean view is scored on) in place of test rows.

    The rows depend on the seed and the class (and domain) alone, so all settings of one seed are scored on the same ones.

    Arguments:
        by_domain: take a part of each class of each domain.

    Raises `UsageError` if a class (of a domain) has one row only.
    """
    train, kept, held = data.train, [], []
    domains = train.domains if by_domain and train.domains is not None else np.zeros_like(train.labels)
    for d, c in np.unique(np.stack([domains, train.labels], axis=1), axis=0):
        names = (data.class_names[c], data.domain_names[d]) if by_domain else (data.class_names[c],)
        rows = np.flatnonzero((domains == d) & (train.labels == c))
        if len(rows) < 2:
            raise UsageError(
                f"class {' of domain '.join(map(repr, names))} has one train row, so that none can be held out",
                where="--select val",
                remedy="use --select two-phase, which holds out classes",
            )
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        drawn = numpy_generator(seed, "held out", *names).permutation(rows)
        held.append(drawn[:count])
        kept.append(drawn[count:])
    splits = [train.part(np.sort(np.concatenate(rows))) for rows in (kept, held)]
    return replace(data, train=splits[0], test=splits[1])


def _half(config: TrainConfig, data: Data, *, first: bool) -> Data:
    """One half of the classes; raises `UsageError` for tasks that a half cannot have."""
    half = len(data.class_names) // 2
    own = [name for name in ("task_sizes", "class_order") if getattr(config, name) is not None]
    for name in ["incremental domains", *own] if config.incremental == "domains" else own:
        problem = f"{name} says what the tasks of all classes are, and half of the classes have no such tasks"
        raise UsageError(problem, where="--select two-phase", remedy="use --select val")
    if (most := max(config.increment, config.init_cls or 0)) > half:
        raise UsageError(
            f"half of the classes are {half}, fewer than the {most} of a task",
            where="--select two-phase",
            remedy="use a smaller increment, or --select val",
        )
    return data.only(np.arange(half) + (0 if first else half))
