"""`digits`: scikit-learn's 1,797 handwritten digits (UCI, 8 x 8 pixels), with a fixed stratified test split.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998),
whose test part scikit-learn ships.

The split: within each class, the rows in scikit-learn's order are permuted by numpy's PCG64 generator seeded with 1993
(one generator, classes in the order 0 to 9), and the first round(0.3 n) go to the test split. Rows stay in scikit-learn's
order within a split.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tosca_cache.datasets.base import ImageDataset, IntArray, Split

TEST_FRACTION = 0.3
SPLIT_SEED = 1993
_LEVELS = 16  # the darkest value: how many pixels of a 4 x 4 block were inked


def load_digits_dataset() -> ImageDataset:
    """10 classes, 1,797 images of 8 x 8 pixels, RGB, bright on dark; paths `digit-0001` to `digit-1797`."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.rint(values.reshape(-1, 8, 8) * (255 / _LEVELS)).astype(np.uint8)
    labels = labels.astype(np.int64)
    in_test = _test_mask(labels)
    rows = {"train": np.flatnonzero(~in_test), "test": np.flatnonzero(in_test)}
    return ImageDataset(
        name="digits",
        class_names=tuple(str(digit) for digit in range(10)),
        domain_names=("digits",),
        splits={split: _split(indices, labels) for split, indices in rows.items()},
        opener=partial(_open_row, {split: images[indices] for split, indices in rows.items()}),
    )


def _test_mask(labels: IntArray) -> NDArray[np.bool_]:
    generator = np.random.default_rng(SPLIT_SEED)
    mask = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        rows = generator.permutation(np.flatnonzero(labels == digit))
        mask[rows[: round(TEST_FRACTION * len(rows))]] = True
    return mask


def _split(indices: IntArray, labels: IntArray) -> Split:
    return Split(
        paths=tuple(f"digit-{index + 1:04d}" for index in indices),
        labels=labels[indices],
        domains=np.zeros(len(indices), dtype=np.int64),
    )


def _open_row(images: dict[str, NDArray[np.uint8]], split: str, row: int) -> Image.Image:
    return Image.fromarray(images[split][row]).convert("RGB")
