"""What a store says of how its images were decoded, and what it does not hold; and the same when it is made again."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from extract.conftest import quietly
from PIL import Image

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.decoding import PUBLISHED, Decoding
from tosca_cache.datasets.duplicates import without_duplicates
from tosca_cache.errors import DatasetError, ImageError
from tosca_cache.extract.compare import recompute_sample
from tosca_cache.extract.fingerprint import ExtractOptions, store_spec
from tosca_cache.extract.recompute import extraction_again
from tosca_cache.extract.reuse import SourceStore
from tosca_cache.store import find_store, store_path

OPTIONS = ExtractOptions(views=1, batch_size=8, workers=2)


@pytest.fixture
def folder(shapes_folder, tmp_path):
    """3 classes of 2 train and 2 test images, among them a photo on its side, a transparent one, and one of 16 bits."""
    beyond = shutil.ignore_patterns("002.png", "003.png", "004.png")
    folder = shutil.copytree(shapes_folder, tmp_path / "shapes", ignore=beyond)
    pixels, exif = np.random.default_rng(1).integers(0, 256, (40, 50, 4), dtype=np.uint8), Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels[..., :3]).save(folder / "train/class 0/000.png", exif=exif)
    Image.fromarray(pixels).save(folder / "train/class 1/000.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "train/class 2/000.png")
    return folder


def recomputed(store, weights):
    """The dataset that is found again, and all of the store computed from it."""
    again = extraction_again(store, {"weights": weights})
    found = recompute_sample(again.dataset, again.backbone, SourceStore.matched(store, again.dataset), 10**6, 1993)
    assert len(found) == store.rows("train") + store.rows("test") and not any(one.problem for one in found)
    return again.dataset


def test_decoding_is_in_the_fingerprint_and_a_store_is_computed_again_as_it_was_made(
    folder, tiny, tiny_weights, tmp_path
):
    def made(**how):
        store = quietly(load_dataset(str(folder), decoding=how), tiny, tmp_path / "cache", OPTIONS)
        assert Decoding.recorded_in(store.spec.transform) == replace(Decoding(), **how)
        recomputed(store, tiny_weights)
        return store

    plain = made()
    said = {"orientation": "upright", "background": "#ffffff", "depth": "scaled"}
    assert said.items() <= plain.spec.transform.items() and "left_out" not in plain.manifest.to_dict()
    for number, change in enumerate(({"orientation": "stored"}, {"background": "none"}, {"depth": "clipped"})):
        store = made(**change)
        assert store.spec.digest() != plain.spec.digest()
        (row,) = np.flatnonzero((plain.features("train") != store.features("train")).any(axis=(1, 2)))
        assert store.paths("train")[row] == f"train/class {number}/000.png"
    shutil.copy(folder / "train/class 0/001.png", folder / "train/class 0/002.gif")  # read by default, not as published
    published = made(**asdict(PUBLISHED))
    assert published.rows("train") == 6 < made().rows("train")
    embedded, limited = (
        load_dataset("digits"),
        load_dataset(str(folder), decoding=asdict(PUBLISHED) | {"max_pixels": 9}),
    )
    specs = [store_spec(dataset, tiny, tiny.transform(), OPTIONS) for dataset in (embedded, limited)]
    assert not any(said.keys() & spec.transform.keys() for spec in (published.spec, *specs))
    assert specs[1] == published.spec, "a limit makes no other store"


def test_what_it_was_made_from_is_found_again(folder, tiny, tiny_weights, tmp_path):
    """A folder that is called like an embedded dataset, and one whose duplicates were dropped."""
    shutil.copy(folder / "train/class 0/001.png", folder / "test/class 0/002.png")
    dataset = without_duplicates(load_dataset(str(folder.rename(tmp_path / "digits"))), "drop")
    store = quietly(dataset, tiny, tmp_path / "cache", OPTIONS, duplicates="drop")
    assert store.rows("train") == 5
    again = recomputed(store, tiny_weights)
    assert again.root == str(tmp_path / "digits") and again.listing_digest() == dataset.listing_digest()


def test_shapes_that_no_view_can_be_made_of(folder, tiny, tmp_path):
    """A picture one pixel wide and a million high has 4 kB, but 5 GB when its shorter side has 36."""
    path, skipping = folder / "train/class 0/000.png", replace(OPTIONS, on_error="skip")
    Image.new("L", (1, 1_000_000)).save(path)
    with pytest.raises(ImageError, match="1 x 1,000,000 pixels is too narrow") as raised:
        quietly(load_dataset(str(folder)), tiny, tmp_path / "failed", OPTIONS)
    assert raised.value.where == str(path)
    (skipped,) = quietly(load_dataset(str(folder)), tiny, tmp_path / "cache", skipping).manifest.skipped["train"]
    assert skipped.path == "train/class 0/000.png" and "too narrow" in skipped.reason
    Image.new("L", (3, 1000)).save(path)
    assert quietly(load_dataset(str(folder)), tiny, tmp_path / "narrow", OPTIONS).rows("train") == 6


def test_whatever_a_dataset_is_called_its_store_is_found_unless_runs_could_not_be_called_so(folder, tiny, tmp_path):
    for name in ("n" * 200, ".hidden", "-rf", "[red]", "é" * 100):
        dataset = load_dataset(str(folder.rename(tmp_path / name)))
        store = quietly(dataset, tiny, tmp_path / "cache", OPTIONS)
        assert dataset.name == name and store.path.parent == tmp_path / "cache"
        assert len(store.path.name.encode()) < 255 and find_store(tmp_path / "cache", name).path == store.path
        folder = tmp_path / name
    specs = [store_spec(replace(dataset, name="n" * 199 + end), tiny, tiny.transform(), OPTIONS) for end in ("x", "y")]
    assert len({store_path(Path("cache"), spec) for spec in specs}) == 2, "long names differ by the digest"
    control = "holds a control character"
    for name, words in (("n" * 255, "has 255 bytes, more than 200"), ("line\nbreak", control), ("\x1b[31m", control)):
        folder = folder.rename(tmp_path / name)
        with pytest.raises(DatasetError, match=words):
            load_dataset(str(folder))
