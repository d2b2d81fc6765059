"""How far the features are from float32, and from those of other batch sizes: measured on a few images of the dataset, and
recorded with the store."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.transforms import TransformSpec, clean_view, open_image, render
from tosca_cache.devices import one_thread
from tosca_cache.errors import ImageError
from tosca_cache.extract.backbone import Backbone

PROBE_IMAGES = 8
PROBE_BATCHES = (1, 2)  # compared with the batch size in which the store is computed
# ||ours - theirs|| / ||theirs|| of a feature vector that is allowed between two computations of it, rounding to float16
# included. Measured as the largest over 32 glyphs and 32 digits (vit_nano) and 8 photos (EfficientNet-lite0, ViT-S/14 at
# 224 pixels), in batches of 1, 2 and all, with torch 2.13 on AVX-512 and, standing for another machine, with its kernels
# held to AVX2: fp32 7.0e-5 (1.4e-6 before float16), bf16 1.4e-2, fp16 1.9e-3; across batch sizes alone 0, 1.2e-2, 1.7e-3.
# The nearest feature of another image is at 0.46. Not measured on a GPU, whose convolutions may use TF32 in fp32.
TOLERANCE: Mapping[str, float] = MappingProxyType({"fp32": 1e-3, "bf16": 3e-2, "fp16": 5e-3})


def probe_pixels(dataset: ImageDataset, transform: TransformSpec) -> torch.Tensor:
    """Clean views [n, S, S, 3] of at most 8 train images, spread evenly; images that cannot be read are left out."""
    rows = np.unique(np.linspace(0, len(dataset.splits["train"]) - 1, PROBE_IMAGES).round().astype(int))
    pixels = []
    for row in rows:
        try:
            image = open_image(transform, dataset, "train", int(row))
        except ImageError:  # reported when its turn comes
            continue
        pixels.append(render(transform, image, clean_view(image.height, image.width)))
    return torch.from_numpy(np.stack(pixels)) if pixels else torch.empty(0)


def relative_error(backbone: Backbone, transform: TransformSpec, pixels: torch.Tensor) -> float | None:
    """||f - f32|| / ||f32|| over the features of a probe batch, in the backbone's precision and in float32.

    None where there is nothing to compare; 0 for a backbone that computes in float32.
    """
    if len(pixels) == 0:
        return None
    if backbone.precision == "fp32":
        return 0.0
    exact = backbone.forward(transform, "fp32")(pixels).double()
    features = backbone.forward(transform)(pixels).double()
    return float((features - exact).norm() / exact.norm())


def deviations(ours: ArrayLike, theirs: ArrayLike) -> NDArray[np.float64]:
    """||ours - theirs|| / ||theirs|| of every feature [n, d], in float64; infinite where theirs is zero and ours is not."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    difference, norm = np.linalg.norm(a - b, axis=-1), np.linalg.norm(b, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = np.where(difference == 0, 0.0, difference / norm)
    return found


def batch_deviation(
    backbone: Backbone, transform: TransformSpec, pixels: torch.Tensor, batch_size: int
) -> dict[str, Any] | None:
    """How far features of the probe's images are from each other when they are computed in batches of other sizes.

    Returns {"batch_size": the one that others are compared with, "others": {size: the largest of the images' deviations}};
    None where there is nothing to compare. Costs one batch and twice the probe's images, on one thread of a CPU, as in the
    extraction.
    """
    if len(pixels) == 0:
        return None
    forward = backbone.forward(transform)
    repeated = pixels.repeat(-(-batch_size // len(pixels)), 1, 1, 1)[:batch_size]
    with one_thread():
        used = torch.cat([forward(part).cpu() for part in _batches(pixels, repeated, batch_size)])[: len(pixels)]
        others = {
            str(size): torch.cat([forward(part).cpu() for part in pixels.split(size)])
            for size in PROBE_BATCHES
            if size != batch_size
        }
    return {
        "batch_size": batch_size,
        "others": {size: float(deviations(found, used).max()) for size, found in others.items()},
    }


def _batches(pixels: torch.Tensor, repeated: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Batches of exactly that size in which each image of the probe is at least once, in order."""
    if batch_size >= len(pixels):
        return [repeated]
    parts = list(pixels.split(batch_size))
    parts[-1] = torch.cat([parts[-1], pixels])[:batch_size]
    return parts
