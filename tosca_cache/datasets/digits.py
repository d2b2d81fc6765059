"""`digits`: scikit-learn's 1,797 handwritten digits (UCI, 8 x 8 pixels), with a fixed stratified test split.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998),
whose test part scikit-learn ships.

The split: within each class, the rows in scikit-learn's order are permuted by numpy's PCG64 generator seeded with 1993
(one generator, classes in the order 0 to 9), and the first round(0.3 n) go to the test split. Rows stay in scikit-learn's
order within a split.

`digits-domains`: the images of `digits`, dealt out to five domains, in each of which they look otherwise.

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

from tosca_cache.datasets.base import ArrayOpener, ImageDataset, IntArray, Split
from tosca_cache.seeds import numpy_generator

TEST_FRACTION = 0.3
SPLIT_SEED = 1993
_LEVELS = 16  # the darkest value: how many pixels of a 4 x 4 block were inked
ANGLE = 45.0  # degrees, counter-clockwise
NOISE = 64.0  # standard deviation in grey levels
RADIUS = 1.0  # pixels of the 8 x 8


def load_digits_dataset() -> ImageDataset:
    """10 classes, 1,797 images of 8 x 8 pixels, RGB, bright on dark; paths `digit-0001` to `digit-1797`."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.rint(values.reshape(-1, 8, 8) * (255 / _LEVELS)).astype(np.uint8)
    labels = labels.astype(np.int64)
    generator, in_test = np.random.default_rng(SPLIT_SEED), np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        of_digit = generator.permutation(np.flatnonzero(labels == digit))
        in_test[of_digit[: round(TEST_FRACTION * len(of_digit))]] = True
    rows = {"train": np.flatnonzero(~in_test), "test": np.flatnonzero(in_test)}
    return ImageDataset(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        domain_names=("digits",),
        splits={split: _split(indices, labels) for split, indices in rows.items()},
        opener=ArrayOpener({split: images[indices] for split, indices in rows.items()}),
    )


def _split(indices: IntArray, labels: IntArray) -> Split:
    return Split(
        paths=tuple(f"digit-{index + 1:04d}" for index in indices),
        labels=labels[indices],
        domains=np.zeros(len(indices), dtype=np.int64),
    )


def load_digits_domains() -> ImageDataset:
    """5 domains of 10 classes, 1,797 images of 8 x 8 pixels, RGB; paths `clean/digit-0001`, in the order of `digits`."""
    digits = load_digits_dataset()
    splits = {name: _dealt(name, split) for name, split in digits.splits.items()}
    return ImageDataset(
        name="digits-domains",
        class_names=digits.class_names,
        domain_names=tuple(SHIFTS),
        splits=splits,
        opener=partial(_open_shifted, digits, splits),
    )


def _dealt(name: str, split: Split) -> Split:
    names, domains = tuple(SHIFTS), np.empty(len(split), dtype=np.int64)
    for digit in range(10):
        rows: IntArray = np.flatnonzero(split.labels == digit)
        dealt = numpy_generator(SPLIT_SEED, "digits-domains", name, digit).permutation(rows)
        domains[dealt] = np.arange(len(dealt)) % len(names)
    paths = tuple(f"{names[domain]}/{path}" for domain, path in zip(domains, split.paths, strict=True))
    return Split(paths, split.labels, domains)


def _open_shifted(digits: ImageDataset, splits: dict[str, Split], split: str, row: int) -> Image.Image:
    path = splits[split].paths[row]
    grey = digits.open(split, row).convert("L")
    return SHIFTS[path.partition("/")[0]](grey, path).convert("RGB")


def _noise(image: Image.Image, path: str) -> Image.Image:
    drawn = numpy_generator(SPLIT_SEED, "digits-domains", "noise", path).normal(scale=NOISE, size=image.size[::-1])
    return Image.fromarray(np.clip(np.rint(np.asarray(image) + drawn), 0, 255).astype(np.uint8))


# What each domain does to a grey image that lies at a path. The order is that of the domains.
SHIFTS: dict[str, Callable[[Image.Image, str], Image.Image]] = {
    "clean": lambda image, path: image,
    "rotation": lambda image, path: image.rotate(ANGLE, Image.Resampling.BICUBIC),
    "inversion": lambda image, path: ImageOps.invert(image),
    "noise": _noise,
    "blur": lambda image, path: image.filter(ImageFilter.GaussianBlur(RADIUS)),
}
