"""Any folder of images: the three layouts, the order of rows, and everything that can be wrong with one."""

import sys

import numpy as np
import pytest
from photos import make_image

from tosca_cache.datasets import load_dataset
from tosca_cache.errors import DatasetError, ImageError, UsageError


def make_images(folder, files, size=(12, 10)):
    """Writes one small picture, different each time, for every path in `files`."""
    for number, file in enumerate(files):
        make_image(folder / file, number, size)
    return folder


def splits_of(*files):
    return [f"{split}/{file}" for split in ("train", "test") for file in files]


@pytest.mark.skipif(sys.getfilesystemencoding() != "utf-8", reason="Python was told to know only ASCII in file names")
def test_rows_and_labels_are_those_of_torchvision(tmp_path, monkeypatch):
    from tosca_cache.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    from torchvision.datasets import ImageFolder

    files = ["b/2.png", "b/10.png", "b/inner/1.png", "a/x.JPG", "Z/1.jpeg", "Z/0.bmp", "n01 2/3.png", "été/é 1.png"]
    folder = make_images(tmp_path / "birds", splits_of(*files))
    dataset = load_dataset(str(folder))
    assert dataset.name == "birds" and dataset.class_names == ("Z", "a", "b", "n01 2", "été")
    for split in ("train", "test"):
        peer, rows = ImageFolder(str(folder / split)), dataset.splits[split]
        assert list(dataset.class_names) == peer.classes
        assert [
            (str(folder / path), label) for path, label in zip(rows.paths, rows.labels, strict=True)
        ] == peer.samples
        assert rows.domains.tolist() == [0] * 8 and dataset.open(split, 7).size == (12, 10)
    assert load_dataset("birds", data_root=tmp_path).listing_digest() == dataset.listing_digest()
    monkeypatch.setenv("TOSCA_DATA", str(tmp_path))
    assert load_dataset("birds").name == "birds"


def test_domains(tmp_path):
    files = [f"{domain}/{split}" for domain in ("sketch", "photo") for split in splits_of("cat/1.png", "dog/1.png")]
    dataset = load_dataset(str(make_images(tmp_path / "pets", files)))
    rows = dataset.splits["train"]
    assert dataset.domain_names == ("photo", "sketch")
    assert rows.paths == tuple(f"{domain}/train/{c}/1.png" for c in ("cat", "dog") for domain in ("photo", "sketch"))
    assert (rows.labels.tolist(), rows.domains.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])


def test_a_fraction_is_stratified_repeatable_and_of_each_class_alone(tmp_path):
    files = [f"{c}/{i}.png" for c, n in (("a", 10), ("b", 7), ("c", 2)) for i in range(n)]
    folder = str(make_images(tmp_path / "birds", files))
    dataset = load_dataset(folder, test_fraction=0.3)
    train, test = (dataset.splits[split] for split in ("train", "test"))
    assert np.bincount(test.labels).tolist() == [3, 2, 1]
    assert sorted(train.paths + test.paths) == sorted(files)
    assert load_dataset(folder, test_fraction=0.3).listing_digest() == dataset.listing_digest()
    assert load_dataset(folder, test_fraction=0.3, seed=1).listing_digest() != dataset.listing_digest()
    for fraction in (0.001, 0.999):
        for rows in load_dataset(folder, test_fraction=fraction).splits.values():
            assert np.bincount(rows.labels).min() >= 1, "no class loses all its images"
    make_images(tmp_path / "birds", ["0/1.png", "0/2.png"])
    after = set(load_dataset(folder, test_fraction=0.3).splits["test"].paths)
    assert set(test.paths) < after and all(path.startswith("0/") for path in after - set(test.paths))
    for fraction in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            load_dataset(folder, test_fraction=fraction)
    with pytest.raises(UsageError, match="--test-fraction"):
        load_dataset(folder)
    make_images(tmp_path / "birds", ["lonely/1.png"])
    with pytest.raises(DatasetError, match="class 'lonely' has one image") as raised:
        load_dataset(folder, test_fraction=0.2)
    assert raised.value.where == f"{folder}/lonely"
    with pytest.raises(UsageError, match="leave --test-fraction out"):
        load_dataset(str(make_images(tmp_path / "b", splits_of("a/1.png"))), test_fraction=0.2)
    with pytest.raises(UsageError, match="test split of its own"):
        load_dataset("digits", test_fraction=0.2)


@pytest.mark.parametrize(
    ("files", "folders", "message"),
    [
        (splits_of("a/1.png"), ["train/empty", "test/empty"], "1 class without images: 'empty'"),
        ([*splits_of("a/1.png"), "test/b/1.png"], [], "1 class only in test: 'b'"),
        ([*splits_of("a/1.png"), "train/b/1.png", "train/c/1.png"], [], "2 classes only in train: 'b', 'c'"),
        ([*splits_of("a/1.png"), "a/1.png"], [], "mixes layouts"),
        ([*splits_of("a/1.png"), "photo/train/a/1.png"], [], "mixes layouts"),
        (["photo/train/a/1.png", "photo/test/a/1.png", "a/1.png"], [], "mixes layouts"),
        (["photo/train/a/1.png"], [], "a folder of classes is missing"),
        (["train/a/1.png"], [], "a folder of classes is missing"),
        ([], ["train/a", "test/a"], "no images found"),
        ([], ["a"], "no images found"),
        (["1.png"], [], "no images found"),
        ([], [], "does not exist"),
    ],
)
def test_what_is_wrong_with_a_folder(tmp_path, files, folders, message):
    root = make_images(tmp_path / "set", files)
    for folder in folders:
        (root / folder).mkdir(parents=True)
    with pytest.raises(DatasetError, match=message) as raised:
        load_dataset(str(root))
    assert str(root) in raised.value.where and raised.value.remedy


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    folder = make_images(tmp_path / "set", splits_of("a/1.jpg"), size=(64, 64))
    bad, dataset = folder / "train" / "a" / "1.jpg", load_dataset(str(folder))
    whole = bad.read_bytes()
    for content, reason in (
        (b"", "empty"),
        (b"this is text", "not an image"),
        (whole[:-200], "truncated"),
        (None, "no such file"),
    ):
        bad.unlink() if content is None else bad.write_bytes(content)
        with pytest.raises(ImageError, match=reason) as raised:
            dataset.open("train", 0)
        assert raised.value.where == str(bad)
    with pytest.raises(DatasetError, match="is not a folder"):
        (tmp_path / "file").write_text("no folder")
        load_dataset(str(tmp_path / "file"))
