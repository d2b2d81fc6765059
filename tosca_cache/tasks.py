"""Class order and task splits over cached features.

A `TaskStream` cuts a store into tasks. A learner is only ever handed a `Task`, which holds copies of its own train rows and
has no way to reach others; test rows are handed out separately, to the evaluation. Labels are positions in the class order
("learned labels"): the first class learned is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.seeds import numpy_generator

if TYPE_CHECKING:
    from tosca_cache.store import Store

IntArray = NDArray[np.int64]
FloatArray = NDArray[Any]  # float16 or float32, as stored


def class_order(classes: int, seed: int, *, shuffle: bool = True) -> IntArray:
    """The original class index learned at each position, [classes].

    The reference's order: `numpy.random.RandomState(seed).permutation(classes)` (methods.md 18.2), or as listed if not
    shuffled.
    """
    if not shuffle:
        return np.arange(classes, dtype=np.int64)
    return np.random.RandomState(seed).permutation(classes).astype(np.int64)


def task_sizes(classes: int, increment: int, init_cls: int | None = None) -> list[int]:
    """Classes in each task: `init_cls` first, then `increment` each; a remainder is a last, smaller task.

    Raises `UsageError` if a size is below 1 or larger than the number of classes.
    """
    first = increment if init_cls is None else init_cls
    for name, value in (("increment", increment), ("init_cls", first)):
        if not 1 <= value <= classes:
            raise UsageError(
                f"{name} is {value}, but the dataset has {classes} classes",
                where=f"--{name.replace('_', '-')}",
                remedy=f"choose a value from 1 to {classes}",
            )
    sizes = [first]
    while sum(sizes) < classes:
        sizes.append(min(increment, classes - sum(sizes)))
    return sizes


def few_shot(labels: IntArray, few: IntArray, class_names: Sequence[str], *, shots: int, seed: int) -> IntArray:
    """Positions in `labels` that a few-shot protocol keeps, ascending: `shots` rows of each class of `few`, all others.

    Which ones is drawn by (seed, class name), so that neither the other classes nor their order change it (methods.md 8;
    the published shots are listed by file name, and are others).

    Raises `UsageError` if `shots` is below 1 or a class has fewer rows.
    """
    counts = np.bincount(labels, minlength=len(class_names))[few]
    if shots < 1:
        raise UsageError(f"{shots} shots of each class were asked for", where="shots", remedy="use 1 or more")
    if len(few) and shots > counts.min():
        raise UsageError(
            f"class {class_names[few[counts.argmin()]]} has {counts.min()} train rows, but {shots} of each class of the"
            f" later tasks were asked for ({int((counts < shots).sum())} classes have fewer)",
            where="shots",
            remedy=f"use {counts.min()} shots or fewer, or leave these classes out",
        )
    kept = np.ones(len(labels), dtype=bool)
    for c in few:
        rows = np.flatnonzero(labels == c)
        kept[rows] = False
        kept[numpy_generator(seed, "shots", class_names[c]).choice(rows, shots, replace=False)] = True
    return np.flatnonzero(kept)


@dataclass(frozen=True)
class Rows:
    """Some rows of a split.

    features: [n, views, d] as stored; view 0 is the clean one.
    labels: learned labels, [n].
    index: row numbers in the store, [n].
    """

    features: FloatArray
    labels: IntArray
    index: IntArray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Task:
    """What a learner sees of one step: its own train rows and nothing else.

    classes: learned labels of this task's classes; `classes.stop` is the number of classes seen including this task.
    """

    number: int
    classes: range
    train: Rows


@dataclass(frozen=True)
class Arrays:
    """One split of features in memory, or some rows of it.

    features: [N, views, d], held once however many parts of it are in use.
    labels: original labels of the rows that count, [n].
    rows: which rows of `features` these are, [n]; None: all of them, in order.
    """

    features: FloatArray
    labels: IntArray
    rows: IntArray | None = None

    def part(self, positions: IntArray, labels: IntArray | None = None) -> Arrays:
        """Only the rows at some positions of [n], under other labels if given; no feature is copied."""
        rows = positions if self.rows is None else self.rows[positions]
        return Arrays(self.features, self.labels[positions] if labels is None else labels, rows)


class TaskStream:
    """The tasks of one class order, over features held once in memory.

    Arguments:
        train, test: the two splits; labels are original class indices.
        class_names: [C].
        increment, init_cls, seed, shuffle: the protocol, see `task_sizes` and `class_order`.
        shots: few-shot tasks after the first: train rows kept of each of their classes, see `few_shot`; None: all.
    """

    def __init__(
        self,
        train: Arrays,
        test: Arrays,
        *,
        class_names: Sequence[str],
        increment: int,
        init_cls: int | None = None,
        seed: int = 1993,
        shuffle: bool = True,
        shots: int | None = None,
    ) -> None:
        classes = len(class_names)
        self.sizes = task_sizes(classes, increment, init_cls)
        self.order = class_order(classes, seed, shuffle=shuffle)
        self.class_names = tuple(class_names[c] for c in self.order)
        self.stops = np.cumsum(self.sizes).tolist()
        position = np.empty(classes, dtype=np.int64)
        position[self.order] = np.arange(classes)
        for split, arrays in (("train", train), ("test", test)):
            _check_split(split, arrays, class_names)
        if shots is not None:
            train = train.part(few_shot(train.labels, self.order[self.sizes[0] :], class_names, shots=shots, seed=seed))
        self._train, self._test = train, test
        self._train_labels, self._test_labels = position[train.labels], position[test.labels]

    @classmethod
    def from_store(
        cls,
        store: Store,
        *,
        increment: int,
        init_cls: int | None = None,
        seed: int = 1993,
        shuffle: bool = True,
        shots: int | None = None,
    ) -> TaskStream:
        """Reads both splits of a store once; see `load_splits` to share them between streams."""
        train, test = load_splits(store)
        return cls(
            train,
            test,
            class_names=store.class_names,
            increment=increment,
            init_cls=init_cls,
            seed=seed,
            shuffle=shuffle,
            shots=shots,
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Task]:
        return (self.task(number) for number in range(len(self)))

    @property
    def dim(self) -> int:
        """Feature size d."""
        return int(self._train.features.shape[2])

    def classes(self, number: int) -> range:
        """Learned labels of the classes of one task."""
        return range(self.stops[number] - self.sizes[number], self.stops[number])

    def train_counts(self) -> IntArray:
        """Train rows of each task, [T]."""
        return np.bincount(self.task_of_class()[self._train_labels], minlength=len(self)).astype(np.int64)

    def task(self, number: int) -> Task:
        """Task `number` with copies of its train rows, class by class and in store order within a class."""
        rows = _rows_of(self._train, self._train_labels, self.classes(number))
        return Task(number, self.classes(number), rows)

    def test(self, number: int) -> Rows:
        """The test rows of one task, class by class ("file order" of the reference)."""
        return _rows_of(self._test, self._test_labels, self.classes(number))

    def test_labels(self, number: int) -> IntArray:
        """Learned labels of the test rows of one task, in no order."""
        classes = self.classes(number)
        return self._test_labels[(self._test_labels >= classes.start) & (self._test_labels < classes.stop)]

    def task_of_class(self) -> IntArray:
        """Task number of every learned label, [C]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.sizes)


def load_splits(store: Store) -> tuple[Arrays, Arrays]:
    """Train (all views) and test (all views) of a store, read once."""
    train, test = (Arrays(store.features(split), store.labels(split)) for split in ("train", "test"))
    return train, test


def _rows_of(arrays: Arrays, learned: IntArray, classes: range) -> Rows:
    chosen = np.flatnonzero((learned >= classes.start) & (learned < classes.stop))
    chosen = chosen[np.argsort(learned[chosen], kind="stable")]
    rows = chosen if arrays.rows is None else arrays.rows[chosen]
    return Rows(arrays.features[rows], learned[chosen], rows)


def _check_split(split: str, arrays: Arrays, class_names: Sequence[str]) -> None:
    labels, classes = arrays.labels, len(class_names)
    rows = len(arrays.features) if arrays.rows is None else len(arrays.rows)
    if len(labels) != rows:
        raise StoreError(
            f"{rows} feature rows but {len(labels)} labels",
            where=f"split {split}",
            remedy="extract again",
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise StoreError(
            f"labels run from {labels.min()} to {labels.max()}, but there are {classes} classes",
            where=f"split {split}",
            remedy="extract the dataset again",
        )
    missing = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if len(missing):
        raise StoreError(
            f"class {class_names[missing[0]]} has no {split} rows ({len(missing)} such classes)",
            where=f"split {split}",
            remedy="add images of it or remove the class, then extract again",
        )
