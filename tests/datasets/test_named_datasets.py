"""Datasets by name: what is said about those that are missing, and that those that are there are checked."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from photos import make_image

from tosca_cache.datasets import REGISTRY, catalogue, load_dataset
from tosca_cache.datasets.decoding import PUBLISHED
from tosca_cache.errors import DatasetError

RELEASED = ("cub", "imageneta", "imagenetr", "omnibenchmark", "vtab", "objectnet", "cifar224")  # the reference's names


@pytest.fixture
def small(monkeypatch):
    """Gives a dataset of the registry counts that a test can make; returns it."""

    def make(name):
        found = replace(REGISTRY[name], classes=2, train=4, test=2)
        monkeypatch.setattr(catalogue, "known", lambda asked: found if asked == name else None)
        return found

    return make


def test_a_missing_dataset_says_all_that_is_needed(tmp_path):
    for name in RELEASED:
        with pytest.raises(DatasetError) as raised:
            load_dataset(name, data_root=tmp_path)
        known, text = REGISTRY[{"cifar224": "cifar100"}.get(name, name)], str(raised.value)
        for needed in (tmp_path / known.place, known.wanted, known.published, known.md5):
            assert str(needed) in text


def test_one_of_folders_is_read_as_published_unless_its_counts_or_its_layout_are_others(tmp_path, small):
    known = small("vtab")
    folder = tmp_path / known.place
    for number, (split, name) in enumerate((s, c) for s in ("train", "train", "test") for c in "01"):
        make_image(folder / split / name / f"{number}.jpg", number)
    (folder / "train" / "0" / "more.gif").write_bytes((folder / "train" / "0" / "0.jpg").read_bytes())
    (folder / "__MACOSX").mkdir()
    dataset = load_dataset("vtab", data_root=tmp_path)
    assert dataset.name == "vtab" and dataset.class_names == ("0", "1")
    assert dataset.decoding == PUBLISHED and not dataset.left_out and not dataset.unchecked
    upright = load_dataset("vtab", data_root=tmp_path, decoding={"orientation": "upright", "depth": "scaled"})
    assert upright.decoding == replace(PUBLISHED, orientation="upright", depth="scaled")
    assert upright.listing_digest() == dataset.listing_digest()
    make_image(folder / "train" / "0" / "more.jpg")
    with pytest.raises(DatasetError, match="5 train and 2 test images, but the published one has 2, 4 and 2") as raised:
        load_dataset("vtab", data_root=tmp_path)
    assert str(folder) in raised.value.remedy and len(load_dataset(str(folder)).splits["train"]) == 6, "as a folder"
    (folder / "test" / "1" / "5.jpg").unlink()
    with pytest.raises(DatasetError, match="classes without images") as raised:
        load_dataset("vtab", data_root=tmp_path)
    assert known.wanted in raised.value.remedy and known.md5 in raised.value.remedy


def test_cifar_is_read_with_torchvision(tmp_path, monkeypatch, small):
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
    small("cifar100")
    dataset = load_dataset("cifar100", data_root=tmp_path)
    assert dataset.splits["train"].labels.tolist() == [0, 0, 1, 1]
    assert dataset.splits["train"].paths[:2] == ("apple/train-00001", "apple/train-00003")
    for row, source in enumerate((1, 3, 0, 2)):
        assert np.array_equal(np.asarray(dataset.open("train", row)), pixels[source].transpose(1, 2, 0))
