"""Which tasks a stream has, and the label that every row is learned under.

Labels are numbered in the order in which they are learned ("class indices"): the first class of the first task is 0. In a
class-incremental stream a class index is a position in the class order. In a domain-incremental stream it is a class of a
domain: domains with the same classes have labels of their own, so that each has its own prototypes and head rows, and
whatever learns sees blocks of labels as ever. What is predicted and scored is the class; `TaskStream.class_of` says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tosca_cache.config import INCREMENTAL
from tosca_cache.errors import StoreError, UsageError
from tosca_cache.seeds import numpy_generator
from tosca_cache.splits import Arrays, check_numbers

IntArray = NDArray[np.int64]


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


def given_order(order: Sequence[int | str], class_names: Sequence[str]) -> IntArray:
    """The original class index learned at each position, [classes], of an order that was given.

    Arguments:
        order: each class once, by its name or its index. A text is a name wherever a class has that name; otherwise, if it
            is a whole number, an index. So where names are numbers, indices must be given as numbers.

    Raises `UsageError` for a class that is unknown, is there twice, or is missing.
    """
    by_name, found = {name: c for c, name in enumerate(class_names)}, list[int]()
    for asked in order:
        text = str(asked).strip()
        index = int(text) if text.isdecimal() and len(text) < 20 and not isinstance(asked, bool) else -1
        c = by_name.get(asked, by_name.get(text, index)) if isinstance(asked, str) else index
        if not 0 <= c < len(class_names):
            near = get_close_matches(text[:100], class_names, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            remedy = f"{hint}give the classes' names, or indices from 0 to {len(class_names) - 1}"
            raise UsageError(f"there is no class {asked!r}", where="--class-order", remedy=remedy)
        found.append(c)
    counts = np.bincount(found, minlength=len(class_names))
    odd = int(counts.argmax() if counts.max() > 1 else counts.argmin())
    if counts[odd] != 1:
        problem = f"class {class_names[odd]!r} stands {counts[odd]} times in the class order"
        raise UsageError(problem, where="--class-order", remedy="name every class once")
    return np.array(found, dtype=np.int64)


def few_shot(labels: IntArray, few: IntArray, names: Sequence[str], *, shots: int, seed: int) -> IntArray:
    """Positions in `labels` that a few-shot protocol keeps, ascending: `shots` rows of each label of `few`, all others.

    Which ones is drawn by (seed, its name), so that neither the other classes nor their order change it (methods.md 8;
    the published shots are listed by file name, and are others).

    Raises `UsageError` if `shots` is below 1 or a class has fewer rows.
    """
    counts = np.bincount(labels, minlength=len(names))[few]
    if shots < 1:
        raise UsageError(f"{shots} shots of each class were asked for", where="shots", remedy="use 1 or more")
    if len(few) and shots > counts.min():
        raise UsageError(
            f"class {names[few[counts.argmin()]]} has {counts.min()} train rows, but {shots} of each class of the"
            f" later tasks were asked for ({int((counts < shots).sum())} classes have fewer)",
            where="shots",
            remedy=f"use {counts.min()} shots or fewer, or leave these classes out",
        )
    kept = np.ones(len(labels), dtype=bool)
    for c in few:
        rows = np.flatnonzero(labels == c)
        kept[rows] = False
        kept[numpy_generator(seed, "shots", names[c]).choice(rows, shots, replace=False)] = True
    return np.flatnonzero(kept)


@dataclass(frozen=True)
class Protocol:
    """What a task brings, and in which order.

    increment, init_cls: classes of each task, of the first task (see the function `task_sizes`).
    task_sizes: the classes of every task instead, one number a task.
    seed, shuffle: what draws the order of classes, or of domains (see the function `class_order`).
    class_order: the classes in their order instead, by names or indices; see `given_order`.
    shots: few-shot tasks after the first: train rows kept of each of their classes, see `few_shot`; None: all.
    incremental: what a task brings: `classes`, or `domains` (one, with all its classes).

    Raises `UsageError` for an unknown kind, for sizes or an order where domains decide, and for sizes given twice or not.
    """

    increment: int | None = None
    init_cls: int | None = None
    task_sizes: Sequence[int] | None = None
    seed: int = 1993
    shuffle: bool = True
    class_order: Sequence[int | str] | None = None
    shots: int | None = None
    incremental: str = "classes"

    def __post_init__(self) -> None:
        sizes = (self.increment, self.init_cls) != (None, None), self.task_sizes is not None
        if self.incremental not in INCREMENTAL:
            problem, remedy = f"a task cannot bring {self.incremental!r}", f"choose one of {', '.join(INCREMENTAL)}"
        elif self.incremental == "domains" and (any(sizes) or self.class_order is not None):
            problem, remedy = (
                "each domain is a task, with all its classes",
                "leave sizes of tasks and a class order out",
            )
        elif self.incremental == "classes" and (all(sizes) or (self.increment is None and not sizes[1])):
            problem, remedy = "how many classes a task brings is said twice or not", "give increment, or task_sizes"
        else:
            return
        raise UsageError(problem, where="incremental", remedy=remedy)

    def sizes_of(self, classes: int) -> list[int]:
        """Classes in each task of a class-incremental stream."""
        if self.task_sizes is None:
            assert self.increment is not None
            return task_sizes(classes, self.increment, self.init_cls)
        sizes = [int(size) for size in self.task_sizes]
        if min(sizes, default=0) < 1 or sum(sizes) != classes:
            problem = f"the sizes of the {len(sizes)} tasks sum up to {sum(sizes)}, but there are {classes} classes"
            raise UsageError(problem, where="--task-sizes", remedy=f"give one number a task, {classes} in all")
        return sizes

    def order_of(self, class_names: Sequence[str]) -> IntArray:
        """The original class index learned at each position, [classes], of a class-incremental stream."""
        if self.class_order is not None:
            return given_order(self.class_order, class_names)
        return class_order(len(class_names), self.seed, shuffle=self.shuffle)

    def names_of(self, class_names: Sequence[str]) -> list[list[str]]:
        """The names of each task's classes of a class-incremental stream."""
        stops = np.cumsum(self.sizes_of(len(class_names)))
        names = [class_names[c] for c in self.order_of(class_names)]
        return [names[start:stop] for start, stop in pairwise((0, *stops.tolist()))]


def numbered(
    train: Arrays, test: Arrays, class_names: Sequence[str], domain_names: Sequence[str], protocol: Protocol
) -> tuple[list[int], IntArray, IntArray, list[str], list[str], list[IntArray]]:
    """(sizes, class_of, order, domain_names) of a `TaskStream`, the name of each class index, and every row's, by split.

    Where tasks are classes, class indices are places in the class order; where tasks are domains, the classes of each
    domain that have rows, domains in their order, classes as listed.

    Raises `StoreError` for rows without a class or a domain that exists, and if a class (of a domain) has rows in one split
    only.
    """
    C, splits = len(class_names), {"train": train, "test": test}
    for split, arrays in splits.items():
        rows = len(arrays.features) if arrays.rows is None else len(arrays.rows)
        check_numbers(split, "label", arrays.labels, rows, C)
    if protocol.incremental == "domains":
        of = {s: np.empty(0, dtype=np.int64) if a.domains is None else a.domains for s, a in splits.items()}
        for split, arrays in splits.items():
            check_numbers(split, "domain", of[split], len(arrays.labels), len(domain_names))
        tasks = np.unique(np.concatenate(list(of.values())))
        tasks = tasks[class_order(len(tasks), protocol.seed, shuffle=protocol.shuffle)]  # as a class order is drawn
        place, order = np.zeros(len(domain_names), dtype=np.int64), np.arange(C)
        place[tasks] = np.arange(len(tasks))
        keys = [place[of[split]] * C + arrays.labels for split, arrays in splits.items()]
        present = np.union1d(*keys)
        sizes = np.bincount(present // C, minlength=len(tasks)).tolist()
        domains = [domain_names[d] for d in tasks.tolist()]
        names = [f"{class_names[key % C]} of domain {domains[key // C]}" for key in present.tolist()]
    else:
        sizes, order, domains = protocol.sizes_of(C), protocol.order_of(class_names), []
        keys, present = [np.argsort(order)[arrays.labels] for arrays in splits.values()], np.arange(C)
        names = [class_names[c] for c in order.tolist()]
    for split, key in zip(splits, keys, strict=True):
        missing = np.flatnonzero(~np.isin(present, key)).tolist()
        if missing:
            raise StoreError(
                f"class {names[missing[0]]} has no {split} rows ({len(missing)} such classes)",
                where=f"split {split}",
                remedy="add images of it there or remove the class, then extract again",
            )
    return sizes, present % C, order, domains, names, [np.searchsorted(present, key) for key in keys]
