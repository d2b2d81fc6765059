"""Datasets by name: what is said about those that are missing, and that those that are there are checked."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tosca_cache.datasets import REGISTRY, catalogue, load_dataset
from tosca_cache.datasets.decoding import PUBLISHED
from tosca_cache.errors import DatasetError, UsageError

RELEASED = ("cub", "imageneta", "imagenetr", "omnibenchmark", "vtab", "objectnet", "cifar224")  # the reference's names
SMALL = replace(REGISTRY["vtab"], classes=2, train=4, test=2)


@pytest.fixture
def small_vtab(monkeypatch):
    """The registry's vtab with counts that a test can make."""
    monkeypatch.setattr(catalogue, "known", lambda name: SMALL if name == "vtab" else None)


def make_vtab(data_root, train=2, place=SMALL.place):
    """Writes the small dataset with so many train images a class; returns its folder."""
    for split, count in (("train", train), ("test", 1)):
        for name in ("0", "1"):
            folder = data_root / place / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (4, 4), (number, 0, 0)).save(folder / f"{number}.jpg")
    return data_root / place


def test_a_missing_dataset_says_all_that_is_needed_and_an_unknown_one_suggests_the_nearest(tmp_path):
    for name in RELEASED:
        with pytest.raises(DatasetError) as raised:
            load_dataset(name, data_root=tmp_path)
        known, text = REGISTRY[{"cifar224": "cifar100"}.get(name, name)], str(raised.value)
        for needed in (tmp_path / known.place, known.wanted, known.published, known.md5):
            assert str(needed) in text
    for name, near in (("digit", "digits"), ("CUB", "cub")):
        with pytest.raises(UsageError, match=near):
            load_dataset(name, data_root=tmp_path)
    for name in ("digits", "digits-domains", "glyphs", "cifar100"):
        with pytest.raises(UsageError, match="no files of their own") as refused:
            load_dataset(name, decoding={"background": "#ffffff"})
        assert refused.value.where == "--background"


def test_found_in_the_path_of_the_reference_and_read_as_published(tmp_path, small_vtab):
    root, folder = tmp_path, make_vtab(tmp_path)
    dataset = load_dataset("vtab", data_root=root)
    assert dataset.name == "vtab" and dataset.class_names == ("0", "1")
    (folder / "train" / "0" / "more.gif").write_bytes((folder / "train" / "0" / "0.jpg").read_bytes())
    (folder / "__MACOSX").mkdir()
    dataset = load_dataset("vtab", data_root=root)
    assert dataset.decoding == PUBLISHED and not dataset.left_out and not dataset.unchecked
    upright = load_dataset("vtab", data_root=root, decoding={"orientation": "upright", "depth": "scaled"})
    assert upright.decoding == replace(PUBLISHED, orientation="upright", depth="scaled")
    assert upright.listing_digest() == dataset.listing_digest()


def test_other_counts_than_published_or_a_broken_layout_are_told_with_what_is_wanted(tmp_path, small_vtab):
    folder = make_vtab(tmp_path, train=3)
    with pytest.raises(DatasetError, match="6 train and 2 test images, but the published one has 2, 4 and 2") as raised:
        load_dataset("vtab", data_root=tmp_path)
    assert str(folder) in raised.value.remedy and len(load_dataset(str(folder)).splits["train"]) == 6
    (folder / "test" / "1" / "0.jpg").unlink()
    with pytest.raises(DatasetError, match="classes without images") as raised:
        load_dataset("vtab", data_root=tmp_path)
    assert SMALL.wanted in raised.value.remedy and SMALL.md5 in raised.value.remedy


def test_cifar_is_read_with_torchvision(tmp_path, monkeypatch):
    """With files of the same format but few images; torchvision's checksums are put aside for the test."""
    from tosca_cache.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    from torchvision.datasets import CIFAR100

    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    (folder / "train").write_bytes(b"no cifar")
    with pytest.raises(DatasetError, match="incomplete or damaged"):
        load_dataset("cifar100", data_root=tmp_path)
    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    pixels, labels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8), [1, 0, 1, 0]
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
