"""The reference's transforms (methods.md 18.3), taken apart so that every view can be made again from what is recorded.

View 0 is the test transform: Resize (bicubic) and CenterCrop. Views 1 to V are the training augmentation:
RandomResizedCrop (bilinear) and a horizontal flip, with parameters drawn from the view's own seed. That seed follows from
the user's seed, the split, the image's path and the view's number alone, so neither the order of rows nor the other views
play a part, and one view can be made without the others.
"""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.errors import ImageError
from tosca_cache.seeds import derive_seed
from tosca_cache.torchvision_compat import ensure_torchvision

Pixels = NDArray[np.uint8]

VIEW_COLUMNS = ("seed", "top", "left", "height", "width", "flip")
REFERENCE_SIZE, REFERENCE_RESIZE = 224, 256
MAX_RESIZED = 1 << 26  # pixels of a resized image: 256 MiB, as Pillow keeps them
_ATTEMPTS = 10  # as torchvision's RandomResizedCrop


@dataclass(frozen=True)
class TransformSpec:
    """Everything that the pixels a backbone sees depend on, besides the image and the view's seed.

    image_size: side S of the square that the backbone sees, in pixels.
    resize: length of the shorter side before the centre crop of view 0.
    interpolation: of view 0; the augmented views use torchvision's default, bilinear.
    normalize: `timm` if mean and std are those of the backbone's weights, `none` for inputs in [0, 1] as published.
    mean, std: what is taken off and divided by, a channel, after scaling to [0, 1].
    crop_scale, crop_ratio: area (share of the image's) and aspect ratio of RandomResizedCrop.
    flip: probability of a horizontal flip.
    """

    image_size: int
    resize: int
    interpolation: str = "bicubic"
    normalize: str = "none"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    crop_scale: tuple[float, float] = (0.05, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    @classmethod
    def reference(cls, image_size: int, *, whole_image: bool = False, **fields: Any) -> TransformSpec:
        """The reference's geometry scaled to another image size: resize to int(256 / 224 S), crop S.

        Arguments:
            whole_image: resize to S instead, so that the crop loses no border (for backbones made for tiny images).
        """
        resize = image_size if whole_image else REFERENCE_RESIZE * image_size // REFERENCE_SIZE
        return cls(image_size=image_size, resize=resize, **fields)

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


class View(NamedTuple):
    """The recorded parameters of one view, in the order of `VIEW_COLUMNS`; a seed of 0 means view 0."""

    seed: int
    top: int
    left: int
    height: int
    width: int
    flip: int


def view_seed(seed: int, split: str, path: str, view: int) -> int:
    """The 63-bit seed of view `view` >= 1 of one image; never 0, which marks view 0."""
    return derive_seed(seed, split, path, view) or 1


def clean_view(height: int, width: int) -> View:
    """View 0 of an image of that size."""
    return View(0, 0, 0, height, width, 0)


def draw_view(spec: TransformSpec, seed: int, height: int, width: int) -> View:
    """The parameters that a seed gives for an image of that size, after the law of torchvision's RandomResizedCrop.

    Only `random.Random.random` is drawn from, whose values Python guarantees to stay the same.
    """
    draw = random.Random(seed).random
    flip = int(draw() < spec.flip)
    for _ in range(_ATTEMPTS):
        area = height * width * (spec.crop_scale[0] + (spec.crop_scale[1] - spec.crop_scale[0]) * draw())
        low, high = map(math.log, spec.crop_ratio)
        ratio = math.exp(low + (high - low) * draw())
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return View(seed, int(draw() * (height - h + 1)), int(draw() * (width - w + 1)), h, w, flip)
    return View(seed, *_central_crop(spec, height, width), flip)


def _central_crop(spec: TransformSpec, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, h, w) of the largest crop in the middle with an allowed ratio: what torchvision falls back to."""
    low, high = spec.crop_ratio
    w, h = width, height
    if width / height < low:
        h = round(width / low)
    elif width / height > high:
        w = round(height * high)
    return (height - h) // 2, (width - w) // 2, h, w


def image_views(spec: TransformSpec, image: Image.Image, *, seed: int, split: str, path: str, count: int) -> list[View]:
    """View 0 and views 1 to `count` of one image."""
    width, height = image.size
    seeds = (view_seed(seed, split, path, view) for view in range(1, count + 1))
    return [clean_view(height, width), *(draw_view(spec, s, height, width) for s in seeds)]


def open_image(spec: TransformSpec, dataset: ImageDataset, split: str, row: int) -> Image.Image:
    """The RGB image of a row, of which views can be made.

    Raises `ImageError` if it cannot be decoded, or is so narrow that it would become too large when its shorter side is
    resized.
    """
    image = dataset.open(split, row)
    short, long = sorted(image.size)
    longer = spec.resize * long // short
    if spec.resize * longer > MAX_RESIZED:
        raise ImageError(
            f"an image of {image.width:,} x {image.height:,} pixels is too narrow: with {spec.resize} on the shorter "
            f"side it would have {longer:,} pixels on the other",
            where=dataset.where(split, row),
            remedy="cut it into pieces, or leave such files out with --on-error skip",
        )
    return image


def render(spec: TransformSpec, image: Image.Image, view: View) -> Pixels:
    """One view of an RGB image from its recorded parameters: [S, S, 3] bytes."""
    size, functional = spec.image_size, _functional()
    if view.seed == 0:
        mode = functional.InterpolationMode(spec.interpolation)
        resized = functional.resize(image, [spec.resize], interpolation=mode, antialias=True)
        shown = functional.center_crop(resized, [size, size])
    else:
        mode = functional.InterpolationMode.BILINEAR
        box = (view.top, view.left, view.height, view.width)
        shown = functional.resized_crop(image, *box, size=[size, size], interpolation=mode, antialias=True)
        shown = functional.horizontal_flip(shown) if view.flip else shown
    return np.asarray(shown)


@cache
def _functional() -> ModuleType:
    """torchvision's functional transforms; loaded on first use, since it brings torch."""
    ensure_torchvision()
    return import_module("torchvision.transforms.v2.functional")
