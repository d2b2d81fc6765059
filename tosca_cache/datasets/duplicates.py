"""Images that are there more than once: in train and test, or in several classes.

Compared are the bytes of files. Few of them are read whole: files of different sizes differ, and so do most of those whose
last bytes differ.
"""

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
from tosca_cache.datasets.names import SHOWN
from tosca_cache.datasets.rows import keep_rows
from tosca_cache.errors import DatasetError, UsageError
from tosca_cache.text import one_line

T = TypeVar("T")
KEEP, DROP, FAIL = "keep", "drop", "fail"
POLICIES = (KEEP, DROP, FAIL)
_TAIL = 4096  # bytes at the end of a file that are looked at first
_THREADS = 16
_PART = 64  # files that a thread takes at a time
_BOTH, _AMBIGUOUS = "train images that are also in test", "images that stand in several classes"


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
    both: tuple[tuple[Place, ...], ...]
    classes: tuple[tuple[Place, ...], ...]

    def __bool__(self) -> bool:
        return bool(self.both or self.classes)

    @property
    def test_rows(self) -> int:
        """How many test images are also in train."""
        return sum(place.split == "test" for group in self.both for place in group)

    def lines(self) -> list[str]:
        """How many there are, naming five."""
        said = (
            (self.both, "test images that are also in train", self.test_rows),
            (self.classes, "images that stand in several classes", len(self.classes)),
        )
        return [f"{what}: {count} ({self._named(groups)})" for groups, what, count in said if groups]

    def dropped(self) -> dict[str, list[Place]]:
        """Why -> rows that `drop` leaves out: all of what stands in several classes, and what train has of test."""
        ambiguous = {place for group in self.classes for place in group}
        both = {place for group in self.both for place in group if place.split == "train"}
        found = {_AMBIGUOUS: sorted(ambiguous), _BOTH: sorted(both - ambiguous)}
        return {why: places for why, places in found.items() if places}

    def _named(self, groups: tuple[tuple[Place, ...], ...]) -> str:
        named = (" = ".join(self.path(place) for place in group[:SHOWN]) for group in groups[:SHOWN])
        return "; ".join(named) + ("; ..." if len(groups) > SHOWN else "")

    def path(self, place: Place) -> str:
        """The path of a row as text."""
        return one_line(self.dataset.splits[place.split].paths[place.row])


def find_duplicates(dataset: ImageDataset) -> Duplicates:
    """Reads as much of the files of a dataset as it takes; those that cannot be read are left to whoever decodes them."""
    places = [Place(split, row) for split, rows in dataset.splits.items() for row in range(len(rows))]
    groups = [places]
    for look in (_size, _tail, _digest):
        groups = _apart(dataset, groups, look)
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
        raise UsageError(
            f"{dataset.name} is taken as it was published",
            where=f"--duplicates {policy}",
            remedy="leave --duplicates out; it is for folders and lists of your own",
        )
    found = find_duplicates(dataset)
    if found and policy == FAIL:
        raise DatasetError(
            "; ".join(found.lines()),
            where=dataset.listed_in or dataset.root,
            remedy="remove the copies that are wrong, or leave them out with --duplicates drop",
        )
    dropped = found.dropped()
    gone = {
        split: [p.row for places in dropped.values() for p in places if p.split == split] for split in dataset.splits
    }
    kept = keep_rows(dataset, {s: np.setdiff1d(np.arange(len(rows)), gone[s]) for s, rows in dataset.splits.items()})
    _refuse_empty(dataset, kept)
    left_out = {why: [found.path(place) for place in places] for why, places in dropped.items()}
    return replace(kept, left_out={**dataset.left_out, **left_out}, unchecked=False)


def _refuse_empty(dataset: ImageDataset, kept: ImageDataset) -> None:
    for split, rows in kept.splits.items():
        gone = np.setdiff1d(dataset.splits[split].labels, rows.labels)
        if gone.size:
            names = ", ".join(f"'{one_line(dataset.class_names[label])}'" for label in gone[:SHOWN])
            raise DatasetError(
                f"--duplicates drop leaves {gone.size} classes without images in {split}: {names}",
                where=dataset.listed_in or dataset.root,
                remedy="give these classes images of their own, or leave --duplicates out",
            )


def _apart(dataset: ImageDataset, groups: list[list[Place]], look: Callable[[str], Hashable]) -> list[list[Place]]:
    """Groups taken apart into rows that look alike; only those of at least two rows."""
    numbered = [(number, place) for number, group in enumerate(groups) for place in group]
    files = [dataset.where(*place) for _, place in numbered]
    seen = map_files(look, files)
    alike: dict[Hashable, list[Place]] = defaultdict(list)
    for (number, place), found in zip(numbered, seen, strict=True):
        if found is not None:
            alike[number, found].append(place)
    return [group for group in alike.values() if len(group) > 1]


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
    try:
        with open(file, "rb") as opened:  # noqa: PTH123 called for every image
            opened.seek(-min(_TAIL, os.fstat(opened.fileno()).st_size), os.SEEK_END)
            return hashlib.sha256(opened.read()).digest()
    except OSError:
        return None


def _digest(file: str) -> bytes | None:
    try:
        with open(file, "rb") as opened:  # noqa: PTH123
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return None
