"""Images that are there more than once, by the bytes of their files: in train and test, or in several classes."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.names import SHOWN, listed
from tosca_cache.datasets.rows import keep_rows
from tosca_cache.errors import DatasetError, UsageError
from tosca_cache.text import one_line

T = TypeVar("T")
KEEP, DROP, FAIL = "keep", "drop", "fail"
POLICIES = (KEEP, DROP, FAIL)
_TAIL = 4096  # bytes at the end of a file that are looked at first
_THREADS, _PART = 16, 64  # files that a thread takes at a time
Group = tuple["Place", ...]


class Place(NamedTuple):
    """One row of a dataset."""

    split: str
    row: int


@dataclass(frozen=True)
class Duplicates:
    """What is there more than once; each group are the rows of one content.

    both: groups with rows in train and in test. classes: groups with rows of several classes.
    """

    dataset: ImageDataset
    both: tuple[Group, ...]
    classes: tuple[Group, ...]

    def lines(self) -> list[str]:
        """How many there are, naming five."""
        tests = sum(place.split == "test" for group in self.both for place in group)
        said = (
            (self.both, "test images that are also in train", tests),
            (self.classes, "images that stand in several classes", len(self.classes)),
        )
        return [f"{what}: {count} ({self._named(groups)})" for groups, what, count in said if groups]

    def dropped(self) -> dict[str, list[Place]]:
        """Why -> rows that `drop` leaves out: all of what stands in several classes, and what train has of test."""
        ambiguous = {place for group in self.classes for place in group}
        both = {place for group in self.both for place in group if place.split == "train"}
        found = {
            "images that stand in several classes": sorted(ambiguous),
            "train images that are also in test": sorted(both - ambiguous),
        }
        return {why: places for why, places in found.items() if places}

    def _named(self, groups: tuple[Group, ...]) -> str:
        named = (" = ".join(self.path(place) for place in group[:SHOWN]) for group in groups[:SHOWN])
        return "; ".join(named) + ("; ..." if len(groups) > SHOWN else "")

    def path(self, place: Place) -> str:
        """The path of a row as text."""
        return one_line(self.dataset.splits[place.split].paths[place.row])


def find_duplicates(dataset: ImageDataset) -> Duplicates:
    """Compares files by size, the digest of their last bytes, then of all; those that cannot be read are left alone."""
    groups = [[Place(split, row) for split, rows in dataset.splits.items() for row in range(len(rows))]]
    for look in (_size, _tail, _digest):
        members = [(number, place) for number, group in enumerate(groups) for place in group]
        seen = map_files(look, [dataset.where(*place) for _, place in members])
        alike: dict[Hashable, list[Place]] = defaultdict(list)
        for (number, place), found in zip(members, seen, strict=True):
            if found is not None:
                alike[number, found].append(place)
        groups = [group for group in alike.values() if len(group) > 1]
    ordered = sorted(tuple(sorted(group)) for group in groups)
    both = tuple(group for group in ordered if len({place.split for place in group}) > 1)
    classes = tuple(group for group in ordered if len({int(dataset.splits[p.split].labels[p.row]) for p in group}) > 1)
    return Duplicates(dataset, both, classes)


def without_duplicates(dataset: ImageDataset, policy: str) -> ImageDataset:
    """The dataset as a policy wants it: `keep` leaves all to a remark, `drop` leaves out, `fail` refuses.

    Raises `DatasetError` if the policy is `fail` and there are any, or if dropping them leaves a class without images;
    `UsageError` for a dataset that is taken as it was published.
    """
    if policy == KEEP:
        return dataset
    if not dataset.unchecked:
        remedy = "leave --duplicates out; it is for folders and lists of your own"
        raise UsageError(f"{dataset.name} is taken as it was published", where=f"--duplicates {policy}", remedy=remedy)
    found, where = find_duplicates(dataset), dataset.listed_in or dataset.root
    if policy == FAIL and (lines := found.lines()):
        remedy = "remove the copies that are wrong, or leave them out with --duplicates drop"
        raise DatasetError("; ".join(lines), where=where, remedy=remedy)
    dropped, rows = found.dropped(), {}
    for name, split in dataset.splits.items():
        gone = [place.row for places in dropped.values() for place in places if place.split == name]
        rows[name] = np.setdiff1d(np.arange(len(split)), gone)
        if (lost := np.setdiff1d(split.labels, split.labels[rows[name]])).size:
            names = listed([dataset.class_names[label] for label in lost])
            remedy = "give these classes images of their own, or leave --duplicates out"
            problem = f"--duplicates drop leaves {lost.size} classes without images in {name}: {names}"
            raise DatasetError(problem, where=where, remedy=remedy)
    left_out = {why: [found.path(place) for place in places] for why, places in dropped.items()}
    return replace(keep_rows(dataset, rows), left_out={**dataset.left_out, **left_out}, unchecked=False)


def map_files(look: Callable[[str], T], files: Sequence[str]) -> list[T]:
    """What a look at each file gives, by several threads: the file system of a network answers many at once."""
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(
            lambda start: [look(file) for file in files[start : start + _PART]], range(0, len(files), _PART)
        )
        return [found for part in parts for found in part]


def _size(file: str) -> int | None:
    """Bytes; None for an empty file, which is no image, and for one that cannot be read."""
    try:
        return os.stat(file).st_size or None  # noqa: PTH116 called for every image
    except OSError:
        return None


def _tail(file: str) -> bytes | None:
    return _digest(file, _TAIL)


def _digest(file: str, last: int | None = None) -> bytes | None:
    """SHA-256 of a file, or of its last bytes."""
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 called for every image
            if last is not None:
                opened.seek(-min(last, os.fstat(opened.fileno()).st_size), os.SEEK_END)
                return hashlib.sha256(opened.read()).digest()
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return None
