"""Datasets by name: what is said about those that are missing, and that those that are there are checked."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tosca_cache.datasets import REGISTRY, catalogue, list_datasets, load_dataset
from tosca_cache.datasets.decoding import PUBLISHED
from tosca_cache.errors import DatasetError, UsageError

RELEASED = (
    "cub",
    "imageneta",
    "imagenetr",
    "omnibenchmark",
    "vtab",
    "objectnet",
    "cifar224",
)  # as the reference calls it
SMALL = replace(REGISTRY["vtab"], classes=2, train=4, test=2)


@pytest.fixture
def small_vtab(monkeypatch):
    """The registry's vtab with counts that a test can make."""
    monkeypatch.setattr(catalogue, "REGISTRY", {"vtab": SMALL})
    monkeypatch.setattr(catalogue, "known", lambda name: SMALL if name == "vtab" else None)


def make_vtab(data_root, train=2, test=1, place="vtab-cil/vtab"):
    for split, count in (("train", train), ("test", test)):
        for name in ("0", "1"):
            folder = data_root / place / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.jpg")


@pytest.mark.parametrize("name", RELEASED)
def test_a_missing_dataset_says_all_that_is_needed(tmp_path, name):
    with pytest.raises(DatasetError) as raised:
        load_dataset(name, data_root=tmp_path)
    known, text = REGISTRY[{"cifar224": "cifar100"}.get(name, name)], str(raised.value)
    for needed in (tmp_path / known.places[0], known.wanted, known.published, known.md5):
        assert str(needed) in text


@pytest.mark.parametrize(("name", "near"), [("digit", "digits"), ("imagenet-r", "imagenetr"), ("CUB", "cub")])
def test_an_unknown_name_suggests_the_nearest(tmp_path, name, near):
    with pytest.raises(UsageError, match=near):
        load_dataset(name, data_root=tmp_path)


def test_found_in_the_path_of_the_reference_or_by_its_name(tmp_path, small_vtab):
    for place in SMALL.places:
        make_vtab(tmp_path / place.replace("/", "_"), place=place)
        dataset = load_dataset("vtab", data_root=tmp_path / place.replace("/", "_"))
        assert dataset.name == "vtab"
        assert dataset.class_names == ("0", "1")


def test_files_are_read_as_published_unless_asked_otherwise(tmp_path, small_vtab):
    make_vtab(tmp_path)
    folder = tmp_path / "vtab-cil" / "vtab"
    (folder / "train" / "0" / "more.gif").write_bytes((folder / "train" / "0" / "0.jpg").read_bytes())
    (folder / "__MACOSX").mkdir()
    dataset = load_dataset("vtab", data_root=tmp_path)
    assert dataset.decoding == PUBLISHED and not dataset.left_out and not dataset.unchecked
    upright = load_dataset("vtab", data_root=tmp_path, decoding={"orientation": "upright", "depth": "scaled"})
    assert upright.decoding == replace(PUBLISHED, orientation="upright", depth="scaled")
    assert upright.listing_digest() == dataset.listing_digest()


@pytest.mark.parametrize("name", ["digits", "digits-domains", "glyphs", "cifar100"])
def test_images_that_are_no_files_cannot_be_decoded_otherwise(name):
    with pytest.raises(UsageError, match="no files of their own") as raised:
        load_dataset(name, decoding={"background": "#ffffff"})
    assert raised.value.where == "--background"


def test_other_counts_than_published_are_an_error(tmp_path, small_vtab):
    make_vtab(tmp_path, train=3)
    with pytest.raises(DatasetError, match="6 train and 2 test images, but the published one has 2, 4 and 2") as raised:
        load_dataset("vtab", data_root=tmp_path)
    folder = tmp_path / "vtab-cil" / "vtab"
    assert len(load_dataset(str(folder)).splits["train"]) == 6  # the remedy
    assert str(folder) in raised.value.remedy


def test_a_broken_layout_is_told_with_what_is_wanted(tmp_path, small_vtab):
    make_vtab(tmp_path)
    for image in (tmp_path / "vtab-cil" / "vtab" / "test" / "1").iterdir():
        image.unlink()
    with pytest.raises(DatasetError, match="1 class without images") as raised:
        load_dataset("vtab", data_root=tmp_path)
    assert SMALL.wanted in raised.value.remedy and SMALL.md5 in raised.value.remedy


def test_status(tmp_path, small_vtab):
    for state in ("missing", "here"):
        (status,) = list_datasets(tmp_path)
        assert (status.state, status.folder) == (state, tmp_path / "vtab-cil" / "vtab")
        make_vtab(tmp_path, place="vtab-cil/vtab" if state == "missing" else "elsewhere")


def test_cifar_is_read_with_torchvision(tmp_path, monkeypatch):
    """With files of the same format but few images; torchvision's checksums are put aside for the test."""
    from tosca_cache.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    from torchvision.datasets import CIFAR100

    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    labels = [1, 0, 1, 0]
    for name, content in (
        ("train", {"data": pixels.reshape(4, -1), "fine_labels": labels}),
        ("test", {"data": pixels[:2].reshape(2, -1), "fine_labels": labels[:2]}),
        ("meta", {"fine_label_names": ["apple", "bear"]}),
    ):
        (folder / name).write_bytes(pickle.dumps(content))
    monkeypatch.setattr(catalogue, "known", lambda name: replace(REGISTRY["cifar100"], classes=2, train=4, test=2))
    dataset = load_dataset("cifar100", data_root=tmp_path)
    assert dataset.splits["train"].labels.tolist() == [0, 0, 1, 1]
    assert dataset.splits["train"].paths[:2] == ("apple/train-00001", "apple/train-00003")
    for row, source in enumerate((1, 3, 0, 2)):
        assert np.array_equal(np.asarray(dataset.open("train", row)), pixels[source].transpose(1, 2, 0))


def test_damaged_cifar(tmp_path):
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "train").write_bytes(b"no cifar")
    with pytest.raises(DatasetError, match="incomplete or damaged"):
        load_dataset("cifar100", data_root=tmp_path)
