"""Views of a finished store computed again and compared with what it has: how sources are tried and stores rechecked.

A path says which image is meant, not what is in it: another folder of the same name, files replaced under old dates, or
another way of resizing would go unnoticed without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.transforms import TransformSpec, clean_view, image_views, open_image, render
from tosca_cache.errors import ImageError, StoreError
from tosca_cache.extract.backbone import Backbone, Forward
from tosca_cache.extract.reuse import SourceStore, warn
from tosca_cache.seeds import numpy_generator
from tosca_cache.store import Store

SAMPLE = 8  # images or views that a source is tried on, and that the error against float32 is measured with
# ||ours - theirs|| / ||theirs|| of a feature vector that is allowed between two computations of it, rounding to float16
# included. Measured as the largest over 32 glyphs and 32 digits (vit_nano) and 8 photos (EfficientNet-lite0, ViT-S/14 at
# 224 pixels), in batches of 1, 2 and all, with torch 2.13 on AVX-512 and, standing for another machine, with its kernels
# held to AVX2: fp32 7.0e-5 (1.4e-6 before float16), bf16 1.4e-2, fp16 1.9e-3; across batch sizes alone 0, 1.2e-2, 1.7e-3.
# The nearest feature of another image is at 0.46. Not measured on a GPU, whose convolutions may use TF32 in fp32.
TOLERANCE: Mapping[str, float] = MappingProxyType({"fp32": 1e-3, "bf16": 3e-2, "fp16": 5e-3})


@dataclass(frozen=True)
class Compared:
    """One view that was computed again; `row` is the store's.

    deviation: ||recomputed - stored|| / ||stored|| of its feature in the stored dtype; None if it could not be compared.
    problem: what is wrong; empty if the deviation is within the tolerance. unreadable: its image or what
    the store has of it cannot be read.
    """

    split: str
    row: int
    view: int
    path: str
    deviation: float | None = None
    problem: str = ""
    unreadable: bool = False

    def __str__(self) -> str:
        return f"row {self.row}, view {self.view} of split {self.split} ({self.path}): {self.problem or self.deviation}"


def compare_views(
    dataset: ImageDataset, backbone: Backbone, transform: TransformSpec, source: SourceStore, numbers: Sequence[int]
) -> Iterator[Compared]:
    """Takes views of a source, by their numbers, through the backbone again.

    Compared are the parameters of the views, which must be equal, and the features, within `TOLERANCE` of the precision.
    """
    batch = max(1, int(source.store.manifest.plan.numerics.get("batch_size") or 1))
    forward = backbone.forward(transform)
    for start in range(0, len(numbers), batch):
        yield from _compare_batch(dataset, transform, forward, source, numbers[start : start + batch])


def recompute_sample(dataset: ImageDataset, backbone: Backbone, store: Store, count: int, seed: int) -> list[Compared]:
    """Takes `count` random views of a store through its backbone again (all of them if there are not as many).

    dataset, backbone: those that the store was made from; see `extract.reconstruct`. seed: what is chosen follows from it.
    """
    source = SourceStore.of_itself(store, dataset)
    chosen = numpy_generator(seed, "verify").choice(source.size, min(count, source.size), replace=False)
    transform = backbone.transform(store.spec.transform.get("normalize") == "timm")
    return list(compare_views(dataset, backbone, transform, source, np.sort(chosen).tolist()))


def source_agrees(dataset: ImageDataset, backbone: Backbone, transform: TransformSpec, source: SourceStore) -> bool:
    """Compares at most 8 views of a source, spread evenly over what it gives; warns if some are other ones here.

    What cannot be read, there or here, is left out: that is said when its turn comes.
    """
    numbers = np.unique(np.linspace(0, source.size - 1, SAMPLE).round().astype(int)).tolist()
    tried = [one for one in compare_views(dataset, backbone, transform, source, numbers) if not one.unreadable]
    wrong = [one for one in tried if one.problem]
    if wrong:
        warn(
            f"nothing is taken from {source.name}: of {len(tried)} images that were tried, {len(wrong)} have other "
            f"features here; the first is {wrong[0]}"
        )
    return not wrong


def _compare_batch(
    dataset: ImageDataset, transform: TransformSpec, forward: Forward, source: SourceStore, numbers: Iterable[int]
) -> Iterator[Compared]:
    found, pixels, stored = [], [], []
    for split, row, view in map(source.place, numbers):
        path, theirs = dataset.splits[split].paths[row], int(source.rows[split][row])
        one, seed = Compared(split, theirs, view, path), source.store.spec.views["seed"]
        try:
            image = open_image(transform, dataset, split, row)
            parameters = source.view_parameters(split, np.array([theirs]))[0, view]
            feature = source.store.features(split, [theirs], view)[0, 0]
        except (ImageError, StoreError) as error:
            what = "its image cannot be read any more" if isinstance(error, ImageError) else "it is damaged"
            found.append(replace(one, problem=f"{what}: {error.problem}", unreadable=True))
            continue
        made = image_views(transform, image, seed=seed, split=split, path=path, count=view)[view]
        if list(made) == parameters.tolist():
            pixels.append(render(transform, image, made))
            stored.append(feature)
        else:
            one = replace(one, problem="the view has other parameters: it is another image, or of another size")
        found.append(one)
    again = forward(torch.from_numpy(np.stack(pixels))).cpu().numpy() if pixels else np.empty((0, 1))
    measured = iter(deviations(again.astype(source.store.dtype), stored or again).tolist())
    yield from (one if one.problem else _judged(one, next(measured), source.store.spec.precision) for one in found)


def _judged(one: Compared, deviation: float, precision: str) -> Compared:
    tolerance = TOLERANCE[precision]
    problem = "" if deviation <= tolerance else f"deviates by {deviation:.2e}, more than {tolerance:.0e}"
    return replace(one, deviation=deviation, problem=problem)


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
    rows = np.unique(np.linspace(0, len(dataset.splits["train"]) - 1, SAMPLE).round().astype(int))
    pixels = []
    for row in rows:
        try:
            image = open_image(transform, dataset, "train", int(row))
        except ImageError:  # reported when its turn comes
            continue
        pixels.append(render(transform, image, clean_view(image.height, image.width)))
    if not pixels:
        return None
    shown = torch.from_numpy(np.stack(pixels))
    exact = backbone.forward(transform, "fp32")(shown).double()
    features = backbone.forward(transform)(shown).double()
    return float((features - exact).norm() / exact.norm())
