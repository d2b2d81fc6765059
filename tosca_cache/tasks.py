"""Tasks over cached features: some classes each, or a domain each.

A `TaskStream` cuts a store into tasks. A learner is only ever handed a `Task`, which holds copies of its own train rows and
has no way to reach others; test rows are handed out separately, to the evaluation. Labels are numbered in the order in
which they are learned ("class indices", see `class_order`): the first class of the first task is 0. Of features in several
pieces a stream gives the last one, and to learners that use all (`Learner.pieces`) all: see `TaskStream.seen_by`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.class_order import IntArray, Protocol, class_order, few_shot, numbered, task_sizes
from tosca_cache.config.checks import accept, one_of
from tosca_cache.errors import UsageError
from tosca_cache.shown import Shown, table_html
from tosca_cache.splits import Arrays, FloatArray, StoredFeatures, check_first_task, load_splits, memory_for_features

if TYPE_CHECKING:
    from tosca_cache.store import Store

__all__ = [
    "Arrays",
    "FloatArray",
    "IntArray",
    "Protocol",
    "Rows",
    "Task",
    "TaskStream",
    "class_order",
    "few_shot",
    "load_splits",
    "memory_for_features",
    "task_sizes",
]


PIECES = ("last", "all")  # of a feature, that a stream gives
LABELS = ("names", "original", "positions")  # how classes are told to users


@dataclass(frozen=True, repr=False)
class Rows(Shown):
    """Some rows of a split.

    features: [n, views, d] as stored; view 0 is the clean one.
    labels: class indices, [n].
    index: row numbers in the store, [n].
    """

    features: FloatArray
    labels: IntArray
    index: IntArray

    def facts(self) -> dict[str, Any]:
        """What they are."""
        _, views, dim = self.features.shape
        return {"rows": len(self), "views": views, "dim": dim, "dtype": self.features.dtype.name}

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Task:
    """What a learner sees of one step: its own train rows and nothing else.

    classes: class indices of this task, which no other task has; `classes.stop` is their number including this task. Where
        a task is a domain, another domain's label may stand for the same class: a learner need not know.
    """

    number: int
    classes: range
    train: Rows


class TaskStream(Shown):
    """The tasks of one order of classes or domains, over features held once in memory or left in a store.

    sizes: class indices of each task. stops: their number after each task.
    class_of: the class that is reported for each class index, [L]: a class-incremental stream reports the label itself, a
        domain-incremental one the original class. A prediction is right if its reported class is.
    order: original class index of each reported class, [C]; class_names: their names.
    domain_names: the domain of each task; empty in a class-incremental stream.
    protocol: what was asked for. pieces: of a feature, that it gives: `last` or `all`.

    Arguments:
        train, test: the two splits; labels are original class indices.
        class_names: [C].
        domain_names: of the store's domains; for a protocol whose tasks are domains.
        protocol: what a task brings, and in which order; see `class_order.Protocol` for its fields.

    Raises `FingerprintMismatch` for features of a backbone that was adapted on another first task.
    """

    def __init__(
        self,
        train: Arrays,
        test: Arrays,
        *,
        class_names: Sequence[str],
        domain_names: Sequence[str] = (),
        **protocol: Any,
    ) -> None:
        self.protocol, self.pieces = (asked := Protocol(**protocol)), "last"
        found = numbered(train, test, class_names, domain_names, asked)
        self.sizes, self.class_of, self.order, domains, names, (self._train_labels, self._test_labels) = found
        self.class_names, self.domain_names = tuple(class_names[c] for c in self.order.tolist()), tuple(domains)
        self.stops = np.cumsum(self.sizes).tolist()
        check_first_task(train, self.names(0))
        self._train, self._test = train, test
        if asked.shots is not None:
            later = np.arange(self.sizes[0], len(self.class_of))
            kept = few_shot(self._train_labels, later, names, shots=asked.shots, seed=asked.seed)
            self._train, self._train_labels = train.part(kept), self._train_labels[kept]

    @classmethod
    def from_store(cls, store: Store, **protocol: Any) -> TaskStream:
        """Over a store; what does not fit into memory is read task by task. See `load_splits` to share the rest."""
        asked = Protocol(**protocol)
        train, test = load_splits(store, asked.incremental, most=memory_for_features())
        return cls(train, test, class_names=store.class_names, domain_names=store.domain_names, **protocol)

    def seen_by(self, pieces: str) -> TaskStream:
        """The same stream with the pieces of a feature that a learner uses (`Learner.pieces`): `last` or `all`."""
        accept(one_of(PIECES), "pieces", pieces, "pieces")
        seen = copy.copy(self)
        seen.pieces = pieces
        return seen

    def first(self, tasks: int | None) -> TaskStream:
        """The same stream, ended after so many tasks; all of it if None."""
        if tasks is None:
            return self
        cut = copy.copy(self)
        cut.sizes, cut.stops, cut.domain_names = self.sizes[:tasks], self.stops[:tasks], self.domain_names[:tasks]
        kept = np.flatnonzero(self._train_labels < cut.stops[-1])
        cut._train, cut._train_labels = self._train.part(kept), self._train_labels[kept]
        return cut

    def facts(self) -> dict[str, Any]:
        """What it is."""
        return {
            "tasks": len(self),
            "domains" if self.domain_names else "classes": len(self.domain_names or self.class_names),
            "sizes": " ".join(map(str, self.sizes)),
            "train": len(self._train_labels),
            "test": len(self._test_labels),
            "views": self._train.features.shape[1],
            "dim": self.dim,
        }

    def _repr_html_(self) -> str:
        counts, what = self.train_counts(), ("domain",) if self.domain_names else ()
        rows = [
            (t + 1, *(self.domain_names[t : t + 1]), ", ".join(self.names(t)), counts[t], len(self.test_labels(t)))
            for t in range(len(self))
        ]
        return table_html(repr(self), ("task", *what, "classes", "train rows", "test rows"), rows)

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Task]:
        if not isinstance(self._train.features, StoredFeatures):
            yield from (self.task(number) for number in range(len(self)))
            return
        with ThreadPoolExecutor(1) as ahead:  # reads a task while the one before is learned
            coming = ahead.submit(self.task, 0)
            for number in range(len(self)):
                task = coming.result()
                if number + 1 < len(self):
                    coming = ahead.submit(self.task, number + 1)
                yield task
                del task

    @property
    def dim(self) -> int:
        """Feature size d, of the pieces that it gives."""
        return int(self._train.features.shape[2]) - self._first(self._train)

    def classes(self, number: int) -> range:
        """Learned labels of one task; raises `UsageError` if there is none of that number."""
        if not isinstance(number, int | np.integer) or not 0 <= number < len(self):
            remedy = f"they are counted from 0 to {len(self) - 1}"
            raise UsageError(f"there is no task {number!r}"[:200], where="task", remedy=remedy)
        return range(self.stops[number] - self.sizes[number], self.stops[number])

    def names(self, number: int) -> tuple[str, ...]:
        """Names of the classes of one task, in the order in which they are learned."""
        return tuple(self.class_names[self.class_of[label]] for label in self.classes(number))

    def as_labels(self, reported: IntArray, labels: str = "names") -> NDArray[Any]:
        """Reported classes, of any shape, as a user knows them.

        Arguments:
            labels: `names`; `original`: the indices of the store's labels; or `positions`: places in the class order,
                as `class_names` and `order` have them (where tasks are domains the same as `original`).
        """
        accept(one_of(LABELS), "labels", labels, "labels")
        names = np.array(self.class_names, dtype=object)
        return reported if labels == "positions" else (self.order if labels == "original" else names)[reported]

    def train_counts(self) -> IntArray:
        """Train rows of each task, [T]."""
        return np.bincount(self.task_of_class()[self._train_labels], minlength=len(self)).astype(np.int64)

    def task(self, number: int) -> Task:
        """Task `number` with copies of its train rows, class by class and in store order within a class."""
        return Task(number, self.classes(number), self._rows(self._train, self._train_labels, number))

    def test(self, number: int) -> Rows:
        """The test rows of one task, class by class ("file order" of the reference); see `test_index`."""
        return self._rows(self._test, self._test_labels, number)

    def test_index(self, number: int) -> tuple[IntArray, IntArray]:
        """Class indices and row numbers in the store of the test rows of one task, [n] each, in their order."""
        chosen, rows = _chosen(self._test, self._test_labels, self.classes(number))
        return self._test_labels[chosen], rows

    def test_labels(self, number: int) -> IntArray:
        """Class indices of the test rows of one task, class by class."""
        return self.test_index(number)[0]

    def task_of_class(self) -> IntArray:
        """Task number of every class index, [L]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.sizes)

    def _first(self, arrays: Arrays) -> int:
        return arrays.last if self.pieces == "last" else 0

    def _rows(self, arrays: Arrays, learned: IntArray, number: int) -> Rows:
        chosen, rows = _chosen(arrays, learned, self.classes(number))
        features, first = arrays.features[rows], self._first(arrays)
        return Rows(np.ascontiguousarray(features[..., first:]) if first else features, learned[chosen], rows)


def _chosen(arrays: Arrays, learned: IntArray, classes: range) -> tuple[IntArray, IntArray]:
    """Positions and store rows of some classes, class by class and in store order within a class."""
    chosen = np.flatnonzero((learned >= classes.start) & (learned < classes.stop))
    chosen = chosen[np.argsort(learned[chosen], kind="stable")]
    return chosen, chosen if arrays.rows is None else arrays.rows[chosen]
