"""How far the features are from float32: measured on a few images of the dataset, recorded with the store."""

from __future__ import annotations

import numpy as np
import torch

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.transforms import TransformSpec, clean_view, render
from tosca_cache.errors import ImageError
from tosca_cache.extract.backbone import Backbone

PROBE_IMAGES = 8


def probe_pixels(dataset: ImageDataset, transform: TransformSpec) -> torch.Tensor:
    """Clean views [n, S, S, 3] of at most 8 train images, spread evenly; images that cannot be read are left out."""
    rows = np.unique(np.linspace(0, len(dataset.splits["train"]) - 1, PROBE_IMAGES).round().astype(int))
    pixels = []
    for row in rows:
        try:
            image = dataset.open("train", int(row))
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
