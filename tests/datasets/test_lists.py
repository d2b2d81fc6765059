"""Lists of images in a CSV file: the same dataset as in folders, and errors that name the line."""

import numpy as np
import pytest
from odd_folders import make_image, make_splits

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.lists import MAX_BYTES
from tosca_cache.errors import DatasetError, UsageError


@pytest.fixture
def folder(tmp_path):
    """2 classes of 2 images in train and in test."""
    return make_splits(tmp_path / "set")


def write(folder, *lines, name="list.csv", end="\n"):
    (folder / name).write_bytes(end.join(lines).encode())
    return str(folder / name)


def all_of(folder):
    return [f"{p.relative_to(folder).as_posix()},{p.parent.name},{p.parts[-3]}" for p in sorted(folder.rglob("*.png"))]


def test_a_list_is_the_dataset_that_the_folder_is(folder):
    listed, folders = load_dataset(write(folder, "path,label,split", *all_of(folder))), load_dataset(str(folder))
    assert listed.name == "list.csv" and listed.class_names == folders.class_names == ("a", "b")
    for split in ("train", "test"):
        assert listed.splits[split].paths == folders.splits[split].paths
        assert listed.splits[split].labels.tolist() == folders.splits[split].labels.tolist()
        assert listed.open(split, 3).tobytes() == folders.open(split, 3).tobytes()


@pytest.mark.parametrize(
    "how",
    [
        {"end": "\r\n"},
        {"header": "\ufeffpath,label,split"},
        {"header": "Path, LABEL ,split"},
        {"reverse": True},
        {"after": ["", ",,", "  ", ""]},
        {"quote": True},
        {"dots": True},
    ],
    ids=str,
)
def test_however_it_is_written(folder, how):
    lines = all_of(folder)[:: -1 if how.get("reverse") else 1]
    if how.get("quote"):
        lines = [", ".join(f'"{cell}"' for cell in line.split(",")) for line in lines]
    if how.get("dots"):
        lines = [f"./{line}".replace("/a/", "//a/./") for line in lines]
    lines = [how.get("header", "path,label,split"), *lines, *how.get("after", [])]
    listed = load_dataset(write(folder, *lines, end=how.get("end", "\n")))
    plain = load_dataset(write(folder, "path,label,split", *all_of(folder), name="plain.csv"))
    for split in ("train", "test"):
        assert listed.splits[split].paths == plain.splits[split].paths
        assert listed.splits[split].labels.tolist() == plain.splits[split].labels.tolist()


def test_labels_are_texts_of_any_kind(folder):
    files = [line.split(",")[0] for line in all_of(folder)]
    names = ["10", '"a, b"', "été", "=1+1"] * 2
    lines = [
        f"{file},{name},{split}" for file, name, split in zip(files, names, ["train"] * 4 + ["test"] * 4, strict=True)
    ]
    assert load_dataset(write(folder, "path,label,split", *lines)).class_names == ("10", "=1+1", "a, b", "été")


def test_domains(folder):
    lines = [f"{line},{'sketch' if '/0' in line else 'photo'}" for line in all_of(folder)]
    dataset = load_dataset(write(folder, "path,label,split,domain", *lines))
    assert dataset.domain_names == ("photo", "sketch")
    assert dataset.splits["train"].domains.tolist() == [1, 0, 1, 0]


def test_other_columns_are_left_out_with_a_word(folder):
    dataset = load_dataset(write(folder, "width,path,label,split,\x1b", *(f"9,{line},?" for line in all_of(folder))))
    assert dataset.left_out == {"columns of the list": ["width", r"\u001b"]}


def test_what_a_list_is(folder):
    """Also one below the data root; a folder may be called so."""
    write(folder, "path,label,split", *all_of(folder))
    assert load_dataset("list.csv", data_root=folder).name == "list.csv"
    assert load_dataset(str(folder.rename(folder.with_name("set.csv")))).class_names == ("a", "b")


class TestFraction:
    def test_is_what_it_is_for_folders(self, tmp_path):
        for number in range(10):
            make_image(tmp_path / "set" / "a" / f"{number}.png")
            make_image(tmp_path / "set" / "b" / f"{number}.png")
        files = sorted(f"{p.parent.name}/{p.name}" for p in (tmp_path / "set").rglob("*.png"))
        path = write(tmp_path / "set", "path,label", *(f"{file},{file[0]}" for file in files))
        listed = load_dataset(path, test_fraction=0.3)
        folders = load_dataset(str(tmp_path / "set"), test_fraction=0.3)
        for split in ("train", "test"):
            assert listed.splits[split].paths == folders.splits[split].paths

    def test_is_of_each_class_in_each_domain(self, folder):
        for number in range(6):
            make_image(folder / f"{number}.png")
        lines = [f"{number},a,{'x' if number < 4 else 'y'}".replace(",", ".png,", 1) for number in range(6)]
        dataset = load_dataset(write(folder, "path,label,domain", *lines), test_fraction=0.5)
        assert np.bincount(dataset.splits["test"].domains).tolist() == [2, 1]

    def test_is_needed_without_splits_and_refused_with_them(self, folder):
        with pytest.raises(UsageError, match="no test split of their own"):
            load_dataset(write(folder, "path,label", "train/a/0.png,a"))
        with pytest.raises(UsageError, match="leave --test-fraction out"):
            load_dataset(write(folder, "path,label,split", *all_of(folder)), test_fraction=0.2)

    def test_one_image_cannot_be_divided(self, folder):
        path = write(folder, "path,label", "train/a/0.png,a", "train/a/1.png,a", "train/b/0.png,b")
        with pytest.raises(DatasetError, match="class 'b' has one image") as raised:
            load_dataset(path, test_fraction=0.5)
        assert raised.value.where == f"{path}:4"


GOOD = "train/a/0.png,a,train"


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        (["label,split", "a,train"], 1, "lacks the column path"),
        (["path;label;split", "x;a;train"], 1, "lacks the column path and label; cells are separated by commas"),
        (["path,label,spilt", GOOD], 1, "no column 'spilt'; did you mean 'split'"),
        (["path,label,path", GOOD], 1, "the column 'path' twice"),
        (["", "path,label,splits", GOOD], 2, "did you mean 'split'"),
        (["path,label,split", GOOD, "train/a/1.png,a"], 3, "2 cells, but the first line has 3"),
        (["path,label,split", GOOD, "", "train/a/1.png,a,train,x"], 4, "4 cells"),
        (["path,label,split", GOOD, "train/a/1.png,,train"], 3, "its label is empty"),
        (["path,label,split", GOOD, ",a,train"], 3, "its path is empty"),
        (["path,label,split,domain", f"{GOOD},"], 2, "its domain is empty"),
        (["path,label,split", GOOD, "train/a/1.png,a,val"], 3, "its split is 'val', which must be train or test"),
        (["path,label,split", GOOD, "train/a/9.png,a,train"], 3, "'train/a/9.png' cannot be read: No such file"),
        (["path,label,split", "train/a,a,train"], 2, "'train/a' is no file"),
        (["path,label,split", f"{'x' * 300}.png,a,train"], 2, "cannot be read: File name too long"),
        (["path,label,split", "/etc/hostname,a,train"], 2, "below the folder of the list"),
        (["path,label,split", "train/../../x.png,a,train"], 2, "below the folder of the list"),
        (["path,label,split", ".,a,train"], 2, "below the folder of the list"),
        (["path,label,split", "x\0.png,a,train"], 2, "below the folder of the list"),
        (["path,label,split", "list.csv,a,train"], 2, "files of .csv are no images"),
        (["path,label,split", GOOD, GOOD.replace("train", "./train", 1)], 3, "which line 2 lists, too"),
        (["path,label,split", GOOD, '"train/a/1.png,a,train'], 3, "no valid CSV"),
        (["path,label,split", f"{'x' * 200_000},a,train"], 2, "no valid CSV: field larger"),
        (["path,label,split", '"train\nx",a,train', GOOD, "bad"], 2, r"'train\\nx' cannot be read"),
        (["path,label,split", "\x1b[31m.png,a,train"], 2, r"'\\x1b\[31m.png' cannot be read"),
    ],
)
def test_what_is_wrong_with_a_line(folder, lines, line, message):
    with pytest.raises(DatasetError, match=f"line {line} of the list cannot be used: .*{message}") as raised:
        load_dataset(write(folder, *lines))
    assert raised.value.where == f"{folder / 'list.csv'}:{line}" and raised.value.remedy
    assert "\n" not in raised.value.problem and "\x1b" not in raised.value.problem


def test_classes_of_a_domain_that_are_in_one_split_only(folder):
    lines = [f"{line},{'x' if '/0' in line else 'y'}" for line in all_of(folder) if "test/b/1" not in line]
    path = write(folder, "path,label,split,domain", *lines)
    with pytest.raises(DatasetError, match="1 class of domain 'y' only in train: 'b'") as raised:
        load_dataset(path)
    assert raised.value.where == f"{path}:{2 + lines.index('train/b/1.png,b,train,y')}"


def test_not_utf_8(folder):
    (folder / "list.csv").write_bytes(b"path,label,split\ntrain/a/0.png,a,train\ntrain/\xe9.png,a,train\n")
    with pytest.raises(DatasetError, match=r"line 3 .* not valid UTF-8"):
        load_dataset(str(folder / "list.csv"))
    (folder / "list.csv").write_bytes("path,label,split\n".encode("utf-16"))
    with pytest.raises(DatasetError, match=r"line 1 .* not valid UTF-8"):
        load_dataset(str(folder / "list.csv"))


@pytest.mark.parametrize("content", [[], ["path,label,split", "", " "]])
def test_nothing_in_it(folder, content):
    with pytest.raises(DatasetError, match=r"no images|lacks the column"):
        load_dataset(write(folder, *content))


def test_too_large_a_list_is_not_read(folder):
    with (folder / "list.csv").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DatasetError, match="more than"):
        load_dataset(str(folder / "list.csv"))


def test_paths_may_lead_through_links(folder, tmp_path):
    (folder / "train" / "a").rename(tmp_path / "elsewhere")
    lines = [line for line in all_of(folder) if "train" in line or "test" in line]
    (folder / "train" / "a").symlink_to(tmp_path / "elsewhere")
    lines += ["train/a/0.png,a,train", "train/a/1.png,a,train"]
    assert len(load_dataset(write(folder, "path,label,split", *lines)).splits["train"]) == 4
