"""Images that are there more than once, by the bytes of their files: in train and test, or in several classes."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.rows import SHOWN, keep_rows, lost_classes
from tosca_cache.errors import DatasetError, UsageError
from tosca_cache.text import one_line

T = TypeVar("T")
KEEP, DROP, FAIL = "keep", "drop", "fail"
POLICIES = (KEEP, DROP, FAIL)
BOTH, CLASSES = "test images that are also in train", "images that stand in several classes"
_TAIL = 4096  # bytes at the end of a file that are looked at first
_THREADS, _PART = 16, 64  # files that a thread takes at a time


class Copy(NamedTuple):
    """One row of a dataset whose content is there more than once."""

    split: str
    row: int
    label: int
    path: str


Groups = Mapping[str, list[list[Copy]]]  # `BOTH` and `CLASSES` -> rows of one content each


def find_duplicates(dataset: ImageDataset) -> Groups:
    """Compares files by size, the digest of their last bytes, then of all; those that cannot be read are left alone."""
    groups = [
        [
            Copy(split, row, label, one_line(path))
            for split, rows in dataset.splits.items()
            for row, (label, path) in enumerate(zip(rows.labels.tolist(), rows.paths, strict=True))
        ]
    ]
    for look in (_size, _tail, _digest):
        members = [(number, copy) for number, group in enumerate(groups) for copy in group]
        seen = map_files(look, [dataset.where(copy.split, copy.row) for _, copy in members])
        alike: dict[Hashable, list[Copy]] = defaultdict(list)
        for (number, copy), found in zip(members, seen, strict=True):
            if found is not None:
                alike[number, found].append(copy)
        groups = [sorted(group) for group in alike.values() if len(group) > 1]
    groups.sort()
    both = [group for group in groups if len({copy.split for copy in group}) > 1]
    return {BOTH: both, CLASSES: [group for group in groups if len({copy.label for copy in group}) > 1]}


def duplicate_lines(found: Groups) -> list[str]:
    """How many there are, naming five."""
    lines = []
    for what, groups in found.items():
        tests = sum(copy.split == "test" for group in groups for copy in group)
        named = "; ".join(" = ".join(copy.path for copy in group[:SHOWN]) for group in groups[:SHOWN])
        more = "; ..." if len(groups) > SHOWN else ""
        lines += [f"{what}: {tests if what == BOTH else len(groups)} ({named}{more})"] if groups else []
    return lines


def without_duplicates(dataset: ImageDataset, policy: str) -> ImageDataset:
    """The dataset as a policy wants it: `keep` leaves all to a remark, `fail` refuses, `drop` leaves out all of what stands
    in several classes, and what train has of test.

    Raises `DatasetError` if the policy is `fail` and there are any, or if dropping them leaves a class without images;
    `UsageError` for a dataset that is taken as it was published.
    """
    if policy == KEEP:
        return dataset
    if not dataset.unchecked:
        remedy = "leave --duplicates out; it is for folders and lists of your own"
        raise UsageError(f"{dataset.name} is taken as it was published", where=f"--duplicates {policy}", remedy=remedy)
    found, where = find_duplicates(dataset), dataset.listed_in or dataset.root
    if policy == FAIL and (lines := duplicate_lines(found)):
        remedy = "remove the copies that are wrong, or leave them out with --duplicates drop"
        raise DatasetError("; ".join(lines), where=where, remedy=remedy)
    several = {copy for group in found[CLASSES] for copy in group}
    also = {copy for group in found[BOTH] for copy in group if copy.split == "train"} - several
    rows = {}
    for name, split in dataset.splits.items():
        rows[name] = np.setdiff1d(np.arange(len(split)), [copy.row for copy in several | also if copy.split == name])
        if lost := lost_classes(dataset, name, rows[name]):
            remedy = "give these classes images of their own, or leave --duplicates out"
            raise DatasetError(
                f"--duplicates drop leaves classes without images in {name}: {lost}", where=where, remedy=remedy
            )
    dropped = {CLASSES: several, "train images that are also in test": also}
    left_out = {why: [copy.path for copy in sorted(copies)] for why, copies in dropped.items() if copies}
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
