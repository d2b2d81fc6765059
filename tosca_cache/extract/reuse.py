"""Reuse: rows and views that a finished store already has are taken from it instead of computed.

A store can be the source of another if its fingerprint says the same but for how many views there are and which images the
dataset has (`FREE`), and if it was computed on the same device. Of the images that both have, by split and path, it gives
the views that both have. An image that was modified after the store was begun is not taken.

A path says which image is meant, not what is in it: another folder of the same name, files replaced under old dates, or
another way of resizing would go unnoticed. So some rows are computed again and compared, before a store is a source, and
whenever it is to be verified.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from tosca_cache.datasets.base import ImageDataset, IntArray
from tosca_cache.datasets.duplicates import map_files
from tosca_cache.datasets.transforms import TransformSpec
from tosca_cache.errors import ToscaWarning
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.engine import Group, Renderer, ShardBuffer, compute, plan_groups
from tosca_cache.seeds import numpy_generator
from tosca_cache.store import SPLITS, Shard, Store, StoreSpec, list_stores, open_store
from tosca_cache.store.arrays import read_small
from tosca_cache.workers import threads_here

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
SAMPLE = 8  # images that a source is tried on, and that the error against float32 is measured with
# ||ours - theirs|| / ||theirs|| of a feature vector that is allowed between two computations of it, rounding to float16
# included. Measured as the largest over 32 glyphs and 32 digits (vit_nano) and 8 photos (EfficientNet-lite0, ViT-S/14 at
# 224 pixels), in batches of 1, 2 and all, with torch 2.13 on AVX-512 and, standing for another machine, with its kernels
# held to AVX2: fp32 7.0e-5 (1.4e-6 before float16), bf16 1.4e-2, fp16 1.9e-3; across batch sizes alone 0, 1.2e-2, 1.7e-3.
# The nearest feature of another image is at 0.46. Not measured on a GPU, whose convolutions may use TF32 in fp32.
TOLERANCE: Mapping[str, float] = MappingProxyType({"fp32": 1e-3, "bf16": 3e-2, "fp16": 5e-3})


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


@dataclass(frozen=True)
class Compared:
    """One image that was computed again; `row` is the store's.

    deviation: ||recomputed - stored|| / ||stored|| of its features in the stored dtype, the largest of its views; None if
    it could not be compared. problem: what is wrong; empty if the deviation is within the tolerance. unreadable: that
    is the image.
    """

    split: str
    row: int
    path: str
    deviation: float | None = None
    problem: str = ""
    unreadable: bool = False

    def __str__(self) -> str:
        return f"row {self.row} of split {self.split} ({self.path}): {self.problem or self.deviation}"


def recompute_sample(
    dataset: ImageDataset, backbone: Backbone, source: SourceStore, count: int, seed: int
) -> list[Compared]:
    """Takes `count` random images of those that a source gives through the backbone again, in the views that it gives.

    All if there are not as many. Compared are the parameters of the views, which must be equal, and the features, within
    `TOLERANCE` of the precision. seed: what is chosen follows from it. Raises `StoreError` if the source is damaged.
    """
    spec = source.store.spec
    places = [(split, row) for split in SPLITS for row in np.flatnonzero(source.rows[split] != NONE).tolist()]
    chosen = numpy_generator(seed, "verify").choice(len(places), min(count, len(places)), replace=False)
    shards = [Shard(split, 0, row, row + 1) for split, row in (places[number] for number in np.sort(chosen).tolist())]
    stored, again = ([ShardBuffer.empty(s, source.views[s.split], backbone.dim) for s in shards] for _ in range(2))
    for buffer in stored:
        source.fill(buffer)
    transform = backbone.transform(spec.transform.get("normalize") == "timm")
    renderer = Renderer(dataset, transform, spec.views["seed"], skip=True)
    with closing(compute(plan_groups(again, 1), renderer, backbone.forward(transform), threads_here())) as computed:
        return [_judged(dataset, source, group.buffer, had) for group, had in zip(computed, stored, strict=True)]


def _judged(dataset: ImageDataset, source: SourceStore, again: ShardBuffer, stored: ShardBuffer) -> Compared:
    split, row = again.shard.split, again.shard.start
    found = Compared(split, int(source.rows[split][row]), dataset.splits[split].paths[row])
    if again.skipped:
        return replace(found, problem=f"its image cannot be read any more: {again.skipped[row]}", unreadable=True)
    if not np.array_equal(again.views, stored.views):
        return replace(found, problem="its views have other parameters: it is another image, or of another size")
    deviation = float(deviations(again.features.astype(source.store.dtype), stored.features).max())
    tolerance = TOLERANCE[source.store.spec.precision]
    problem = "" if deviation <= tolerance else f"deviates by {deviation:.2e}, more than {tolerance:.0e}"
    return replace(found, deviation=deviation, problem=problem)


def source_agrees(dataset: ImageDataset, backbone: Backbone, source: SourceStore) -> bool:
    """Compares the clean views of a few images of a source; warns if some are other ones here.

    Images that cannot be read are left out: that is said when their turn comes.
    """
    tried = recompute_sample(dataset, backbone, replace(source, views=dict.fromkeys(SPLITS, 1)), SAMPLE, 0)
    wrong = [one for one in tried if one.problem and not one.unreadable]
    if wrong:
        warnings.warn(
            f"nothing is taken from {source.store.path.name}: of {len(tried)} images that were tried, {len(wrong)} have "
            f"other features here; the first is {wrong[0]}",
            ToscaWarning,
            stacklevel=2,
        )
    return not wrong


def deviations(ours: ArrayLike, theirs: ArrayLike) -> NDArray[np.float64]:
    """||ours - theirs|| / ||theirs|| of every feature [n, d], in float64; infinite where theirs is zero and ours is not."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    difference, norm = np.linalg.norm(a - b, axis=-1), np.linalg.norm(b, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = np.where(difference == 0, 0.0, difference / norm)
    return found


def relative_error(dataset: ImageDataset, backbone: Backbone, transform: TransformSpec) -> float | None:
    """||f - f32|| / ||f32|| over the clean features of at most 8 train images, in the backbone's precision and in float32.

    None if none of them can be read; 0 for a backbone that computes in float32.
    """
    if backbone.precision == "fp32":
        return 0.0
    renderer = Renderer(dataset, transform, 0, skip=True)
    rows = np.unique(np.linspace(0, len(dataset.splits["train"]) - 1, SAMPLE).round().astype(int)).tolist()
    buffers = [ShardBuffer.empty(Shard("train", 0, row, row + 1), 1, 0) for row in rows]
    pixels = [renderer(Group(buffer, 0, 1)) for buffer in buffers]
    shown = [one for one, buffer in zip(pixels, buffers, strict=True) if not buffer.skipped]
    if not shown:
        return None
    exact, features = (backbone.forward(transform, name)(torch.cat(shown)).double() for name in ("fp32", None))
    return float((features - exact).norm() / exact.norm())
