"""Whether the features of a source store are what the backbone gives here, tried on a few images.

A path says which image is meant, not what is in it: another folder of the same name, files replaced under old dates, or
another way of resizing would go unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tosca_cache.datasets.base import ImageDataset, IntArray
from tosca_cache.datasets.transforms import TransformSpec, clean_view, open_image, render
from tosca_cache.errors import ImageError, StoreError
from tosca_cache.extract.backbone import Backbone
from tosca_cache.extract.probe import TOLERANCE, deviations
from tosca_cache.extract.sources import SourceStore, warn

IMAGES = 8


def features_match(
    dataset: ImageDataset,
    backbone: Backbone,
    transform: TransformSpec,
    source_store: SourceStore,
    rows: Mapping[str, IntArray],
) -> bool:
    """Compares view 0 of at most 8 images, spread evenly over `rows` of each split; warns if they differ.

    What cannot be read, there or here, is left out: that is said when its turn comes.
    """
    errors = relative_errors(dataset, backbone, transform, source_store, rows)
    limit = TOLERANCE[backbone.precision]  # above what other batch sizes and versions cause, far below other images
    wrong = [error for error in errors if not error <= limit]
    if wrong:
        warn(
            f"nothing is taken from {source_store.name}: of {len(errors)} images that were tried, {len(wrong)} have other "
            f"features here (deviating by up to {max(wrong):.2g}, allowed is {limit:g})"
        )
    return not wrong


def relative_errors(
    dataset: ImageDataset,
    backbone: Backbone,
    transform: TransformSpec,
    source_store: SourceStore,
    rows: Mapping[str, IntArray],
) -> list[float]:
    """`probe.deviations` of view 0 of the images that were tried, ours from theirs."""
    places = [(split, int(row)) for split, found in rows.items() for row in found]
    chosen = {round(place) for place in np.linspace(0, len(places) - 1, IMAGES)} if places else set()
    pixels, theirs = [], []
    for split, row in (places[number] for number in sorted(chosen)):
        try:
            feature, image = source_store.clean_feature(split, row), open_image(transform, dataset, split, row)
        except (ImageError, StoreError):
            continue
        theirs.append(feature)
        pixels.append(render(transform, image, clean_view(image.height, image.width)))
    if not pixels:
        return []
    ours = backbone.forward(transform)(torch.from_numpy(np.stack(pixels))).cpu().numpy()
    found: list[float] = deviations(ours.astype(source_store.store.dtype), np.stack(theirs)).tolist()
    return found
