"""Any folder of images: the three layouts, links, what systems leave behind, every name, and what can be wrong with one."""

import os
import shutil
import sys
import unicodedata

import numpy as np
import pytest
from photos import make_image, make_splits

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.decoding import PUBLISHED
from tosca_cache.errors import DatasetError, ImageError, UsageError

FOUR = ("a/0.png", "a/1.png", "b/0.png", "b/1.png")


@pytest.fixture
def folder(tmp_path):
    """2 classes of 2 images in train and in test."""
    return make_splits(tmp_path / "set")


def paths(dataset, split="train"):
    return tuple(path.removeprefix(f"{split}/") for path in dataset.splits[split].paths)


def make_images(folder, files):
    """Writes one small picture, different each time, for every path in `files`."""
    for number, file in enumerate(files):
        make_image(folder / file, number)
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
        assert [(str(folder / p), label) for p, label in zip(rows.paths, rows.labels, strict=True)] == peer.samples
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
    assert np.bincount(test.labels).tolist() == [3, 2, 1] and sorted(train.paths + test.paths) == sorted(files)
    assert load_dataset(folder, test_fraction=0.3).listing_digest() == dataset.listing_digest()
    assert load_dataset(folder, test_fraction=0.3, seed=1).listing_digest() != dataset.listing_digest()
    for fraction in (0.001, 0.999):
        for rows in load_dataset(folder, test_fraction=fraction).splits.values():
            assert np.bincount(rows.labels).min() >= 1, "no class loses all its images"
    make_images(tmp_path / "birds", ["0/1.png", "0/2.png"])
    after = set(load_dataset(folder, test_fraction=0.3).splits["test"].paths)
    assert set(test.paths) < after and all(path.startswith("0/") for path in after - set(test.paths))
    make_images(tmp_path / "birds", ["lonely/1.png"])
    with pytest.raises(DatasetError, match="class 'lonely' has one image") as raised:
        load_dataset(folder, test_fraction=0.2)
    assert raised.value.where == f"{folder}/lonely"
    for given, fraction, said in (
        *((folder, fraction, "between 0 and 1") for fraction in (0.0, 1.0, float("nan"))),
        *((folder, None, "--test-fraction"), ("digits", 0.2, "of its own")),
    ):
        with pytest.raises(UsageError, match=said):
            load_dataset(given, test_fraction=fraction)


@pytest.mark.parametrize(
    ("files", "folders", "message"),
    [
        (splits_of("a/1.png"), ["train/empty", "test/empty"], "classes without images: 'empty'"),
        ([*splits_of("a/1.png"), "test/b/1.png"], [], "classes only in test: 'b'"),
        ([*splits_of("a/1.png"), "train/b/1.png", "train/c/1.png"], [], "classes only in train: 'b', 'c'"),
        (["photo/train/a/1.png"], [], "a folder of classes is missing"),
        ([], ["train/a", "test/a"], "no images found"),
        ([], ["a"], "no images found"),
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


def test_what_cannot_be_read_is_named_and_not_waited_for(folder, tmp_path, monkeypatch):
    bad, dataset = folder / "train" / "a" / "0.png", load_dataset(str(folder))
    whole = bad.read_bytes()
    bad.unlink()
    for write, reason in (
        (lambda: None, "no such file"),
        (lambda: os.mkfifo(bad), "no regular file"),
        (lambda: bad.unlink() or bad.write_bytes(b""), "empty"),
        (lambda: bad.write_bytes(b"this is text"), "not an image"),
        (lambda: bad.write_bytes(whole[:-200]), "truncated"),
    ):
        write()
        with pytest.raises(ImageError, match=reason) as raised:
            dataset.open("train", 0)
        assert raised.value.where == str(bad)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DatasetError, match="is not a folder"):
        load_dataset(str(tmp_path / "file"))

    def refuse(path, onerror):
        onerror(PermissionError(13, "Permission denied", str(path)))

    monkeypatch.setattr("tosca_cache.datasets.folders.os.walk", refuse)
    with pytest.raises(DatasetError, match="Permission denied"):
        load_dataset(str(folder))


def test_links_below_a_split_to_folders_are_left_out_with_a_word_and_all_others_followed(folder, tmp_path):
    make_image(tmp_path / "elsewhere" / "far.png", 7)
    links = (("train/a/x", ".."), ("train/a/x", "."), ("train/a/x", "../../test/a"), ("train/c", "../../elsewhere"))
    for link, target in links:
        (folder / link).symlink_to(target)
        dataset = load_dataset(str(folder))
        assert paths(dataset) == paths(dataset, "test") == FOUR, target
        assert dataset.left_out == {"links to folders": [link]}
        (folder / link).unlink()
    (folder / "train").rename(tmp_path / "really")
    (folder / "train").symlink_to(tmp_path / "really")
    (tmp_path / "linked").symlink_to(folder)
    dataset = load_dataset(str(tmp_path / "linked"))
    assert paths(dataset) == FOUR and not dataset.left_out
    for name, target in (("2", folder / "test" / "b" / "1.png"), ("3", "nowhere.png"), ("4", "4.png")):
        (folder / "train" / "a" / f"{name}.png").symlink_to(target)
    dataset = load_dataset(str(folder))
    assert {"a/2.png", "a/3.png", "a/4.png"} < set(paths(dataset))
    assert dataset.open("train", 2).tobytes() == dataset.open("test", 3).tobytes()
    for row in (3, 4):
        with pytest.raises(DatasetError, match="no such file"):
            dataset.open("train", row)
    (tmp_path / "really" / "a").rename(tmp_path / "a")
    (tmp_path / "really" / "a").symlink_to(tmp_path / "a")
    with pytest.raises(DatasetError, match=r"only in test: 'a' \(left out: links to folders: 1 \(train/a\)\)"):
        load_dataset(str(folder))
    shutil.rmtree(folder / "test")
    (folder / "test").symlink_to("train")
    with pytest.raises(DatasetError, match="test is the same folder as another"):
        load_dataset(str(folder))


def test_what_is_no_class_and_no_image_is_ignored_or_counted(folder):
    system = "__MACOSX .ipynb_checkpoints @eaDir lost+found $RECYCLE.BIN .Trash-1000 .git #recycle".split()  # noqa: SIM905
    for place in (".", "train", "train/a"):
        for name in (*system, "System Volume Information"):
            make_image(folder / place / name / "1.png")
        for name in (".DS_Store", "._0.png", "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini"):
            (folder / place / name).write_bytes(b"no image")
    dataset = load_dataset(str(folder))
    assert dataset.class_names == ("a", "b") and paths(dataset) == FOUR and not dataset.left_out
    for name in ("1.heic", "2.HEIC", "notes.txt", "README"):
        (folder / "train" / "a" / name).write_bytes(b"no image")
    make_images(folder, ["train/loose.png", "val/a/0.png"])
    for split in ("train", "test"):
        shutil.copy(folder / split / "a" / "0.png", folder / split / "a" / "2.gif")
    others = {
        ".heic files": ["train/a/1.heic", "train/a/2.HEIC"],
        "files without a suffix": ["train/a/README"],
        ".txt files": ["train/a/notes.txt"],
        "images beside the class folders": ["train/loose.png"],
        "folders beside train and test": ["val"],
    }
    dataset = load_dataset(str(folder))
    assert paths(dataset) == (*FOUR[:2], "a/2.gif", *FOUR[2:]) and dataset.left_out == others
    published = load_dataset(str(folder), decoding=vars(PUBLISHED))
    assert paths(published) == FOUR
    assert published.left_out == others | {".gif files": ["train/a/2.gif", "test/a/2.gif"]}
    for split in ("train", "test"):
        shutil.rmtree(folder / split / "b")
        (folder / split / "b").mkdir()
        (folder / split / "b" / "1.heic").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"classes without images: 'b' \(left out: .*\.heic files: 3 "):
        load_dataset(str(folder))
    shutil.rmtree(folder / "train" / "a")
    with pytest.raises(DatasetError, match=r"no images found.*\.heic files: 1"):
        load_dataset(str(folder / "train"))


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("name", ["line\nbreak", "-rf", "[red]", " space ", "\x1b[31m", DECOMPOSED, "é" * 127])
def test_names_are_text_and_escaped_in_messages(tmp_path, name):
    folder, file = make_splits(tmp_path / "set", ("a", name)), f"{name[:100]}.png"
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
        assert "\x1b" not in said and "line\nbreak" not in said and ("line" not in name or r"line\nbreak" in said)


@pytest.mark.parametrize("name", [b"train/a/\xff.png", b"train/\xff/0.png", b"\xff/train/a/0.png"])
def test_names_that_are_no_utf_8_are_refused(tmp_path, name):
    folder = make_splits(tmp_path / os.fsdecode(name.split(b"/")[0]))
    make_image(folder / os.fsdecode(name))
    with pytest.raises(DatasetError, match="not valid UTF-8") as raised:
        load_dataset(str(folder))
    assert r"\udcff" in str(raised.value) and str(raised.value).encode()


@pytest.mark.parametrize(
    ("what", "files"),
    [
        ("classes", ["train/{}/0.png"]),
        ("images", ["train/a/{}.png"]),
        ("domains", ["{}/train/a/0.png", "{}/test/a/0.png"]),
    ],
)
def test_twins_are_refused(tmp_path, what, files):
    folder = tmp_path / "set" if what == "domains" else make_splits(tmp_path / "set")
    make_images(folder, (file.format(name) for file in files for name in (COMPOSED, DECOMPOSED)))
    with pytest.raises(DatasetError, match=rf"two {what} have the same name.*e\\u0301.*\\xe9"):
        load_dataset(str(folder))
