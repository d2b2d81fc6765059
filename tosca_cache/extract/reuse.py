"""Reuse: rows and views that a finished store already has are taken from it instead of computed.

A store can be the source of another if its fingerprint says the same but for how many views there are and which images the
dataset has (`FREE`), and if it was computed on the same device. Of the images that both have, by split and path, it gives
the views that both have. An image that was modified after the store was begun is not taken.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.datasets.base import ImageDataset, IntArray
from tosca_cache.datasets.duplicates import map_files
from tosca_cache.extract.engine import ShardBuffer
from tosca_cache.store import SPLITS, Shard, Store, StoreSpec, list_stores, open_store
from tosca_cache.store.arrays import read_small

FREE = frozenset(
    (
        "views.count",
        "views.test_count",
        "dataset.listing_digest",
        "dataset.classes",
        "dataset.splits.train",
        "dataset.splits.test",
    )
)
NONE = -1  # the row of an image that a store does not have


@dataclass(eq=False)
class SourceStore:
    """A finished store, and where it has the images of a dataset.

    rows: split -> the store's row of every row of the dataset, or `NONE`, [N]. views: split -> how many of its first views
    are wanted.
    """

    store: Store
    rows: Mapping[str, IntArray]
    views: Mapping[str, int]

    @classmethod
    def matched(cls, store: Store, dataset: ImageDataset) -> SourceStore:
        """A store with all its views, and where it has images of the same split and path."""
        rows = {}
        for split in SPLITS:
            theirs = {path: row for row, path in enumerate(store.paths(split))}
            rows[split] = np.array([theirs.get(path, NONE) for path in dataset.splits[split].paths], dtype=np.int64)
        return cls(store, rows, {split: store.views(split) for split in SPLITS})

    @property
    def size(self) -> int:
        """How many views it gives."""
        return sum(int((rows != NONE).sum()) * self.views[split] for split, rows in self.rows.items())

    def fill(self, buffer: ShardBuffer) -> None:
        """Puts what the store has into a shard's buffer; raises `StoreError` if that is damaged."""
        shard = buffer.shard
        views, theirs = self.views[shard.split], self.rows[shard.split][shard.start : shard.stop]
        here = np.flatnonzero(theirs != NONE)
        theirs = theirs[here]
        if not here.size:
            return
        layout, places = self.store.manifest.plan.layouts[shard.split], self.store.places(shard.split, theirs)
        buffer.features[here, :views] = self.store.features(shard.split, theirs, slice(0, views))
        for index in np.unique(places // layout.shard_rows).tolist():
            stored, part = layout.shard(shard.split, index), places // layout.shard_rows == index
            parameters = read_small(self.store.path, layout, stored, "views")
            buffer.views[here[part], :views] = parameters[places[part] - stored.start, :views]
        buffer.missing[here, :views] = False

    def summary(self, shards: Sequence[Shard], wanted: Mapping[str, int]) -> str:
        """How many of the `wanted` views of these shards are taken, and how many are left to compute."""
        rows = [(shard.split, self.rows[shard.split][shard.start : shard.stop]) for shard in shards]
        taken = sum(int((found != NONE).sum()) * self.views[split] for split, found in rows)
        left = sum(len(found) * wanted[split] for split, found in rows) - taken
        return f"taken from {self.store.path.name}: {taken} views; left to compute: {left} views"


def find_sources(
    root: Path, dataset: ImageDataset, spec: StoreSpec, device: str, digest: str | None = None
) -> list[SourceStore]:
    """The stores below `root` that fit, or the one with this digest; those that give the most first.

    Raises `StoreError` for one that is damaged.
    """
    stores = []
    for summary in list_stores(root):
        if summary.spec is None or summary.state != "finished" or digest not in (None, summary.spec.digest()):
            continue
        differing = {name for name, _, _ in spec.differences(summary.spec)}
        if differing and differing <= FREE:
            stores.append(open_store(summary.path))
    stores = [store for store in stores if store.manifest.plan.numerics.get("device") == device]
    times = {split: _modified(dataset, split) for split in SPLITS} if stores else {}
    counts, found = {"train": spec.views["count"], "test": spec.views["test_count"]}, []
    for store in stores:
        match, begun = SourceStore.matched(store, dataset), _begun(store)
        match.rows = {split: np.where(times[split] >= begun, NONE, rows) for split, rows in match.rows.items()}
        match.views = {split: min(1 + counts[split], n) for split, n in match.views.items()}
        found.append(match)
    return sorted(found, key=lambda source: (-source.size, source.store.spec.digest()))


def _begun(store: Store) -> float:
    """When a store was begun, in seconds since the epoch; -inf if it does not say. What was read was read after that."""
    try:
        return datetime.fromisoformat(store.provenance["begun"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return -math.inf


def _modified(dataset: ImageDataset, split: str) -> NDArray[np.float64]:
    """When the file of each row was modified, in seconds since the epoch, [N]; NaN for rows that have no file."""
    paths = dataset.splits[split].paths
    if dataset.root is None:
        return np.full(len(paths), math.nan)
    return np.array(map_files(_time, [f"{dataset.root}/{path}" for path in paths]))


def _time(file: str) -> float:
    try:
        return os.stat(file).st_mtime  # noqa: PTH116 called for every image
    except NotADirectoryError:  # a row of a shard
        return os.stat(os.path.dirname(file)).st_mtime  # noqa: PTH116, PTH120
    except OSError:
        return math.nan  # rows of an archive


def recorded_source(numerics: Mapping[str, Any]) -> str | None:
    """The digest of the source that a store was begun with."""
    return next(iter(numerics.get("reused", ())), None)
