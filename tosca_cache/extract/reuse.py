"""Reuse: rows and views that a finished store already has are taken from it instead of computed.

A store can be the source of another if its fingerprint says the same but for how many views there are, their seed, and
which images the dataset has (`FREE`), and if it was computed on a device of the same kind. Of the images that both have, by
split and path, it gives the views that both have; view 0 alone if their seeds differ. An image that was modified after the
store was begun is not taken.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.datasets.base import ImageDataset, IntArray
from tosca_cache.datasets.duplicates import map_files
from tosca_cache.datasets.transforms import VIEW_COLUMNS
from tosca_cache.errors import StoreError, ToscaWarning
from tosca_cache.extract.groups import ShardBuffer
from tosca_cache.store import SPLITS, Shard, Store, StoreSpec, list_stores, open_store
from tosca_cache.store.arrays import read_small

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


@dataclass(eq=False)
class SourceStore:
    """A finished store, and where it has the images of a dataset.

    rows: split -> the store's row of every row of the dataset, or `NONE`, [N]. views: split -> how many of its first views
    are wanted. changed: images that have been modified since the store was begun, and are not in `rows`. gone: the store
    was removed in the meantime.
    """

    store: Store
    rows: Mapping[str, IntArray]
    views: Mapping[str, int]
    changed: int = 0
    gone: bool = False

    @classmethod
    def of_itself(cls, store: Store, dataset: ImageDataset) -> SourceStore:
        """A store beside the dataset that it was made from: it has all rows but those that were skipped."""
        rows = {}
        for split in SPLITS:
            kept = np.ones(len(dataset.splits[split]), dtype=bool)
            kept[[row.row for row in store.manifest.skipped[split]]] = False
            rows[split] = np.where(kept, np.cumsum(kept) - 1, NONE)
        return cls(store, rows, {split: store.views(split) for split in SPLITS})

    def __post_init__(self) -> None:
        self.digest, self.name = self.store.spec.digest(), self.store.path.name

    @property
    def size(self) -> int:
        """How many views it gives."""
        return sum(int((rows != NONE).sum()) * self.views[split] for split, rows in self.rows.items())

    def place(self, number: int) -> tuple[str, int, int]:
        """(split, row of the dataset, view) of one of its `size` views."""
        kept = {split: np.flatnonzero(self.rows[split] != NONE) for split in SPLITS}
        train = len(kept["train"]) * self.views["train"]
        split = "train" if number < train else "test"
        row, view = divmod(number - (0 if split == "train" else train), self.views[split])
        return split, int(kept[split][row]), view

    def view_parameters(self, split: str, rows: IntArray) -> IntArray:
        """Parameters [n, 1+V, 6] of some of the store's rows, of which only those shards are read that have them."""
        layout, rows = self.store.manifest.plan.layouts[split], self.store.places(split, rows)
        found = np.empty((len(rows), layout.views, len(VIEW_COLUMNS)), dtype=np.int64)
        for index in np.unique(rows // layout.shard_rows).tolist():
            shard = layout.shard(split, index)
            here = rows // layout.shard_rows == index
            stored = read_small(self.store.path, split, "views", layout, shard.start, shard.stop)
            found[here] = stored[rows[here] - shard.start]
        return found

    def fill(self, buffer: ShardBuffer) -> None:
        """Puts what the store has into a shard's buffer; if some of that is damaged, warns and leaves all of it out."""
        split, views = buffer.shard.split, self.views[buffer.shard.split]
        theirs = self._of(buffer.shard)
        here = np.flatnonzero(theirs != NONE)
        if self.gone or not here.size:
            return
        try:
            parameters = self.view_parameters(split, theirs[here])[:, :views]
            features = self.store.features(split, theirs[here], slice(0, views))
        except StoreError as error:
            self.gone = not self.store.path.exists()
            if self.gone:
                warn(f"{self.name} is gone; what it would have given is computed")
            else:
                _warn_damaged(self.name, error)
            return
        buffer.features[here, :views] = features
        buffer.views[here, :views] = parameters
        buffer.missing[here, :views] = False

    def lines(self, shards: Sequence[Shard], views: Mapping[str, int]) -> list[str]:
        """How much is taken for these shards, and how much of their `views` is left to compute."""
        given = [(shard, int((self._of(shard) != NONE).sum()), self.views[shard.split]) for shard in shards]
        taken = sum(rows * count for _, rows, count in given)
        left = [shard.rows - (rows if count == views[shard.split] else 0) for shard, rows, count in given]
        total = sum(shard.rows * views[shard.split] for shard in shards)
        newer = f"; {self.changed} of its images have changed since and are not taken" if self.changed else ""
        return [
            f"taken from {self.name}: {taken} views of {sum(rows for _, rows, _ in given)} images{newer}",
            f"left to compute: {total - taken} views of {sum(left)} images",
        ]

    def _of(self, shard: Shard) -> IntArray:
        return self.rows[shard.split][shard.start : shard.stop]


def choose_source(
    root: Path,
    dataset: ImageDataset,
    spec: StoreSpec,
    numerics: Mapping[str, Any],
    agrees: Callable[[SourceStore], bool],
) -> SourceStore | None:
    """The store below `root` that gives the most to the store of `spec`; among equals one that computed alike.

    agrees: whether some of its features are what the backbone gives here; the next one is taken otherwise.
    """
    found = _find_sources(root, dataset, spec, numerics)
    found.sort(key=lambda source: (-source.size, bool(other_numerics(source.store, numerics)), source.digest))
    for source in found:
        if source.size and agrees(source):
            return source
        if not source.size and source.changed:
            warn(f"nothing is taken from {source.name}: {source.changed} of its images have changed since it was begun")
    return None


def reopen_source(
    root: Path, dataset: ImageDataset, spec: StoreSpec, numerics: Mapping[str, Any]
) -> SourceStore | None:
    """The source that a store was begun with, if it is still there."""
    digest = recorded_source(numerics)
    return next(iter(_find_sources(root, dataset, spec, numerics, digest)), None) if digest else None


def recorded_source(numerics: Mapping[str, Any]) -> str | None:
    """The digest of the source that a store was begun with."""
    found = numerics.get("reused")
    return found[0] if isinstance(found, list) and found and isinstance(found[0], str) else None


def other_numerics(store: Store, numerics: Mapping[str, Any]) -> dict[str, Any]:
    """What a store's bits depend on, as far as it is not in `numerics`; what it took from others plays no part."""
    own = store.manifest.plan.numerics
    return {key: value for key, value in own.items() if key != "reused" and numerics.get(key) != value}


def warn(text: str) -> None:
    """A line for the user, who need not do anything."""
    warnings.warn(text, ToscaWarning, stacklevel=3)


def _warn_damaged(name: str, error: StoreError) -> None:
    where = f" ({error.where})" if error.where else ""
    warn(
        f"nothing is taken from a damaged part of {name}; what it would have given is computed. {error.problem}{where}"
    )


def _find_sources(
    root: Path, dataset: ImageDataset, spec: StoreSpec, numerics: Mapping[str, Any], digest: str | None = None
) -> list[SourceStore]:
    """The stores below `root` that fit, or the one with this digest; warns of those that are too damaged to be opened."""
    stores = []
    for summary in list_stores(root):
        if summary.spec is None or summary.state != "finished" or digest not in (None, summary.spec.digest()):
            continue
        differing = {name for name, _, _ in spec.differences(summary.spec)}
        if not differing or not differing <= FREE:
            continue
        try:
            store = open_store(summary.path)
        except StoreError as error:
            _warn_damaged(summary.path.name, error)
            continue
        if _device_kind(store.manifest.plan.numerics) == _device_kind(numerics) is not None:
            stores.append(store)
    times = {split: _modified(dataset, split) for split in SPLITS} if stores else {}
    return [_match(dataset, spec, store, times) for store in stores]


def _match(
    dataset: ImageDataset, spec: StoreSpec, store: Store, times: Mapping[str, NDArray[np.float64]]
) -> SourceStore:
    """Finds the images of a dataset in a store; warns of splits whose paths are damaged, and takes nothing of them."""
    rows, views, changed, begun = {}, {}, 0, _begun(store)
    for split, wanted in zip(SPLITS, (spec.views["count"], spec.views["test_count"]), strict=True):
        theirs: dict[str, int] = {}
        try:
            theirs = {path: row for row, path in enumerate(store.paths(split))}
        except StoreError as error:
            _warn_damaged(store.path.name, error)
        found = np.array([theirs.get(path, NONE) for path in dataset.splits[split].paths], dtype=np.int64)
        newer = (found != NONE) & (times[split] >= begun)
        changed += int(newer.sum())
        rows[split] = np.where(newer, NONE, found)
        same_seed = store.spec.views["seed"] == spec.views["seed"]
        views[split] = min(1 + int(wanted), store.views(split)) if same_seed else 1
    return SourceStore(store, rows, views, changed)


def _device_kind(numerics: Mapping[str, Any]) -> str | None:
    """`cpu`, `gpu` (which numerics have under the chip's name) or another type of torch's; None if there is no device."""
    device = numerics.get("device")
    if not isinstance(device, str):
        return None
    return device if device in ("cpu", "mps", "xpu") else "gpu"


def _begun(store: Store) -> float:
    """When a store was begun, in seconds since the epoch; -inf if it does not say. What was read was read after that."""
    try:
        return datetime.fromisoformat(store.provenance["begun"]).timestamp()
    except (StoreError, KeyError, TypeError, ValueError):
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
