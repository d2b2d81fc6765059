"""Arrow, Parquet and tar shards as datasets: images and features are those of folders; what is refused at the door."""

import io
import json
import os
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archive_help import image, tarred, tree
from commands import tosca
from PIL import Image

from tosca_cache.datasets import load_dataset
from tosca_cache.errors import DatasetError, ImageError, UsageError

CLASSES = ("bee", "ant")  # the order of the ClassLabel, which is not that of names
FILES = tree("photos", train=5, test=2, classes=sorted(CLASSES))


def samples(split):
    """(bytes, class) of every image of a split, shuffled."""
    found = [(data, path.split("/")[2]) for path, data in FILES.items() if f"/{split}/" in path]
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))]


IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
LABEL = {"names": list(CLASSES), "_type": "ClassLabel"}
FEATURES = {b"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": LABEL}}}).encode()}


def table(rows, *, labels=None, metadata=True):
    """As `datasets` has it in memory: images as {bytes, path}, labels as numbers of a ClassLabel."""
    images = pa.array([{"bytes": d, "path": "../../etc/passwd"} for d, _ in rows], IMAGE)
    labels = pa.array([CLASSES.index(c) for _, c in rows]) if labels is None else pa.array(labels)
    made = pa.table({"image": images, "label": labels, "id": pa.array(range(len(rows)))})
    return made.replace_schema_metadata(FEATURES) if metadata else made


def write_stream(made, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made, max_chunksize=3)


def saved_to_disk(root):
    """What `datasets.DatasetDict.save_to_disk` leaves: a folder a split, two files each, and JSON beside them."""
    root.mkdir()
    (root / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for split in ("train", "test"):
        rows = samples(split)
        half = len(rows) // 2
        for number, part in enumerate((rows[:half], rows[half:])):
            write_stream(table(part), root / split / f"data-{number:05d}-of-00002.arrow")
        (root / split / "state.json").write_text("{}")


def parquet_shards(root):
    (root / "data").mkdir(parents=True)
    for split in ("train", "test"):
        pq.write_table(table(samples(split)), root / "data" / f"{split}-00000-of-00001.parquet", row_group_size=3)


def tar_shards(root):
    root.mkdir()
    for split in ("train", "test"):
        members = []
        for number, (data, name) in enumerate(samples(split)):
            members += [(f"a/{number:04d}.cls", name.encode()), (f"a/{number:04d}.png", data)]
        (root / f"{split}-000.tar").write_bytes(tarred(members, "w"))


KINDS = {"arrow": saved_to_disk, "parquet": parquet_shards, "tar": tar_shards}


def folder_of(root):
    """The images as a folder."""
    for path, data in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root / "photos"


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_those_that_were_packed(kind, tmp_path):
    packed = tmp_path / "photos.d"
    KINDS[kind](packed)
    dataset = load_dataset(str(packed))
    classes = dataset.class_names
    assert dataset.name == "photos.d"
    assert classes == (("ant", "bee") if kind == "tar" else CLASSES), "by name where nothing says their order"
    for split in ("train", "test"):
        labels = list(dataset.splits[split].labels)
        found = [(classes[label], dataset.open(split, row).tobytes()) for row, label in enumerate(labels)]
        pixels = [(name, Image.open(io.BytesIO(data)).convert("RGB").tobytes()) for data, name in samples(split)]
        assert sorted(found) == sorted(pixels) and labels == sorted(labels)
    again = pickle.loads(pickle.dumps(dataset))  # as it goes to other processes
    assert again.open("train", 3).tobytes() == dataset.open("train", 3).tobytes()
    assert again.listing_digest() == dataset.listing_digest()


def test_files_that_were_replaced_are_read_as_they_are_now_and_give_a_store_nothing(tmp_path):
    rows = samples("train")
    for kind, write in (("arrow", write_stream), ("parquet", pq.write_table)):
        file, seen = tmp_path / f"all.{kind}", []
        for some in (rows, rows[1:]):
            file.unlink(missing_ok=True)
            write(table(some), file)
            dataset = load_dataset(str(file), test_fraction=0.4)
            places = [(split, row) for split in ("train", "test") for row in range(len(dataset.splits[split]))]
            seen.append({dataset.open(*place).tobytes() for place in places})
        assert seen[0] > seen[1] != set()
    tar_shards(tmp_path / "d")
    how = ("--dataset", tmp_path / "d", "--root", tmp_path / "s", "--backbone", "vit_nano")
    tosca("extract", *how, "--views", "0", code=0)
    (store,) = (path for path in (tmp_path / "s").iterdir() if path.is_dir())
    tosca("cache", "verify", store, "--recompute", "2", code=0)
    assert "taken from" in tosca("extract", *how, "--views", "1", code=0).output
    for shard in (tmp_path / "d").glob("*.tar"):
        os.utime(shard, (4e9, 4e9))
    assert "taken from" not in tosca("extract", *how, "--views", "2", code=0).output


def test_which_rows_are_for_testing(tmp_path):
    pq.write_table(table(samples("train")), tmp_path / "all.parquet")
    dataset = load_dataset(str(tmp_path / "all.parquet"), test_fraction=0.4)
    assert [len(dataset.splits[s]) for s in ("train", "test")] == [6, 4]
    saved_to_disk(tmp_path / "d")
    with pytest.raises(UsageError, match="leave --test-fraction out"):
        load_dataset(str(tmp_path / "d"), test_fraction=0.4)
    (tmp_path / "d" / "test").rename(tmp_path / "d" / "validation")
    assert len(load_dataset(str(tmp_path / "d")).splits["test"]) == 4
    folder = folder_of(tmp_path)  # a folder of images, though a table lies beside them
    pq.write_table(table(samples("train")), folder / "metadata.parquet")
    assert load_dataset(str(folder)).class_names == ("ant", "bee")


def test_labels_are_texts_in_a_column_of_that_name(tmp_path):
    rows = samples("train")
    made = table(rows, metadata=False).set_column(1, "label", pa.array([f"=cmd|{c}\x1b" for _, c in rows]))
    pq.write_table(made, tmp_path / "a.parquet")
    dataset = load_dataset(str(tmp_path / "a.parquet"), test_fraction=0.2)
    assert dataset.class_names == ("=cmd|ant\x1b", "=cmd|bee\x1b")
    pq.write_table(made.rename_columns(["image", "what", "id"]), tmp_path / "b.parquet")
    with pytest.raises(DatasetError, match=r"columns image, what, id.*'label'"):
        load_dataset(str(tmp_path / "b.parquet"), test_fraction=0.2)


def test_rows_whose_image_is_refused(tmp_path):
    """What cannot be decoded is told with shard and row, no path is followed, and pixels are counted before."""
    rows = samples("train")
    pq.write_table(table([*rows, (b"no image", "ant")]), tmp_path / "a.parquet", row_group_size=4)
    dataset, failures = load_dataset(str(tmp_path / "a.parquet"), test_fraction=0.2), []
    for split, listed in dataset.splits.items():
        for row in range(len(listed)):
            try:
                dataset.open(split, row)
            except ImageError as error:
                failures.append(error.where)
    assert failures == [f"{tmp_path / 'a.parquet'}, row {len(rows)}"]
    dataset = load_dataset(str(tmp_path / "a.parquet"), test_fraction=0.2, decoding={"max_pixels": 255})
    with pytest.raises(ImageError, match="more than 255"):
        dataset.open("train", 0)
    (tmp_path / "secret.png").write_bytes(image(0))
    images = pa.array([{"bytes": None, "path": str(tmp_path / "secret.png")}] * 4, IMAGE)
    pq.write_table(pa.table({"image": images, "label": [0, 0, 1, 1]}), tmp_path / "b.parquet")
    with pytest.raises(ImageError, match="not followed"):
        load_dataset(str(tmp_path / "b.parquet"), test_fraction=0.5).open("train", 0)


GOOD = [("0.png", image(0)), ("0.cls", b"0")]
BAD_TARS = {
    "compressed": (lambda: tarred(GOOD), "damaged"),
    "link": (lambda: tarred([*GOOD, (_link("1.png", "/etc/passwd"), None)], "w"), "neither a file nor a folder"),
    "no label": (lambda: tarred(GOOD[:1], "w"), "no label"),
    "no image": (lambda: tarred(GOOD[1:], "w"), "no images"),
    "two images": (lambda: tarred([*GOOD, ("0.jpg", b"")], "w"), "2 images"),
    "label is no text": (lambda: tarred([GOOD[0], ("0.cls", b"\xff\xfe")], "w"), "cannot be used"),
    "label is endless": (lambda: tarred([GOOD[0], ("0.cls", bytes(2 << 20))], "w"), "without end"),
}


def _link(name, to):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, to
    return info


@pytest.mark.parametrize("name", BAD_TARS)
def test_hostile_and_damaged_tars(tmp_path, name):
    make, reason = BAD_TARS[name]
    (tmp_path / "a.tar").write_bytes(make())
    with pytest.raises(DatasetError, match=reason) as raised:
        load_dataset(str(tmp_path / "a.tar"), test_fraction=0.2)
    assert "a.tar" in raised.value.where


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_damaged_tables_and_rows_without_a_label(tmp_path, suffix):
    file, made = tmp_path / f"train.{suffix}", table(samples("train"))
    write = write_stream if suffix == "arrow" else pq.write_table
    write(made, file)
    for data in (file.read_bytes()[: file.stat().st_size // 2], os.urandom(500), b""):
        file.write_bytes(data)
        with pytest.raises(DatasetError, match="table cannot be read") as raised:
            load_dataset(str(tmp_path), test_fraction=0.2)
        assert f"train.{suffix}" in raised.value.where
    for labels in ([0, -1] * 5, [0, 7] * 5, [0, None] * 5):
        file = tmp_path / f"labels{labels[1]}.{suffix}"
        write(table(samples("train"), labels=labels), file)
        with pytest.raises(DatasetError, match="no label") as raised:
            load_dataset(str(file), test_fraction=0.2)
        assert raised.value.where.endswith("row 1")
