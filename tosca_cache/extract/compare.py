"""Rows of a finished store computed again and compared with what it has: how sources are tried and stores rechecked.

A path says which image is meant, not what is in it: another folder of the same name, files replaced under old dates, or
another way of resizing would go unnoticed without it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.transforms import TransformSpec
from tosca_cache.errors import ToscaWarning
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.engine import Group, Renderer, ShardBuffer, compute, plan_groups
from tosca_cache.extract.reuse import NONE, SourceStore
from tosca_cache.seeds import numpy_generator
from tosca_cache.store import SPLITS, Shard
from tosca_cache.workers import threads_here

SAMPLE = 8  # images that a source is tried on, and that the error against float32 is measured with
# ||ours - theirs|| / ||theirs|| of a feature vector that is allowed between two computations of it, rounding to float16
# included. Measured as the largest over 32 glyphs and 32 digits (vit_nano) and 8 photos (EfficientNet-lite0, ViT-S/14 at
# 224 pixels), in batches of 1, 2 and all, with torch 2.13 on AVX-512 and, standing for another machine, with its kernels
# held to AVX2: fp32 7.0e-5 (1.4e-6 before float16), bf16 1.4e-2, fp16 1.9e-3; across batch sizes alone 0, 1.2e-2, 1.7e-3.
# The nearest feature of another image is at 0.46. Not measured on a GPU, whose convolutions may use TF32 in fp32.
TOLERANCE: Mapping[str, float] = MappingProxyType({"fp32": 1e-3, "bf16": 3e-2, "fp16": 5e-3})


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
    spec, places = (
        source.store.spec,
        [(split, row) for split in SPLITS for row in np.flatnonzero(source.rows[split] != NONE).tolist()],
    )
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
