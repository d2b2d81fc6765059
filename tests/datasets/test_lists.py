"""Lists of images in a CSV file: the same dataset as in folders, and errors that name the line."""

import numpy as np
import pytest
from photos import make_image, make_splits

from tosca_cache.datasets import load_dataset
from tosca_cache.datasets.lists import MAX_BYTES
from tosca_cache.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    """2 classes of 2 images in train and in test."""
    return make_splits(tmp_path / "set")


def write(folder, *lines, end="\n"):
    (folder / "list.csv").write_bytes(end.join(lines).encode())
    return str(folder / "list.csv")


def all_of(folder):
    return [f"{p.relative_to(folder).as_posix()},{p.parent.name},{p.parts[-3]}" for p in sorted(folder.rglob("*.png"))]


HEAD = "path,label,split"
WAYS = {  # (lines of the rows) -> all lines
    "byte order mark": lambda rows: [f"\ufeff{HEAD}", *rows],
    "other letters": lambda rows: ["Path, LABEL ,split", *rows],
    "another order": lambda rows: [HEAD, *reversed(rows)],
    "empty lines": lambda rows: [HEAD, *rows, "", ",,", "  ", ""],
    "quotes": lambda rows: [HEAD, *(", ".join(f'"{cell}"' for cell in row.split(",")) for row in rows)],
    "dots": lambda rows: [HEAD, *(f"./{row}".replace("/a/", "//a/./") for row in rows)],
}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("way", WAYS)
def test_however_it_is_written_a_list_is_the_dataset_that_the_folder_is(folder, way, end):
    listed, folders = load_dataset(write(folder, *WAYS[way](all_of(folder)), end=end)), load_dataset(str(folder))
    assert listed.name == "list.csv" and listed.class_names == folders.class_names == ("a", "b")
    for split in ("train", "test"):
        assert listed.splits[split].paths == folders.splits[split].paths
        assert listed.splits[split].labels.tolist() == folders.splits[split].labels.tolist()
        assert listed.open(split, 3).tobytes() == folders.open(split, 3).tobytes()


def test_labels_are_texts_domains_are_read_and_paths_may_lead_through_links(folder, tmp_path):
    rows = [line.split(",")[::2] for line in all_of(folder)]
    names = ["10", '"a, b"', "été", "=1+1"] * 2
    lines = [f"{path},{name},{split}" for (path, split), name in zip(rows, names, strict=True)]
    assert load_dataset(write(folder, HEAD, *lines)).class_names == ("10", "=1+1", "a, b", "été")
    lines = [f"{line},{'sketch' if '/0' in line else 'photo'}" for line in all_of(folder)]
    write(folder, f"{HEAD},domain", *lines)
    (folder / "train" / "a").rename(tmp_path / "elsewhere")
    (folder / "train" / "a").symlink_to(tmp_path / "elsewhere")
    dataset = load_dataset("list.csv", data_root=folder)
    assert dataset.domain_names == ("photo", "sketch")
    assert dataset.splits["train"].domains.tolist() == [1, 0, 1, 0]


def test_a_folder_may_be_called_like_a_list(folder):
    assert load_dataset(str(folder.rename(folder.with_name("set.csv")))).class_names == ("a", "b")


def test_a_fraction_is_of_each_class_in_each_domain(folder):
    for number in range(6):
        make_image(folder / f"{number}.png", number)
    lines = [f"{number}.png,a,{'x' if number < 4 else 'y'}" for number in range(6)]
    dataset = load_dataset(write(folder, "path,label,domain", *lines), test_fraction=0.5)
    assert np.bincount(dataset.splits["test"].domains).tolist() == [2, 1]
    with pytest.raises(DatasetError, match="class 'b' has one image") as raised:
        load_dataset(write(folder, "path,label", "0.png,a", "1.png,a", "2.png,b"), test_fraction=0.5)
    assert raised.value.where == f"{folder / 'list.csv'}:4"


GOOD = "train/a/0.png,a,train"


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        (["label,split", "a,train"], 1, "must name the columns path, label"),
        (["path;label;split", "x;a;train"], 1, "separated by commas"),
        (["", "path,label,spilt", GOOD], 2, "not path, label, spilt"),
        (["path,label,path", GOOD], 1, "not path, label, path"),
        ([HEAD, GOOD, "train/a/1.png,a"], 3, "2 cells, but the first line has 3"),
        ([HEAD, GOOD, "train/a/1.png,,train"], 3, "its label is empty"),
        ([HEAD, GOOD, "train/a/1.png,a,val"], 3, "its split is 'val', which must be train or test"),
        ([HEAD, GOOD, "train/a/9.png,a,train"], 3, "'train/a/9.png' cannot be read: No such file"),
        ([HEAD, "train/a,a,train"], 2, "'train/a' cannot be read here: it is no file"),
        ([HEAD, "/etc/hostname,a,train"], 2, "below the folder of the list"),
        ([HEAD, "train/../../x.png,a,train"], 2, "below the folder of the list"),
        ([HEAD, "x\0.png,a,train"], 2, "below the folder of the list"),
        ([HEAD, "list.csv,a,train"], 2, "files of .csv are no images"),
        ([HEAD, GOOD, GOOD.replace("train", "./train", 1)], 3, "which line 2 lists, too"),
        ([HEAD, GOOD, '"train/a/1.png,a,train'], 3, "no valid CSV"),
        ([HEAD, '"train\nx",a,train', GOOD], 3, r"'train\\nx' cannot be read"),
        ([HEAD, "\x1b[31m.png,a,train"], 2, r"'\\x1b\[31m.png' cannot be read"),
    ],
)
def test_what_is_wrong_with_a_line(folder, lines, line, message):
    with pytest.raises(DatasetError, match=f"line {line} of the list cannot be used: .*{message}") as raised:
        load_dataset(write(folder, *lines))
    assert raised.value.where == f"{folder / 'list.csv'}:{line}" and raised.value.remedy
    assert "\n" not in raised.value.problem and "\x1b" not in raised.value.problem


def test_what_is_wrong_with_a_list(folder):
    lines = [f"{line},{'x' if '/0' in line else 'y'}" for line in all_of(folder) if "test/b/1" not in line]
    path = write(folder, f"{HEAD},domain", *lines)
    with pytest.raises(DatasetError, match="classes of domain 'y' only in train: 'b'") as raised:
        load_dataset(path)
    assert raised.value.where == f"{path}:{2 + lines.index('train/b/1.png,b,train,y')}"
    for content, message in (
        (f"{HEAD}\n{GOOD}\ntrain/\xe9.png,a,train\n".encode("latin-1"), "line 3 .* not valid UTF-8"),
        (f"{HEAD}\n".encode("utf-16"), "line 1 .* not valid UTF-8"),
        (b"", "no images"),
        (f"{HEAD}\n\n \n".encode(), "no images"),
        (None, "more than"),
    ):
        with (folder / "list.csv").open("wb") as file:
            file.truncate(MAX_BYTES + 1) if content is None else file.write(content)
        with pytest.raises(DatasetError, match=message):
            load_dataset(path)
