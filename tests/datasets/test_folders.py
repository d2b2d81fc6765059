"""Any folder of images: the three layouts, the order of rows, and everything that can be wrong with one."""

import sys

import numpy as np
import pytest
from odd_folders import make_image

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
def test_train_and_test_folders(tmp_path):
    folder = make_images(tmp_path / "birds", splits_of("b/2.png", "b/10.png", "a/x.JPG", "Z/1.jpeg", "été/é 1.png"))
    dataset = load_dataset(str(folder))
    assert dataset.name == "birds"
    assert dataset.class_names == ("Z", "a", "b", "été")  # lexicographic, as ImageFolder has it
    for split in ("train", "test"):
        rows = dataset.splits[split]
        assert rows.paths == tuple(
            f"{split}/{f}" for f in ("Z/1.jpeg", "a/x.JPG", "b/10.png", "b/2.png", "été/é 1.png")
        )
        assert rows.labels.tolist() == [0, 1, 2, 2, 3]
        assert rows.domains.tolist() == [0] * 5
        assert dataset.open(split, 4).size == (12, 10)


def test_order_and_labels_are_those_of_torchvision(tmp_path):
    from tosca_cache.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    from torchvision.datasets import ImageFolder

    files = splits_of("b/2.png", "b/10.png", "b/inner/1.png", "a/x.JPG", "Z/1.jpeg", "Z/0.bmp", "n01 2/3.png")
    folder = make_images(tmp_path / "birds", files)
    dataset = load_dataset(str(folder))
    peer = ImageFolder(str(folder / "train"))
    assert list(dataset.class_names) == peer.classes
    rows = dataset.splits["train"]
    ours = {str(folder / path): label for path, label in zip(rows.paths, rows.labels, strict=True)}
    assert ours == dict(peer.samples)


def test_domains(tmp_path):
    files = [f"{domain}/{split}" for domain in ("sketch", "photo") for split in splits_of("cat/1.png", "dog/1.png")]
    dataset = load_dataset(str(make_images(tmp_path / "pets", files)))
    assert dataset.domain_names == ("photo", "sketch")
    rows = dataset.splits["train"]
    assert rows.paths == (
        "photo/train/cat/1.png",
        "sketch/train/cat/1.png",
        "photo/train/dog/1.png",
        "sketch/train/dog/1.png",
    )
    assert rows.labels.tolist() == [0, 0, 1, 1]
    assert rows.domains.tolist() == [0, 1, 0, 1]


def test_a_name_below_the_data_root(tmp_path, monkeypatch):
    make_images(tmp_path / "birds", splits_of("a/1.png"))
    assert load_dataset("birds", data_root=tmp_path).name == "birds"
    monkeypatch.setenv("TOSCA_DATA", str(tmp_path))
    assert load_dataset("birds").name == "birds"


class TestFraction:
    FILES = tuple(f"{c}/{i}.png" for c, n in (("a", 10), ("b", 7), ("c", 2)) for i in range(n))

    @pytest.fixture
    def folder(self, tmp_path):
        return make_images(tmp_path / "birds", self.FILES)

    def test_is_stratified_complete_and_repeatable(self, folder):
        dataset = load_dataset(str(folder), test_fraction=0.3)
        train, test = (dataset.splits[split] for split in ("train", "test"))
        assert np.bincount(test.labels).tolist() == [3, 2, 1]
        assert sorted(train.paths + test.paths) == sorted(self.FILES)
        assert load_dataset(str(folder), test_fraction=0.3).listing_digest() == dataset.listing_digest()
        assert load_dataset(str(folder), test_fraction=0.3, seed=1).listing_digest() != dataset.listing_digest()

    def test_no_class_loses_all_its_images(self, folder):
        for fraction in (0.001, 0.999):
            dataset = load_dataset(str(folder), test_fraction=fraction)
            for split in ("train", "test"):
                assert np.bincount(dataset.splits[split].labels).min() >= 1

    def test_other_classes_play_no_part(self, folder):
        before = set(load_dataset(str(folder), test_fraction=0.3).splits["test"].paths)
        make_images(folder, ["0/1.png", "0/2.png"])
        after = set(load_dataset(str(folder), test_fraction=0.3).splits["test"].paths)
        assert before < after and all(path.startswith("0/") for path in after - before)

    @pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
    def test_must_be_a_fraction(self, folder, fraction):
        with pytest.raises(UsageError, match="between 0 and 1"):
            load_dataset(str(folder), test_fraction=fraction)

    def test_is_for_images_without_a_test_split(self, folder, tmp_path):
        with pytest.raises(UsageError, match="--test-fraction"):
            load_dataset(str(folder))
        with pytest.raises(UsageError, match="leave --test-fraction out"):
            load_dataset(str(make_images(tmp_path / "b", splits_of("a/1.png"))), test_fraction=0.2)
        with pytest.raises(UsageError, match="test split of its own"):
            load_dataset("digits", test_fraction=0.2)

    def test_one_image_in_a_class(self, tmp_path):
        folder = make_images(tmp_path / "b", ["many/1.png", "many/2.png", "lonely/1.png"])
        with pytest.raises(DatasetError, match="class 'lonely' has one image") as raised:
            load_dataset(str(folder), test_fraction=0.2)
        assert raised.value.where == str(folder / "lonely")


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
    ],
)
def test_what_is_wrong_with_a_folder(tmp_path, files, folders, message):
    root = make_images(tmp_path / "set", files)
    for folder in folders:
        (root / folder).mkdir(parents=True)
    with pytest.raises(DatasetError, match=message) as raised:
        load_dataset(str(root))
    assert str(root) in raised.value.where
    assert raised.value.remedy


def test_what_is_no_folder(tmp_path):
    with pytest.raises(DatasetError, match="does not exist") as raised:
        load_dataset(str(tmp_path / "nowhere"))
    assert raised.value.where == str(tmp_path / "nowhere")
    (tmp_path / "set").write_text("no folder")
    with pytest.raises(DatasetError, match="is not a folder"):
        load_dataset(str(tmp_path / "set"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"this is text", "not an image"), ("cut", "truncated"), (None, "no such file")],
)
def test_an_image_that_cannot_be_read_is_named(tmp_path, content, reason):
    folder = make_images(tmp_path / "set", splits_of("a/1.jpg"), size=(64, 64))
    bad = folder / "train" / "a" / "1.jpg"
    if content is None:
        dataset = load_dataset(str(folder))
        bad.unlink()
    else:
        bad.write_bytes(bad.read_bytes()[:-200] if content == "cut" else content)
        dataset = load_dataset(str(folder))
    with pytest.raises(ImageError, match=reason) as raised:
        dataset.open("train", 0)
    assert raised.value.where == str(bad)
