"""`digits-domains`: the images of `digits`, dealt out to five domains, in each of which they look otherwise.

    clean      as in `digits`
    rotation   turned by 45 degrees counter-clockwise (bicubic; what comes in from outside is background)
    inversion  dark on bright: v becomes 255 - v
    noise      with Gaussian noise of standard deviation 64 grey levels, drawn for every pixel, then cut to 0 ... 255
    blur       under Pillow's Gaussian blur of radius 1 pixel

Shifts are applied to the 8 x 8 pixels of `digits`. Every image belongs to one domain, and is a train or test image as it is
in `digits`: no digit is seen in training in one domain and tested in another. Every domain has all ten classes, and about a
fifth of the train and of the test images of each: within each split and class the images are permuted from a named seed and
dealt to the domains in turn. The noise of an image follows from its path alone, so that images may be opened in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from tosca_cache.datasets.base import ImageDataset, IntArray, Split
from tosca_cache.datasets.digits import load_digits_dataset
from tosca_cache.seeds import numpy_generator

SEED = 1993
ANGLE = 45.0  # degrees, counter-clockwise
NOISE = 64.0  # standard deviation in grey levels
RADIUS = 1.0  # pixels of the 8 x 8


def load_digits_domains() -> ImageDataset:
    """5 domains of 10 classes, 1,797 images of 8 x 8 pixels, RGB; paths `clean/digit-0001`, in the order of `digits`."""
    digits = load_digits_dataset()
    splits = {name: _dealt(name, split) for name, split in digits.splits.items()}
    return ImageDataset(
        name="digits-domains",
        class_names=digits.class_names,
        domain_names=tuple(SHIFTS),
        splits=splits,
        opener=partial(_open_row, digits, splits),
    )


def _dealt(name: str, split: Split) -> Split:
    names, domains = tuple(SHIFTS), np.empty(len(split), dtype=np.int64)
    for digit in range(10):
        rows: IntArray = np.flatnonzero(split.labels == digit)
        dealt = numpy_generator(SEED, "digits-domains", name, digit).permutation(rows)
        domains[dealt] = np.arange(len(dealt)) % len(names)
    paths = tuple(f"{names[domain]}/{path}" for domain, path in zip(domains, split.paths, strict=True))
    return Split(paths, split.labels, domains)


def _open_row(digits: ImageDataset, splits: dict[str, Split], split: str, row: int) -> Image.Image:
    path = splits[split].paths[row]
    grey = digits.open(split, row).convert("L")
    return SHIFTS[path.partition("/")[0]](grey, path).convert("RGB")


def _clean(image: Image.Image, path: str) -> Image.Image:
    return image


def _rotation(image: Image.Image, path: str) -> Image.Image:
    return image.rotate(ANGLE, Image.Resampling.BICUBIC)


def _inversion(image: Image.Image, path: str) -> Image.Image:
    return ImageOps.invert(image)


def _noise(image: Image.Image, path: str) -> Image.Image:
    drawn = numpy_generator(SEED, "digits-domains", "noise", path).normal(scale=NOISE, size=image.size[::-1])
    return Image.fromarray(np.clip(np.rint(np.asarray(image) + drawn), 0, 255).astype(np.uint8))


def _blur(image: Image.Image, path: str) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(RADIUS))


# What each domain does to a grey image that lies at a path. The order is that of the domains.
SHIFTS: dict[str, Callable[[Image.Image, str], Image.Image]] = {
    "clean": _clean,
    "rotation": _rotation,
    "inversion": _inversion,
    "noise": _noise,
    "blur": _blur,
}
