"""`digits`, `digits-domains` and `glyphs`: made by the package, and always the same."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tosca_cache.datasets import REGISTRY, load_dataset
from tosca_cache.datasets import glyphs as glyphs_module
from tosca_cache.datasets.glyphs import GLYPH_CHARACTERS
from tosca_cache.errors import DatasetError

# The side of the images, and the digest of all rows: a change of either changes every figure measured on it.
ALWAYS = {
    "digits": (8, "01c75fbb61b89e181d8515e867dffbe676780040207e2fb5bda0e60549a5e0f1"),
    "digits-domains": (8, "86c6d1cc3485e151aacb809c1babc82704137db7fd7831bfbc2696e5933a8919"),
    "glyphs": (32, "19fbe79d195b27e1a7078d9bb3f2cc190f367ba13dbfd4db6b2b0b2bc0ec573f"),
}


@pytest.mark.parametrize("name", ALWAYS)
def test_rows_never_change_and_images_depend_on_nothing_but_their_row(name):
    """Opened in another order, by threads, and from another loaded copy, they have the same bytes, and all differ."""
    known, dataset, again, (side, digest) = REGISTRY[name], load_dataset(name), load_dataset(name), ALWAYS[name]
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert dataset.listing_digest() == digest
    assert (len(dataset.class_names), len(train), len(test)) == (known.classes, known.train, known.test)
    counts = [np.bincount(split.labels, minlength=known.classes) for split in (train, test)]
    np.testing.assert_allclose(counts[1] / (counts[0] + counts[1]), known.test / (known.train + known.test), atol=0.005)
    assert len({*train.paths, *test.paths}) == len(train) + len(test)
    rows = range(0, 500, 7)
    glyphs_module.render_mask.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda row: dataset.open("test", row).tobytes(), reversed(rows)))
    assert threaded[::-1] == [again.open("test", row).tobytes() for row in rows] and len(set(threaded)) == len(rows)
    assert {(image.mode, image.size) for image in (again.open("train", row) for row in rows)} == {("RGB", (side, side))}


def test_pixels_of_domains_never_change_and_digits_are_the_originals():
    digits, domains = load_dataset("digits"), load_dataset("digits-domains")
    assert domains.domain_names == ("clean", "rotation", "inversion", "noise", "blur")
    images = b"".join(domains.open(split, row).tobytes() for split in ("train", "test") for row in range(0, 500, 5))
    assert hashlib.sha256(images).hexdigest() == "f9e502944ab940bc1d4750cb082ccd886348d3dfa083f85f458406f3b0d2e74a"
    originals = load_digits().images
    for split in ("train", "test"):
        for row in (0, 17, len(digits.splits[split]) - 1):
            channels = np.asarray(digits.open(split, row))
            number = int(digits.splits[split].paths[row].removeprefix("digit-"))
            np.testing.assert_array_equal(np.rint(channels / 255 * 16), originals[number - 1][..., None].repeat(3, -1))


def test_glyphs_have_names_that_are_safe_in_paths_and_need_fonts(monkeypatch, tmp_path):
    glyphs = load_dataset("glyphs")
    assert glyphs.class_names[GLYPH_CHARACTERS.index("Ж")] == "u0416-cyrillic-capital-letter-zhe"
    assert all(name.isascii() and name.replace("-", "").isalnum() for name in glyphs.class_names)
    monkeypatch.setattr(glyphs_module.matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(DatasetError, match="faces"):
        load_dataset("glyphs")
