"""`digits`: what scikit-learn ships, split once and for all."""

from __future__ import annotations

import numpy as np
import pytest

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.digits import load_digits_dataset


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_digits_dataset()


def test_counts_and_names(digits: ImageDataset) -> None:
    assert digits.name == "digits"
    assert digits.class_names == tuple("0123456789")
    assert len(digits.splits["train"]) + len(digits.splits["test"]) == 1797
    assert len(digits.splits["test"]) == 539
    for split in digits.splits.values():
        assert len(split.paths) == len(split.labels) == len(split.domains)
        assert not split.domains.any()


def test_the_split_is_stratified(digits: ImageDataset) -> None:
    train, test = (np.bincount(digits.splits[name].labels, minlength=10) for name in ("train", "test"))
    np.testing.assert_allclose(test / (train + test), 0.3, atol=0.005)


def test_every_image_is_in_exactly_one_split(digits: ImageDataset) -> None:
    train, test = (set(digits.splits[name].paths) for name in ("train", "test"))
    assert not train & test
    assert train | test == {f"digit-{number:04d}" for number in range(1, 1798)}


def test_the_split_never_changes(digits: ImageDataset) -> None:
    """A change of the split changes every figure measured on it, so it must be deliberate."""
    assert digits.listing_digest() == "01c75fbb61b89e181d8515e867dffbe676780040207e2fb5bda0e60549a5e0f1"


def test_images_are_the_originals(digits: ImageDataset) -> None:
    from sklearn.datasets import load_digits

    originals = load_digits().images
    for split in ("train", "test"):
        for row in (0, 17, len(digits.splits[split]) - 1):
            image = digits.open(split, row)
            assert (image.mode, image.size) == ("RGB", (8, 8))
            channels = np.asarray(image)
            number = int(digits.splits[split].paths[row].removeprefix("digit-"))
            np.testing.assert_array_equal(np.rint(channels[..., 0] / 255 * 16), originals[number - 1])
            assert (channels == channels[..., :1]).all()


def test_values_span_the_whole_range(digits: ImageDataset) -> None:
    values = np.unique([np.asarray(digits.open("test", row)) for row in range(50)])
    assert values[0] == 0 and values[-1] == 255
    assert len(values) <= 17
