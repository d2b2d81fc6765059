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
from archive_help import member, tarred, tree
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


def table(rows, labels=None):
    """As `datasets` has it in memory: images as {bytes, path}, labels as numbers of a ClassLabel."""
    images = pa.array([{"bytes": data, "path": "../../etc/passwd"} for data, _ in rows], IMAGE)
    labels = pa.array([CLASSES.index(name) for _, name in rows] if labels is None else labels)
    made = pa.table({"image": images, "label": labels, "id": pa.array(range(len(rows)))})
    return made.replace_schema_metadata(FEATURES)


def write_stream(made, file):
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made, max_chunksize=3)


WRITERS = {"arrow": write_stream, "parquet": pq.write_table}


def saved_to_disk(root, split, rows):
    """What `datasets.DatasetDict.save_to_disk` leaves: a folder a split, two files each, and JSON beside them."""
    (root / split).mkdir()
    for number, part in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
        write_stream(table(part), root / split / f"data-{number:05d}-of-00002.arrow")
    (root / split / "state.json").write_text("{}")


def parquet_shards(root, split, rows):
    (root / "data").mkdir(exist_ok=True)
    pq.write_table(table(rows), root / "data" / f"{split}-00000-of-00001.parquet", row_group_size=3)


def tar_shards(root, split, rows):
    members = []
    for number, (data, name) in enumerate(rows):
        members += [(f"a/{number:04d}.cls", name.encode()), (f"a/{number:04d}.png", data)]
    (root / f"{split}-000.tar").write_bytes(tarred(members, "w"))


def packed(root, write):
    """The images as one of the three above."""
    root.mkdir()
    for split in ("train", "test"):
        write(root, split, samples(split))
    return root


@pytest.mark.parametrize("write", [saved_to_disk, parquet_shards, tar_shards])
def test_images_are_those_that_were_packed(write, tmp_path):
    dataset = load_dataset(str(packed(tmp_path / "photos.d", write)))
    classes = dataset.class_names
    assert dataset.name == "photos.d"
    assert classes == (("ant", "bee") if write is tar_shards else CLASSES), "by name where nothing says their order"
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
    for kind, write in WRITERS.items():
        file, seen = tmp_path / f"all.{kind}", []
        for some in (rows, rows[1:]):
            file.unlink(missing_ok=True)
            write(table(some), file)
            dataset = load_dataset(str(file), test_fraction=0.4)
            places = [(split, row) for split in ("train", "test") for row in range(len(dataset.splits[split]))]
            seen.append({dataset.open(*place).tobytes() for place in places})
        assert seen[0] > seen[1] != set()
    shards = packed(tmp_path / "d", tar_shards)
    how = ("--dataset", shards, "--root", tmp_path / "s", "--backbone", "vit_nano")
    tosca("extract", *how, "--views", "0", code=0)
    (store,) = (path for path in (tmp_path / "s").iterdir() if path.is_dir())
    tosca("cache", "verify", store, "--recompute", "2", code=0)
    assert "taken from" in tosca("extract", *how, "--views", "1", code=0).output
    for shard in shards.glob("*.tar"):
        os.utime(shard, (4e9, 4e9))
    assert "taken from" not in tosca("extract", *how, "--views", "2", code=0).output


def test_which_rows_are_for_testing(tmp_path):
    pq.write_table(table(samples("train")), tmp_path / "all.parquet")
    dataset = load_dataset(str(tmp_path / "all.parquet"), test_fraction=0.4)
    assert [len(dataset.splits[s]) for s in ("train", "test")] == [6, 4]
    saved = packed(tmp_path / "d", saved_to_disk)
    with pytest.raises(UsageError, match="leave --test-fraction out"):
        load_dataset(str(saved), test_fraction=0.4)
    (saved / "test").rename(saved / "validation")
    assert len(load_dataset(str(saved)).splits["test"]) == 4
    for path, data in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    pq.write_table(table(samples("train")), tmp_path / "photos" / "metadata.parquet")
    assert load_dataset(str(tmp_path / "photos")).class_names == ("ant", "bee"), "a folder, with a table beside it"


def test_labels_are_texts_in_the_column_that_is_asked_for(tmp_path):
    file, names = str(tmp_path / "a.parquet"), ("=cmd|ant\x1b", "=cmd|bee\x1b")
    made = table(samples("train"), labels=names * 5).replace_schema_metadata(None)
    pq.write_table(made, file)
    assert load_dataset(file, test_fraction=0.2).class_names == names
    pq.write_table(made.rename_columns(["image", "what", "id"]), file)
    with pytest.raises(DatasetError, match=r"columns image, what, id.*'label'"):
        load_dataset(file, test_fraction=0.2)
    assert load_dataset(file, label="what", test_fraction=0.2).class_names == names
    with pytest.raises(UsageError, match="no column of a table"):
        load_dataset("digits", label="what")


def test_rows_whose_image_is_refused(tmp_path):
    """What cannot be decoded is told with shard and row, no path is followed, and pixels are counted before."""
    file, rows, failures = tmp_path / "a.parquet", [*samples("train"), (b"no image", "ant")], []
    pq.write_table(table(rows), file, row_group_size=4)
    dataset = load_dataset(str(file), test_fraction=0.2)
    for split, listed in dataset.splits.items():
        for row in range(len(listed)):
            try:
                dataset.open(split, row)
            except ImageError as error:
                failures.append(error.where)
    assert failures == [f"{file}, row {len(rows) - 1}"]
    with pytest.raises(ImageError, match="more than 255"):
        load_dataset(str(file), test_fraction=0.2, decoding={"max_pixels": 255}).open("train", 0)
    (tmp_path / "secret.png").write_bytes(rows[0][0])
    images = pa.array([{"bytes": None, "path": str(tmp_path / "secret.png")}] * 4, IMAGE)
    pq.write_table(pa.table({"image": images, "label": [0, 0, 1, 1]}), file)
    with pytest.raises(ImageError, match="not followed"):
        load_dataset(str(file), test_fraction=0.5).open("train", 0)


PHOTO, LABELLED = ("0.png", samples("train")[0][0]), ("0.cls", b"0")
LINK = (member("1.png", tarfile.SYMTYPE, "/etc/passwd"), None)
BAD_TARS = {
    "compressed": (tarred([PHOTO, LABELLED]), "damaged"),
    "link": (tarred([PHOTO, LABELLED, LINK], "w"), "neither a file nor a folder"),
    "no label": (tarred([PHOTO], "w"), "no label"),
    "no image": (tarred([LABELLED], "w"), "no images"),
    "two images": (tarred([PHOTO, LABELLED, ("0.jpg", b"")], "w"), "2 images"),
    "label is no text": (tarred([PHOTO, ("0.cls", b"\xff\xfe")], "w"), "cannot be used"),
    "label is endless": (tarred([PHOTO, ("0.cls", bytes(2 << 20))], "w"), "without end"),
}


@pytest.mark.parametrize("name", BAD_TARS)
def test_hostile_and_damaged_tars(tmp_path, name):
    data, reason = BAD_TARS[name]
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(DatasetError, match=reason) as raised:
        load_dataset(str(tmp_path / "a.tar"), test_fraction=0.2)
    assert "a.tar" in raised.value.where


@pytest.mark.parametrize("kind", WRITERS)
def test_damaged_tables_and_rows_without_a_label(tmp_path, kind):
    file, write = tmp_path / f"train.{kind}", WRITERS[kind]
    write(table(samples("train")), file)
    for data in (file.read_bytes()[: file.stat().st_size // 2], os.urandom(500), b""):
        file.write_bytes(data)
        with pytest.raises(DatasetError, match="table cannot be read") as raised:
            load_dataset(str(tmp_path), test_fraction=0.2)
        assert f"train.{kind}" in raised.value.where
    for wrong in (-1, 7, None):
        write(table(samples("train"), labels=[0, wrong] * 5), tmp_path / f"{wrong}.{kind}")
        with pytest.raises(DatasetError, match="no label") as raised:
            load_dataset(str(tmp_path / f"{wrong}.{kind}"), test_fraction=0.2)
        assert raised.value.where.endswith("row 1")
