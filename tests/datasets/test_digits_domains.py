"""`digits-domains`: every digit in one domain, shifted as documented, in the split that `digits` has."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tosca_cache.datasets.digits import load_digits_dataset
from tosca_cache.datasets.digits_domains import ANGLE, NOISE, RADIUS, SHIFTS, load_digits_domains
from tosca_cache.seeds import numpy_generator

DOMAINS = ("clean", "rotation", "inversion", "noise", "blur")


@pytest.fixture(scope="module")
def domains():
    return load_digits_domains()


@pytest.fixture(scope="module")
def digits():
    return load_digits_dataset()


def pixels(image):
    return np.asarray(image.convert("L"), dtype=int)


def rows_of(dataset, split, domain):
    return np.flatnonzero(dataset.splits[split].domains == DOMAINS.index(domain))


def test_no_digit_is_in_two_domains_or_in_train_and_test(domains, digits):
    assert (domains.name, domains.class_names, domains.domain_names) == ("digits-domains", digits.class_names, DOMAINS)
    assert tuple(SHIFTS) == DOMAINS
    for split in ("train", "test"):
        ours, theirs = domains.splits[split], digits.splits[split]
        assert tuple(path.split("/")[1] for path in ours.paths) == theirs.paths
        assert [path.split("/")[0] for path in ours.paths] == [DOMAINS[d] for d in ours.domains]
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_every_domain_has_a_fifth_of_every_class(domains):
    for split in domains.splits.values():
        counts = np.array([np.bincount(split.labels[split.domains == d], minlength=10) for d in range(5)])
        assert counts.min() > 0
        assert (counts.max(0) - counts.min(0) <= 1).all()


def test_every_shift_is_the_one_documented(domains, digits):
    for row in rows_of(domains, "test", "clean")[:20]:
        np.testing.assert_array_equal(pixels(domains.open("test", row)), pixels(digits.open("test", row)))
    for row in rows_of(domains, "test", "inversion")[:20]:
        np.testing.assert_array_equal(pixels(domains.open("test", row)), 255 - pixels(digits.open("test", row)))
    for row in rows_of(domains, "test", "rotation")[:20]:
        turned = digits.open("test", row).rotate(ANGLE, Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(pixels(domains.open("test", row)), pixels(turned))
    for row in rows_of(domains, "test", "blur")[:20]:
        blurred = digits.open("test", row).filter(ImageFilter.GaussianBlur(RADIUS))
        np.testing.assert_array_equal(pixels(domains.open("test", row)), pixels(blurred))
    for row in rows_of(domains, "test", "noise")[:20]:
        path = domains.splits["test"].paths[row]
        drawn = numpy_generator(1993, "digits-domains", "noise", path).normal(size=(8, 8))
        wanted = np.clip(np.rint(pixels(digits.open("test", row)) + NOISE * drawn), 0, 255)
        np.testing.assert_array_equal(pixels(domains.open("test", row)), wanted)


def test_images_depend_on_nothing_but_their_path(domains):
    """Opened in another order, by threads, and from another loaded copy, they have the same bytes."""
    rows = list(range(0, 539, 7))
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda row: domains.open("test", row).tobytes(), reversed(rows)))
    again = load_digits_domains()
    assert threaded[::-1] == [again.open("test", row).tobytes() for row in rows]
    assert all((image.mode, image.size) == ("RGB", (8, 8)) for image in (again.open("train", row) for row in rows))


def test_the_dataset_never_changes(domains):
    """A change of any row's domain or pixels changes every figure measured on it, so it must be deliberate."""
    assert domains.listing_digest() == "86c6d1cc3485e151aacb809c1babc82704137db7fd7831bfbc2696e5933a8919"
    images = b"".join(domains.open(split, row).tobytes() for split in ("train", "test") for row in range(0, 500, 5))
    assert hashlib.sha256(images).hexdigest() == "f9e502944ab940bc1d4750cb082ccd886348d3dfa083f85f458406f3b0d2e74a"
