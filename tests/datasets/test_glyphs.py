"""`glyphs`: counts, determinism in any order and process, and that its classes are distinct and no digits."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tosca_cache.datasets import glyphs as glyphs_module
from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.glyphs import FACES, GLYPH_CHARACTERS, class_name, load_glyphs_dataset, render_mask
from tosca_cache.errors import DatasetError

SOME_ROWS = (0, 1, 59, 60, 1234, 3001, 5999)


@pytest.fixture(scope="module")
def glyphs() -> ImageDataset:
    return load_glyphs_dataset()


def test_counts(glyphs: ImageDataset) -> None:
    assert len(glyphs.class_names) == len(set(glyphs.class_names)) == 100
    assert (np.bincount(glyphs.splits["train"].labels, minlength=100) == 60).all()
    assert (np.bincount(glyphs.splits["test"].labels, minlength=100) == 20).all()
    for split in glyphs.splits.values():
        assert len(set(split.paths)) == len(split)


def test_class_names_are_readable_and_safe_in_paths(glyphs: ImageDataset) -> None:
    assert class_name("Ж") == "u0416-cyrillic-capital-letter-zhe"
    for name in glyphs.class_names:
        assert name.isascii() and name.replace("-", "").isalnum()


def test_images_are_32_pixels_rgb_and_show_something(glyphs: ImageDataset) -> None:
    for row in SOME_ROWS:
        image = glyphs.open("train", row)
        assert (image.mode, image.size) == ("RGB", (32, 32))
        values = np.asarray(image)
        assert np.percentile(values, 99) - np.percentile(values, 20) > 50


def digests(rows: tuple[int, ...], split: str = "train", seed: int = 1993) -> list[str]:
    dataset = load_glyphs_dataset(seed=seed)
    return [hashlib.sha256(dataset.open(split, row).tobytes()).hexdigest() for row in rows]


def test_any_order_any_thread_gives_the_same_bytes() -> None:
    expected = digests(SOME_ROWS)
    assert digests(SOME_ROWS[::-1])[::-1] == expected
    glyphs_module.render_mask.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        assert [found for (found,) in pool.map(lambda row: digests((row,)), SOME_ROWS)] == expected


def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import hashlib; from tosca_cache.datasets.glyphs import load_glyphs_dataset; d = load_glyphs_dataset();"
        f"print(*[hashlib.sha256(d.open('train', row).tobytes()).hexdigest() for row in {SOME_ROWS[::-1]}])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.split()[::-1] == digests(SOME_ROWS)


def test_rows_splits_and_seeds_differ() -> None:
    found = digests(tuple(range(20))) + digests(tuple(range(20)), "test") + digests(tuple(range(20)), seed=1)
    assert len(set(found)) == 60


def test_the_seed_is_part_of_the_listing() -> None:
    assert load_glyphs_dataset().listing_digest() != load_glyphs_dataset(seed=1).listing_digest()


def test_no_class_looks_like_another_or_like_a_digit() -> None:
    """Correlation of masks scaled to their bounding boxes, mean over the faces: 3 and capital Ze have 0.97."""
    characters = "0123456789" + GLYPH_CHARACTERS
    masks = [[render_mask(c, face, size=24, box=20) for face in range(len(FACES))] for c in characters]
    vectors = np.array(masks, dtype=np.float64).reshape(len(characters), len(FACES), -1)
    vectors -= vectors.mean(-1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    alike = np.einsum("ifd,jfd->ij", vectors, vectors, optimize=True) / len(FACES)
    np.fill_diagonal(alike, 0)
    assert not set(GLYPH_CHARACTERS) & set("0123456789")
    assert alike[10:].max() < 0.8


def test_every_face_draws_every_class() -> None:
    for face in range(len(FACES)):
        for character in GLYPH_CHARACTERS:
            assert render_mask(character, face, size=32, box=32).max() == 255


def test_missing_fonts_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(glyphs_module.matplotlib, "get_data_path", lambda: str(tmp_path_factory.mktemp("empty")))
    with pytest.raises(DatasetError, match="faces"):
        load_glyphs_dataset()
