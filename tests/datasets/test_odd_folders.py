"""Folders as they are found: links, what systems leave behind, other suffixes, and every name that a file may have."""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from odd_folders import make_image, make_splits

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.decoding import PUBLISHED
from tosca_cache.datasets.folders import FolderScan
from tosca_cache.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    """2 classes of 2 images in train and in test."""
    return make_splits(tmp_path / "set")


FOUR = ("a/0.png", "a/1.png", "b/0.png", "b/1.png")


def paths(dataset, split="train"):
    return tuple(path.removeprefix(f"{split}/") for path in dataset.splits[split].paths)


class TestLinks:
    @pytest.mark.parametrize(
        ("link", "target"),
        [
            ("train/a/loop", ".."),
            ("train/a/loop", "."),
            ("train/a/loop", "../.."),
            ("train/c", "a"),
            ("train/a/other", "../b"),
            ("train/a/test", "../../test/a"),
            ("train/a/far", "../../../elsewhere"),
            ("train/c", "../../elsewhere"),
        ],
    )
    def test_links_to_folders_are_left_out_with_a_word(self, folder, tmp_path, link, target):
        make_image(tmp_path / "elsewhere" / "far.png", 7)
        (folder / link).symlink_to(target)
        dataset = load_dataset(str(folder))
        assert paths(dataset) == paths(dataset, "test") == FOUR
        assert dataset.left_out == {"links to folders": [link]}

    def test_a_class_that_is_a_link_is_named(self, folder, tmp_path):
        (folder / "train" / "a").rename(tmp_path / "elsewhere")
        (folder / "train" / "a").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(DatasetError, match=r"only in test: 'a' \(left out: links to folders: 1 \(train/a\)\)"):
            load_dataset(str(folder))

    def test_the_dataset_and_its_splits_may_be_links(self, folder, tmp_path):
        (folder / "train").rename(tmp_path / "elsewhere")
        (folder / "train").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "linked").symlink_to(folder)
        dataset = load_dataset(str(tmp_path / "linked"))
        assert paths(dataset) == FOUR and not dataset.left_out
        assert dataset.open("train", 0).size == (12, 10)

    def test_two_splits_cannot_be_the_same_folder(self, folder):
        shutil.rmtree(folder / "test")
        (folder / "test").symlink_to("train")
        with pytest.raises(DatasetError, match="test is the same folder as another"):
            load_dataset(str(folder))

    def test_links_to_files_are_read(self, folder):
        (folder / "train" / "a" / "2.png").symlink_to("../../test/b/1.png")
        assert "a/2.png" in paths(load_dataset(str(folder)))

    def test_a_link_that_leads_nowhere_is_an_image_that_is_missing(self, folder):
        (folder / "train" / "a" / "2.png").symlink_to("nowhere.png")
        (folder / "train" / "a" / "3.png").symlink_to("3.png")
        dataset = load_dataset(str(folder))
        assert {"a/2.png", "a/3.png"} < set(paths(dataset))
        for row in (2, 3):
            with pytest.raises(DatasetError, match="no such file"):
                dataset.open("train", row)


def test_every_real_folder_is_listed_once(folder):
    """As where one is mounted at two places, which is no link."""
    scan = FolderScan(folder, PUBLISHED.suffixes)
    assert scan.images(folder / "train" / "a") == ["train/a/0.png", "train/a/1.png"]
    assert scan.images(folder / "train") == ["train/b/0.png", "train/b/1.png"]
    assert scan.left_out == {"folders that were listed already": ["train/a"]}


def test_what_is_no_file_is_not_waited_for(folder):
    os.mkfifo(folder / "train" / "a" / "pipe.png")
    dataset = load_dataset(str(folder))
    assert paths(dataset) == FOUR and dataset.left_out == {"pipes, sockets and devices": ["train/a/pipe.png"]}
    (folder / "train" / "a" / "0.png").unlink()
    os.mkfifo(folder / "train" / "a" / "0.png")  # since it was listed
    with pytest.raises(DatasetError, match="no regular file"):
        dataset.open("train", 0)


SYSTEM = "__MACOSX .ipynb_checkpoints @eaDir lost+found $RECYCLE.BIN .Trash-1000 .git #recycle __pycache__"


@pytest.mark.parametrize("place", [".", "train", "train/a"])
def test_what_systems_leave_behind_is_no_class_and_no_image(folder, place):
    for name in (*SYSTEM.split(), "System Volume Information"):
        make_image(folder / place / name / "1.png")
    for name in (".DS_Store", "._0.png", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini"):
        (folder / place / name).write_bytes(b"no image")
    dataset = load_dataset(str(folder))
    assert dataset.class_names == ("a", "b") and paths(dataset) == FOUR and not dataset.left_out


class TestSuffixes:
    def test_others_are_counted(self, folder):
        for name in ("1.heic", "2.HEIC", "notes.txt", "README"):
            (folder / "train" / "a" / name).write_bytes(b"no image")
        dataset = load_dataset(str(folder))
        assert paths(dataset) == FOUR
        assert dataset.left_out == {
            ".heic files": ["train/a/1.heic", "train/a/2.HEIC"],
            "files without a suffix": ["train/a/README"],
            ".txt files": ["train/a/notes.txt"],
        }

    def test_a_class_or_a_dataset_of_nothing_else_is_named(self, folder):
        for split in ("train", "test"):
            (folder / split / "phone").mkdir()
            (folder / split / "phone" / "1.heic").write_bytes(b"no image")
        with pytest.raises(DatasetError, match=r"1 class without images: 'phone' \(left out: .heic files: 1 "):
            load_dataset(str(folder))
        for split in ("train", "test"):
            for name in ("a", "b"):
                shutil.rmtree(folder / split / name)
        for place in (folder, folder / "train"):
            with pytest.raises(DatasetError, match=r"no images found.*\.heic files: 1"):
                load_dataset(str(place))

    def test_gif_is_read_but_not_as_published(self, folder):
        for split in ("train", "test"):
            shutil.copy(folder / split / "a" / "0.png", folder / split / "a" / "2.gif")
        assert "a/2.gif" in paths(load_dataset(str(folder)))
        published = load_dataset(str(folder), decoding=vars(PUBLISHED))
        assert paths(published) == FOUR and published.left_out == {".gif files": ["train/a/2.gif", "test/a/2.gif"]}

    def test_images_and_folders_beside_the_classes(self, folder):
        make_image(folder / "train" / "loose.png")
        make_image(folder / "val" / "a" / "0.png")
        assert load_dataset(str(folder)).left_out == {
            "images beside the class folders": ["train/loose.png"],
            "folders beside train and test": ["val"],
        }


def test_a_folder_that_may_not_be_read_is_an_error(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("tosca_cache.datasets.folders._entries", refuse)
    with pytest.raises(DatasetError, match="Permission denied"):
        load_dataset(str(folder))


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


class TestNames:
    @pytest.mark.parametrize(
        "name", ["line\nbreak", "-rf", "[red]", " space ", "x" * 255, "\x1b[31m", DECOMPOSED, "é" * 127]
    )
    def test_of_classes_and_files_are_text(self, tmp_path, name):
        folder = make_splits(tmp_path / "set", ("a", name))
        file = name[:100] + ".png"
        make_image(folder / "train" / name / file)
        dataset = load_dataset(str(folder))
        assert set(dataset.class_names) == {"a", name} and f"{name}/{file}" in paths(dataset)
        assert dataset.open("train", dataset.splits["train"].paths.index(f"train/{name}/{file}")).size == (12, 10)

    def test_messages_show_them_escaped(self, tmp_path):
        folder = make_splits(tmp_path / "set", ("a", "line\nbreak"))
        (folder / "train" / "line\nbreak" / "0.png").write_bytes(b"")
        with pytest.raises(DatasetError) as raised:
            load_dataset(str(folder)).open("train", 2)
        assert r"line\nbreak/0.png" in str(raised.value)
        shutil.rmtree(folder / "test" / "line\nbreak")
        with pytest.raises(DatasetError) as raised:
            load_dataset(str(folder))
        assert r"'line\nbreak'" in raised.value.problem and "\n" not in raised.value.problem

    @pytest.mark.parametrize("name", [b"set/train/a/\xff.png", b"set/train/\xff/0.png"])
    def test_that_are_no_utf_8_are_named(self, folder, tmp_path, name):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        shutil.copy(folder / "train" / "a" / "0.png", path)
        with pytest.raises(DatasetError, match="not valid UTF-8") as raised:
            load_dataset(str(folder))
        assert r"\udcff" in str(raised.value) and str(raised.value).encode()

    def test_a_dataset_whose_name_is_no_utf_8(self, folder, tmp_path):
        renamed = folder.rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
        with pytest.raises(DatasetError, match="not valid UTF-8") as raised:
            load_dataset(str(renamed))
        assert r"\udcff" in str(raised.value) and str(raised.value).encode()

    @pytest.mark.parametrize(
        ("what", "files"),
        [
            ("classes", ("train/{}/0.png", "train/{}/1.png")),
            ("classes", ("train/{}/0.png", "test/{}/0.png")),
            ("images", ("train/a/{}.png", "train/a/{}.png")),
        ],
    )
    def test_twins_are_refused(self, folder, what, files):
        for file, name in zip(files, (COMPOSED, DECOMPOSED), strict=True):
            make_image(folder / file.format(name))
        with pytest.raises(DatasetError, match=rf"two {what} have the same name.*e\\u0301.*\\xe9"):
            load_dataset(str(folder))

    def test_twins_of_a_domain(self, tmp_path):
        for name in (COMPOSED, DECOMPOSED):
            make_splits(tmp_path / "set" / name)
        with pytest.raises(DatasetError, match="two domains have the same name"):
            load_dataset(str(tmp_path / "set"))
