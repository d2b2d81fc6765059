"""Folders as they are found: links, what systems leave behind, other suffixes, and every name that a file may have."""

import os
import shutil
import unicodedata

import pytest
from photos import make_image, make_splits

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.decoding import PUBLISHED
from tosca_cache.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    """2 classes of 2 images in train and in test."""
    return make_splits(tmp_path / "set")


FOUR = ("a/0.png", "a/1.png", "b/0.png", "b/1.png")


def paths(dataset, split="train"):
    return tuple(path.removeprefix(f"{split}/") for path in dataset.splits[split].paths)


def test_links_to_folders_are_left_out_with_a_word(folder, tmp_path):
    make_image(tmp_path / "elsewhere" / "far.png", 7)
    links = [("train/a/loop", target) for target in ("..", ".", "../..")]
    links += [("train/a/other", "../b"), ("train/a/test", "../../test/a"), ("train/a/far", "../../../elsewhere")]
    for link, target in [*links, ("train/c", "a"), ("train/c", "../../elsewhere")]:
        (folder / link).symlink_to(target)
        dataset = load_dataset(str(folder))
        assert paths(dataset) == paths(dataset, "test") == FOUR, target
        assert dataset.left_out == {"links to folders": [link]}
        (folder / link).unlink()
    (folder / "train" / "a").rename(tmp_path / "moved")
    (folder / "train" / "a").symlink_to(tmp_path / "moved")
    with pytest.raises(DatasetError, match=r"only in test: 'a' \(left out: links to folders: 1 \(train/a\)\)"):
        load_dataset(str(folder))


def test_links_that_are_followed(folder, tmp_path):
    """The dataset, its splits (not two to one folder), and images; one that leads nowhere is an image that is missing."""
    (folder / "train").rename(tmp_path / "elsewhere")
    (folder / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "linked").symlink_to(folder)
    dataset = load_dataset(str(tmp_path / "linked"))
    assert paths(dataset) == FOUR and not dataset.left_out
    assert dataset.open("train", 0).size == (12, 10)
    for name, target in (("2", folder / "test" / "b" / "1.png"), ("3", "nowhere.png"), ("4", "4.png")):
        (folder / "train" / "a" / f"{name}.png").symlink_to(target)
    dataset = load_dataset(str(folder))
    assert {"a/2.png", "a/3.png", "a/4.png"} < set(paths(dataset))
    assert dataset.open("train", 2).tobytes() == dataset.open("test", 3).tobytes()
    for row in (3, 4):
        with pytest.raises(DatasetError, match="no such file"):
            dataset.open("train", row)
    shutil.rmtree(folder / "test")
    (folder / "test").symlink_to("train")
    with pytest.raises(DatasetError, match="test is the same folder as another"):
        load_dataset(str(folder))


def test_what_is_no_file_is_not_waited_for_and_what_may_not_be_read_is_an_error(folder, monkeypatch):
    (folder / "train" / "a" / "0.png").unlink()
    os.mkfifo(folder / "train" / "a" / "0.png")
    with pytest.raises(DatasetError, match="no regular file"):
        load_dataset(str(folder)).open("train", 0)

    def refuse(path, onerror):
        onerror(PermissionError(13, "Permission denied", str(path)))

    monkeypatch.setattr("tosca_cache.datasets.folders.os.walk", refuse)
    with pytest.raises(DatasetError, match="Permission denied"):
        load_dataset(str(folder))


SYSTEM = "__MACOSX .ipynb_checkpoints @eaDir lost+found $RECYCLE.BIN .Trash-1000 .git #recycle __pycache__"
SYSTEM_FILES = (".DS_Store", "._0.png", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini")


def test_what_systems_leave_behind_is_no_class_and_no_image(folder):
    for place in (".", "train", "train/a"):
        for name in (*SYSTEM.split(), "System Volume Information"):
            make_image(folder / place / name / "1.png")
        for name in SYSTEM_FILES:
            (folder / place / name).write_bytes(b"no image")
    dataset = load_dataset(str(folder))
    assert dataset.class_names == ("a", "b") and paths(dataset) == FOUR and not dataset.left_out


def test_other_suffixes_and_what_lies_beside_the_classes_are_counted(folder):
    for name in ("1.heic", "2.HEIC", "notes.txt", "README"):
        (folder / "train" / "a" / name).write_bytes(b"no image")
    make_image(folder / "train" / "loose.png")
    make_image(folder / "val" / "a" / "0.png")
    others = {
        ".heic files": ["train/a/1.heic", "train/a/2.HEIC"],
        "files without a suffix": ["train/a/README"],
        ".txt files": ["train/a/notes.txt"],
        "images beside the class folders": ["train/loose.png"],
        "folders beside train and test": ["val"],
    }
    dataset = load_dataset(str(folder))
    assert paths(dataset) == FOUR and dataset.left_out == others
    for split in ("train", "test"):
        shutil.copy(folder / split / "a" / "0.png", folder / split / "a" / "2.gif")
    assert "a/2.gif" in paths(load_dataset(str(folder)))
    published = load_dataset(str(folder), decoding=vars(PUBLISHED))
    assert paths(published) == FOUR
    assert published.left_out == others | {".gif files": ["train/a/2.gif", "test/a/2.gif"]}


def test_a_class_or_a_dataset_of_nothing_that_is_read_is_named(folder):
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


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    "name", ["line\nbreak", "-rf", "[red]", " space ", "x" * 255, "\x1b[31m", DECOMPOSED, "é" * 127]
)
def test_names_are_text_and_escaped_in_messages(tmp_path, name):
    folder = make_splits(tmp_path / "set", ("a", name))
    file = f"{name[:100]}.png"
    make_image(folder / "train" / name / file)
    dataset = load_dataset(str(folder))
    assert set(dataset.class_names) == {"a", name} and f"{name}/{file}" in paths(dataset)
    row = dataset.splits["train"].paths.index(f"train/{name}/{file}")
    assert dataset.open("train", row).size == (12, 10)
    (folder / "train" / name / file).write_bytes(b"")
    with pytest.raises(DatasetError) as unreadable:
        dataset.open("train", row)
    shutil.rmtree(folder / "test" / name)
    with pytest.raises(DatasetError, match="only in train") as lonely:
        load_dataset(str(folder))
    for said in (str(unreadable.value), str(lonely.value)):
        assert "\x1b" not in said and "line\nbreak" not in said
        assert "line" not in name or r"line\nbreak" in said


@pytest.mark.parametrize("name", [b"set/train/a/\xff.png", b"set/train/\xff/0.png", b"\xff/train/a/0.png"])
def test_names_that_are_no_utf_8_are_refused_in_words(folder, tmp_path, name):
    place, inside = (os.fsdecode(part) for part in name.split(b"/", 1))
    place = folder.rename(tmp_path / place)
    (place / inside).parent.mkdir(exist_ok=True)
    shutil.copy(place / "train" / "b" / "0.png", place / inside)
    with pytest.raises(DatasetError, match="not valid UTF-8") as raised:
        load_dataset(str(place))
    assert r"\udcff" in str(raised.value) and str(raised.value).encode()


def test_twins_are_refused(tmp_path):
    for number, (what, files) in enumerate(
        (
            ("classes", ("train/{}/0.png", "train/{}/1.png")),
            ("classes", ("train/{}/0.png", "test/{}/0.png")),
            ("images", ("train/a/{}.png", "train/a/{}.png")),
            ("domains", ("{}/train/a/0.png", "{}/train/a/0.png", "{}/test/a/0.png", "{}/test/a/0.png")),
        )
    ):
        folder = tmp_path / str(number) if what == "domains" else make_splits(tmp_path / str(number))
        for file, name in zip(files, (COMPOSED, DECOMPOSED) * 2, strict=False):
            make_image(folder / file.format(name))
        with pytest.raises(DatasetError, match=rf"two {what} have the same name.*e\\u0301.*\\xe9"):
            load_dataset(str(folder))
