"""Source stores: finished stores whose rows and views can be reused instead of computed.

A store fits if its fingerprint says the same but for how many views there are, their seed, and which images the dataset of
that name has (`FREE`), and if it was computed on a device of the same kind. What it can give of an image depends on where
it has it: in the same split, all views that both stores have (view 0 alone if their seeds differ); in the other split view
0 alone, because the seed of a view follows from the split, too. An image that has changed since the store was begun is not
taken.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.datasets.base import ImageDataset, IntArray
from tosca_cache.errors import StoreError, ToscaWarning
from tosca_cache.extract.shard_buffer import Mask
from tosca_cache.store import SPLITS, Store, StoreSpec, list_stores, open_store

FREE = frozenset(
    (
        "views.count",
        "views.test_count",
        "views.seed",
        "dataset.listing_digest",
        "dataset.classes",
        "dataset.splits.train",
        "dataset.splits.test",
    )
)
NONE = -1  # the row of an image that a store does not have
_STAT_THREADS = 16  # a network's file system answers many at once


@dataclass(frozen=True, eq=False)
class Target:
    """The store that is to be made, as far as sources are concerned. numerics: what its own bits depend on."""

    dataset: ImageDataset
    spec: StoreSpec
    numerics: Mapping[str, Any]

    def views(self, split: str) -> int:
        """1+V of a split."""
        return 1 + int(self.spec.views["count" if split == "train" else "test_count"])


@dataclass(frozen=True, eq=False)
class Match:
    """Images that a source has in its `split`: its row for every wanted row, or `NONE`, [N]; and their first `views`."""

    split: str
    rows: IntArray
    views: int

    def covers(self, views: int, part: slice = slice(None)) -> Mask:
        """Which of `views` wanted views of a part of the rows it has, [n, views]."""
        mask: Mask = (self.rows[part] != NONE)[:, None] & (np.arange(views) < self.views)
        return mask


@dataclass(frozen=True, eq=False)
class SourceStore:
    """A store that fits. matches: a wanted split -> where it has its images. newer: images that have changed since."""

    store: Store
    matches: Mapping[str, tuple[Match, ...]]
    newer: int

    @cached_property
    def digest(self) -> str:
        """The digest of its fingerprint."""
        return self.store.spec.digest()

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.store.path.name

    def covers(self, split: str, views: int) -> Mask:
        """Which views of a wanted split it has, [N, views]."""
        masks = [match.covers(views) for match in self.matches[split]]
        return np.logical_or.reduce(masks)

    def clean_feature(self, split: str, row: int) -> NDArray[np.float32]:
        """View 0 [d] of a wanted row that it has; raises `StoreError` if that is damaged."""
        match = next(match for match in self.matches[split] if match.rows[row] != NONE)
        return self.store.features(match.split, match.rows[[row]], views=0)[0, 0].astype(np.float32)


def device_kind(numerics: Mapping[str, Any]) -> str | None:
    """`cpu`, `gpu` (which numerics have under the chip's name) or another type of torch's; None if there is no device."""
    device = numerics.get("device")
    if not isinstance(device, str):
        return None
    return device if device in ("cpu", "mps", "xpu") else "gpu"


def find_sources(root: Path, wanted: Target, digests: Collection[str] | None = None) -> Iterator[SourceStore]:
    """The finished stores directly below `root` that fit; warns of those that are too damaged to be opened.

    digests: look at the stores of these fingerprints only.
    """
    for summary in list_stores(root):
        spec = summary.spec
        if spec is None or summary.state != "finished" or not _may_give(wanted.spec, spec):
            continue
        if digests is not None and spec.digest() not in digests:
            continue
        try:
            store = open_store(summary.path)
        except StoreError as error:
            warn_damaged(summary.path.name, error)
            continue
        if device_kind(store.manifest.plan.numerics) == device_kind(wanted.numerics) is not None:
            yield match(wanted, store)


def match(wanted: Target, store: Store) -> SourceStore:
    """Finds the wanted images in a store, by split and path; warns of splits whose paths are damaged."""
    theirs = {split: _rows_by_path(store, split) for split in SPLITS}
    splits = wanted.dataset.splits
    same_seed = store.spec.views["seed"] == wanted.spec.views["seed"]
    matches, newer = {}, 0
    for split in SPLITS:
        other = SPLITS[1 - SPLITS.index(split)]
        both = set(splits[split].paths) & set(splits[other].paths)
        paths = splits[split].paths
        own = np.array([theirs[split].get(path, NONE) for path in paths], dtype=np.int64)
        # An image that either has in both splits is not told apart by its path.
        foreign = [NONE if path in both else theirs[other].get(path, NONE) for path in paths]
        moved = np.where(own == NONE, np.array(foreign, dtype=np.int64), NONE)
        changed = _changed_since(wanted.dataset, split, np.maximum(own, moved) != NONE, begun(store))
        newer += int(changed.sum())
        own[changed] = moved[changed] = NONE
        views = min(wanted.views(split), store.views(split)) if same_seed else 1
        matches[split] = (Match(split, own, views), Match(other, moved, 1))
    return SourceStore(store, matches, newer)


def other_numerics(store: Store, numerics: Mapping[str, Any]) -> dict[str, Any]:
    """What a store's bits depend on, as far as it is not in `numerics`; what it took from others plays no part."""
    own = store.manifest.plan.numerics
    return {key: value for key, value in own.items() if key != "reused" and numerics.get(key) != value}


def begun(store: Store) -> float:
    """When a store was begun, in seconds since the epoch: whatever was read was read after that.

    One that does not say so counts as begun when its oldest file was written.
    """
    try:
        return datetime.fromisoformat(store.provenance["begun"]).timestamp()
    except (StoreError, KeyError, TypeError, ValueError):
        return min((path.stat().st_mtime for path in store.path.glob("**/zarr.json")), default=-math.inf)


def warn_damaged(name: str, error: StoreError) -> None:
    """Says what is damaged of a source, and that its gift is computed instead."""
    where = f" ({error.where})" if error.where else ""
    warn(
        f"nothing is taken from a damaged part of {name}; what it would have given is computed. {error.problem}{where}"
    )


def warn(text: str) -> None:
    """A line for the user, who need not do anything."""
    warnings.warn(text, ToscaWarning, stacklevel=3)


def _may_give(wanted: StoreSpec, spec: StoreSpec) -> bool:
    differing = {name for name, _, _ in wanted.differences(spec)}
    return bool(differing) and differing <= FREE


def _rows_by_path(store: Store, split: str) -> dict[str, int]:
    try:
        return {path: row for row, path in enumerate(store.paths(split))}
    except StoreError as error:
        warn_damaged(store.path.name, error)
        return {}


def _changed_since(dataset: ImageDataset, split: str, rows: NDArray[np.bool_], moment: float) -> NDArray[np.bool_]:
    """Which of the chosen rows have a file that was modified at that moment or later, [N]."""
    changed = np.zeros(len(rows), dtype=bool)
    if dataset.root is None:
        return changed
    paths = dataset.splits[split].paths
    files = [f"{dataset.root}/{paths[row]}" for row in np.flatnonzero(rows)]
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        times = pool.map(_modified, (files[start::_STAT_THREADS] for start in range(_STAT_THREADS)))
        for start, found in enumerate(times):
            changed[np.flatnonzero(rows)[start::_STAT_THREADS]] = np.array(found) >= moment
    return changed


def _modified(files: Sequence[str]) -> list[float]:
    times = []
    for file in files:
        try:
            times.append(os.stat(file).st_mtime)  # noqa: PTH116 called for every image
        except OSError:
            times.append(-math.inf)  # rows of an archive have no files of their own
    return times
