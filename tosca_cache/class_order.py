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


def domain_order(domains: IntArray, seed: int, *, shuffle: bool = True) -> IntArray:
    """The domain of each task, of those that some rows have, [T]: drawn from the seed as a class order is."""
    present: IntArray = np.unique(domains)
    return present[class_order(len(present), seed, shuffle=shuffle)]


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


def given_sizes(sizes: Sequence[int], classes: int) -> list[int]:
    """Classes in each task, as given; raises `UsageError` unless each has one and all together have every class."""
    found = [int(size) for size in sizes]
    problem = None
    if not found or min(found) < 1:
        problem = "a task without classes was asked for"
    elif sum(found) != classes:
        problem = f"the sizes of the {len(found)} tasks sum up to {sum(found)}, but there are {classes} classes"
    if problem is not None:
        raise UsageError(problem, where="--task-sizes", remedy=f"give one number a task, {classes} in all")
    return found


def given_order(order: Sequence[int | str], class_names: Sequence[str]) -> IntArray:
    """The original class index learned at each position, [classes], of an order that was given.

    Arguments:
        order: each class once, by its name or its index. A text is a name wherever a class has that name; otherwise, if it
            is a whole number, an index. So where names are numbers, indices must be given as numbers.

    Raises `UsageError` for a class that is unknown, is there twice, or is missing.
    """
    by_name = {name: c for c, name in enumerate(class_names)}
    found: dict[int, int | str] = {}
    for asked in order:
        c = _class_of(asked, by_name, class_names)
        if c in found:
            again = "" if asked == found[c] else f", as {found[c]!r} and as {asked!r}"
            raise _wrong_order(
                f"class {class_names[c]!r} stands twice in the class order{again}", "keep one of the two"
            )
        found[c] = asked
    missing = [name for c, name in enumerate(class_names) if c not in found]
    if missing:
        names = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise _wrong_order(
            f"{len(missing)} of the {len(class_names)} classes are missing from the class order: {names}", "add them"
        )
    return np.fromiter(found, dtype=np.int64)


def _class_of(asked: int | str, by_name: dict[str, int], class_names: Sequence[str]) -> int:
    """The index of a class that is named in an order."""
    if isinstance(asked, str):
        for name in (asked, asked.strip()):
            if name in by_name:
                return by_name[name]
        index = int(asked) if asked.strip().isdecimal() and len(asked) < 20 else -1
    else:
        index = asked if isinstance(asked, int | np.integer) and not isinstance(asked, bool) else -1
    if 0 <= index < len(class_names):
        return int(index)
    near = get_close_matches(str(asked)[:100], class_names, n=3)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise _wrong_order(
        f"there is no class {asked!r}", f"{hint}give the classes' names, or indices from 0 to {len(class_names) - 1}"
    )


def _wrong_order(problem: str, remedy: str) -> UsageError:
    return UsageError(problem, where="--class-order", remedy=remedy)


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
    seed, shuffle: what draws the order of classes, or of domains (see the functions `class_order` and `domain_order`).
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
        by_rule, chosen = (self.increment, self.init_cls) != (None, None), self.task_sizes is not None
        if self.incremental not in INCREMENTAL:
            problem, remedy = f"a task cannot bring {self.incremental!r}", f"choose one of {', '.join(INCREMENTAL)}"
        elif self.incremental == "domains" and (by_rule or chosen):
            problem, remedy = "each domain is a task, so there is no increment", "leave all sizes of tasks out"
        elif self.incremental == "domains" and self.class_order is not None:
            problem, remedy = "each domain is a task, with all its classes", "leave the class order out"
        elif self.incremental == "classes" and by_rule and chosen:
            problem, remedy = "task_sizes says how many classes each task has", "leave increment and init_cls out"
        elif self.incremental == "classes" and self.increment is None and not chosen:
            problem, remedy = "how many classes a task brings is not said", "give increment, or task_sizes"
        else:
            return
        raise UsageError(problem, where="incremental", remedy=remedy)

    def sizes_of(self, classes: int) -> list[int]:
        """Classes in each task of a class-incremental stream."""
        if self.task_sizes is not None:
            return given_sizes(self.task_sizes, classes)
        assert self.increment is not None
        return task_sizes(classes, self.increment, self.init_cls)

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
        tasks = domain_order(np.concatenate(list(of.values())), protocol.seed, shuffle=protocol.shuffle)
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
