"""Images that are there more than once: told, dropped or refused, whatever they are called."""

import os
import shutil

import pytest
from odd_folders import make_image, make_splits

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.duplicates import find_duplicates, without_duplicates
from tosca_cache.errors import DatasetError, UsageError


@pytest.fixture
def folder(tmp_path):
    """2 classes of 3 different images in train and in test."""
    return make_splits(tmp_path / "set", count=3)


def lines(folder, **how):
    return find_duplicates(load_dataset(str(folder), **how)).lines()


@pytest.mark.parametrize("copy", [shutil.copy, os.link, lambda source, target: target.symlink_to(source)])
def test_the_same_image_in_train_and_test(folder, copy):
    copy(folder / "train" / "a" / "0.png", folder / "test" / "a" / "copy.png")
    copy(folder / "train" / "b" / "1.png", folder / "test" / "b" / "copy.png")
    assert lines(folder) == [
        "test images that are also in train: 2 (test/a/copy.png = train/a/0.png; test/b/copy.png = train/b/1.png)"
    ]


def test_the_same_image_in_two_classes_but_not_within_one(folder):
    shutil.copy(folder / "train" / "a" / "0.png", folder / "train" / "a" / "copy.png")
    assert lines(folder) == []
    shutil.copy(folder / "train" / "a" / "1.png", folder / "train" / "b" / "copy.png")
    assert lines(folder) == ["images that stand in several classes: 1 (train/a/1.png = train/b/copy.png)"]


def test_five_are_named(folder):
    for number in range(7):
        make_image(folder / "train" / "a" / f"x{number}.png", 50 + number)
        shutil.copy(folder / "train" / "a" / f"x{number}.png", folder / "test" / "a" / f"x{number}.png")
    (line,) = lines(folder)
    assert line.startswith("test images that are also in train: 7 (") and line.endswith("; ...)")
    assert line.count(" = ") == 5


def test_files_that_differ_before_their_last_bytes_are_different(folder):
    """Large files are told apart by size and end first, and by all of their bytes in the end."""
    for place, first in (("train/a/x.bmp", b"a"), ("test/a/y.bmp", b"b"), ("test/a/z.bmp", b"a")):
        (folder / place).write_bytes(first + b"0" * 20_000)
    assert lines(folder) == ["test images that are also in train: 1 (test/a/z.bmp = train/a/x.bmp)"]


def test_what_cannot_be_read_is_nobodys_copy(folder):
    for name in ("x", "y"):
        (folder / "train" / "a" / f"{name}.png").symlink_to("nowhere")
        (folder / "test" / "a" / f"{name}.png").write_bytes(b"")
        (folder / "train" / "b" / f"{name}.png").write_bytes(b"")
    assert lines(folder) == []


def test_a_split_by_fraction(tmp_path):
    for number in range(5):
        make_image(tmp_path / "set" / "a" / f"{number}.png", 1)
        make_image(tmp_path / "set" / "b" / f"{number}.png", number + 2)
    (line,) = lines(tmp_path / "set", test_fraction=0.4)
    assert line.startswith("test images that are also in train: 2 (")


class TestPolicies:
    @pytest.fixture
    def copied(self, folder):
        """One train image also in test, one in two classes of train, one in train and in test of another class."""
        shutil.copy(folder / "train" / "a" / "0.png", folder / "test" / "a" / "copy.png")
        shutil.copy(folder / "train" / "a" / "1.png", folder / "train" / "b" / "copy.png")
        shutil.copy(folder / "train" / "b" / "2.png", folder / "test" / "a" / "other.png")
        return load_dataset(str(folder))

    def test_drop(self, copied):
        dropped = without_duplicates(copied, "drop")
        assert dropped.splits["train"].paths == ("train/a/2.png", "train/b/0.png", "train/b/1.png")
        assert dropped.splits["train"].labels.tolist() == [0, 1, 1]
        assert (
            "test/a/copy.png" in dropped.splits["test"].paths and "test/a/other.png" not in dropped.splits["test"].paths
        )
        assert dropped.left_out == {
            "images that stand in several classes": [
                "test/a/other.png",
                "train/a/1.png",
                "train/b/2.png",
                "train/b/copy.png",
            ],
            "train images that are also in test": ["train/a/0.png"],
        }
        assert not dropped.unchecked and not find_duplicates(dropped)
        assert dropped.open("train", 0).tobytes() == copied.open("train", 2).tobytes()

    def test_keep_and_fail(self, copied):
        assert without_duplicates(copied, "keep") is copied and copied.unchecked
        with pytest.raises(DatasetError, match=r"also in train: 2 .*several classes: 2 .*") as raised:
            without_duplicates(copied, "fail")
        assert "--duplicates drop" in raised.value.remedy

    @pytest.mark.parametrize("policy", ["drop", "fail"])
    def test_without_any_and_of_a_named_dataset(self, folder, policy):
        dataset = load_dataset(str(folder))
        assert without_duplicates(dataset, policy).splits["train"].paths == dataset.splits["train"].paths
        with pytest.raises(UsageError, match="as it was published"):
            without_duplicates(load_dataset("digits"), policy)

    def test_a_class_that_would_be_left_empty(self, folder):
        for number in range(3):
            shutil.copy(folder / "train" / "a" / f"{number}.png", folder / "test" / "a" / f"copy{number}.png")
        with pytest.raises(DatasetError, match="leaves 1 classes without images in train: 'a'"):
            without_duplicates(load_dataset(str(folder)), "drop")
