"""Images that are there more than once: told, dropped or refused, whatever they are called."""

import os
import shutil

import pytest
from photos import make_image, make_splits

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.duplicates import duplicate_lines, find_duplicates, without_duplicates
from tosca_cache.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    """2 classes of 3 different images in train and in test."""
    return make_splits(tmp_path / "set", count=3)


def lines(folder):
    return duplicate_lines(find_duplicates(load_dataset(str(folder))))


def test_what_counts_as_a_duplicate(folder, tmp_path):
    """By bytes, however copied; not within one class, nor what cannot be read, nor what differs before its last bytes."""
    for number, copy in enumerate((shutil.copy, os.link, lambda source, target: target.symlink_to(source))):
        copied = shutil.copytree(folder, tmp_path / str(number))
        copy(copied / "train" / "a" / "0.png", copied / "test" / "a" / "copy.png")
        assert lines(copied) == ["test images that are also in train: 1 (test/a/copy.png = train/a/0.png)"]
    shutil.copy(folder / "train" / "a" / "0.png", folder / "train" / "a" / "copy.png")
    for name in ("x", "y"):
        (folder / "train" / "a" / f"{name}.png").symlink_to("nowhere")
        (folder / "test" / "a" / f"{name}.png").write_bytes(b"")
        (folder / "train" / "b" / f"{name}.png").write_bytes(b"")
    assert lines(folder) == []
    for place, first in (("train/a/x.bmp", b"a"), ("test/a/y.bmp", b"b"), ("test/a/z.bmp", b"a")):
        (folder / place).write_bytes(first + b"0" * 20_000)
    assert lines(folder) == ["test images that are also in train: 1 (test/a/z.bmp = train/a/x.bmp)"]
    shutil.copy(folder / "train" / "a" / "1.png", folder / "train" / "b" / "copy.png")
    for number in range(7):
        shutil.copy(make_image(folder / "train" / "a" / f"{number}.tif", number), folder / "test" / "a")
    both, several = lines(folder)
    assert several == "images that stand in several classes: 1 (train/a/1.png = train/b/copy.png)"
    assert both.startswith("test images that are also in train: 8 (") and both.endswith("; ...)")
    assert both.count(" = ") == 5, "five are named"


def test_they_are_kept_dropped_or_refused(folder):
    """One train image also in test, one in two classes of train, one in train and in test of another class."""
    whole = load_dataset(str(folder))
    assert without_duplicates(whole, "drop").splits["train"].paths == whole.splits["train"].paths
    for copy, of in (("test/a/copy", "train/a/0"), ("train/b/copy", "train/a/1"), ("test/a/other", "train/b/2")):
        shutil.copy(folder / f"{of}.png", folder / f"{copy}.png")
    copied = load_dataset(str(folder))
    assert without_duplicates(copied, "keep") is copied and copied.unchecked
    with pytest.raises(DatasetError, match=r"also in train: 2 .*several classes: 2 .*") as raised:
        without_duplicates(copied, "fail")
    assert "--duplicates drop" in raised.value.remedy
    dropped = without_duplicates(copied, "drop")
    assert dropped.splits["train"].paths == ("train/a/2.png", "train/b/0.png", "train/b/1.png")
    assert dropped.splits["train"].labels.tolist() == [0, 1, 1]
    assert "test/a/copy.png" in dropped.splits["test"].paths
    several = ["test/a/other.png", "train/a/1.png", "train/b/2.png", "train/b/copy.png"]
    assert dropped.left_out == {
        "images that stand in several classes": several,
        "train images that are also in test": ["train/a/0.png"],
    }
    assert not dropped.unchecked and not duplicate_lines(find_duplicates(dropped))
    assert dropped.open("train", 0).tobytes() == copied.open("train", 2).tobytes()
    shutil.copy(folder / "train" / "a" / "2.png", folder / "test" / "a" / "third.png")
    with pytest.raises(DatasetError, match="leaves classes without images in train: 'a'"):
        without_duplicates(load_dataset(str(folder)), "drop")
