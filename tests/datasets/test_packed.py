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

from tosca_cache.datasets import load_dataset
from tosca_cache.errors import DatasetError, ImageError, UsageError
from tosca_cache.store import open_store

CLASSES = ("bee", "ant")  # the order of the ClassLabel, which is not that of names
FILES = tree("photos", train=5, test=2, classes=sorted(CLASSES))


def samples(split):
    """(bytes, class) of every image of a split, shuffled."""
    found = [(data, path.split("/")[2]) for path, data in FILES.items() if f"/{split}/" in path]
    return [found[place] for place in np.random.default_rng(0).permutation(len(found))]


def features(classes=CLASSES):
    label = {"names": list(classes), "_type": "ClassLabel"}
    said = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    return {b"huggingface": json.dumps(said).encode()}


def table(rows, *, labels=None, metadata=True):
    """As `datasets` has it in memory: images as {bytes, path}, labels as numbers of a ClassLabel."""
    images = pa.array(
        [{"bytes": d, "path": "../../etc/passwd"} for d, _ in rows],
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    labels = pa.array([CLASSES.index(c) for _, c in rows]) if labels is None else pa.array(labels)
    made = pa.table({"image": images, "label": labels, "id": pa.array(range(len(rows)))})
    return made.replace_schema_metadata(features()) if metadata else made


def write_stream(made, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made, max_chunksize=3)


def saved_to_disk(root):
    """What `datasets.DatasetDict.save_to_disk` leaves: a folder a split, two files each, and JSON beside them."""
    (root).mkdir()
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


@pytest.fixture(params=KINDS)
def packed(request, tmp_path):
    KINDS[request.param](tmp_path / "photos.d")
    return tmp_path / "photos.d"


def test_has_the_images_that_were_packed(packed):
    dataset = load_dataset(str(packed))
    classes = dataset.class_names  # by name where nothing says their order
    assert classes == (CLASSES if any(packed.rglob("*.arrow")) or any(packed.rglob("*.parquet")) else ("ant", "bee"))
    assert dataset.name == "photos.d"
    for split in ("train", "test"):
        wanted = sorted((name, data) for data, name in samples(split))
        found = []
        for row, label in enumerate(dataset.splits[split].labels):
            found.append((classes[label], dataset.open(split, row).tobytes()))
        pixels = [(name, load_pixels(data)) for name, data in wanted]
        assert sorted(found) == sorted(pixels)
        assert sorted(dataset.splits[split].labels) == list(dataset.splits[split].labels)


def load_pixels(data):
    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


def test_goes_to_other_processes(packed):
    dataset = load_dataset(str(packed))
    again = pickle.loads(pickle.dumps(dataset))
    assert again.open("train", 3).tobytes() == dataset.open("train", 3).tobytes()
    assert again.listing_digest() == dataset.listing_digest()


def test_features_are_those_of_the_folder(packed, tmp_path):
    for path, data in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    means = []
    for number, place in enumerate((packed, tmp_path / "photos")):
        root = tmp_path / f"stores{number}"
        tosca("extract", "--dataset", place, "--root", root, "--backbone", "vit_nano", "--views", "0", code=0)
        (path,) = (p for p in root.iterdir() if p.is_dir())
        store = open_store(path)
        clean, labels = store.features("train", views=0).astype(np.float32), store.labels("train")
        means.append(
            {name: clean[labels == k].reshape(-1, store.dim).mean(0) for k, name in enumerate(store.class_names)}
        )
        tosca("cache", "verify", path, "--recompute", "2", code=0)
    for name in CLASSES:
        np.testing.assert_allclose(means[0][name], means[1][name], rtol=1e-3, atol=1e-3)


def test_a_changed_shard_is_not_what_a_store_was_made_of(tmp_path):
    """Shards that are newer than a store give it nothing."""
    tar_shards(tmp_path / "d")
    how = ("--dataset", tmp_path / "d", "--root", tmp_path / "s", "--backbone", "vit_nano")
    tosca("extract", *how, "--views", "0", code=0)
    assert "taken from" in tosca("extract", *how, "--views", "1", code=0).output
    for shard in (tmp_path / "d").glob("*.tar"):
        os.utime(shard, (4e9, 4e9))
    assert "14 of its images have changed since" in tosca("extract", *how, "--views", "2", code=0).output


def test_one_file_is_divided(tmp_path):
    made = table(samples("train"))
    pq.write_table(made, tmp_path / "all.parquet")
    with pytest.raises(UsageError, match="no test split of their own"):
        load_dataset(str(tmp_path / "all.parquet"))
    dataset = load_dataset(str(tmp_path / "all.parquet"), test_fraction=0.4)
    assert [len(dataset.splits[s]) for s in ("train", "test")] == [6, 4]
    parquet_shards(tmp_path / "p")
    with pytest.raises(UsageError, match="leave --test-fraction out"):
        load_dataset(str(tmp_path / "p"), test_fraction=0.4)


def test_labels_by_an_option(tmp_path):
    rows = samples("train")
    made = table(rows, metadata=False).rename_columns(["image", "what", "id"])
    made = made.set_column(1, "what", pa.array([f"=cmd|{c}\x1b" for _, c in rows]))
    pq.write_table(made, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="which column"):
        load_dataset(str(tmp_path / "a.parquet"), test_fraction=0.2)
    with pytest.raises(UsageError, match="no column 'who'"):
        load_dataset(str(tmp_path / "a.parquet"), test_fraction=0.2, label="who")
    dataset = load_dataset(str(tmp_path / "a.parquet"), test_fraction=0.2, label="what")
    assert dataset.class_names == ("=cmd|ant\x1b", "=cmd|bee\x1b")
    members = [
        (f"{n}.{k}", v)
        for n, (d, c) in enumerate(rows)
        for k, v in (("png", d), ("json", json.dumps({"kind": c}).encode()))
    ]
    (tmp_path / "a.tar").write_bytes(tarred(members, "w"))
    assert load_dataset(str(tmp_path / "a.tar"), test_fraction=0.2, label="kind").class_names == ("ant", "bee")
    with pytest.raises(DatasetError, match="no label"):
        load_dataset(str(tmp_path / "a.tar"), test_fraction=0.2)
    with pytest.raises(UsageError, match="names of folders"):
        load_dataset("digits", label="x")


def test_a_validation_split_stands_for_test(tmp_path):
    saved_to_disk(tmp_path / "d")
    (tmp_path / "d" / "test").rename(tmp_path / "d" / "validation")
    assert len(load_dataset(str(tmp_path / "d")).splits["test"]) == 4


def test_folders_of_images_with_a_table_beside_them_are_folders(tmp_path):
    for path, data in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    pq.write_table(table(samples("train")), tmp_path / "photos" / "metadata.parquet")
    assert load_dataset(str(tmp_path / "photos")).class_names == ("ant", "bee")


def test_what_cannot_be_decoded_is_told_with_shard_and_row(tmp_path):
    rows = samples("train")
    pq.write_table(table([*rows, (b"no image", "ant")]), tmp_path / "a.parquet", row_group_size=4)
    dataset = load_dataset(str(tmp_path / "a.parquet"), test_fraction=0.2)
    failures = []
    for split in ("train", "test"):
        for row in range(len(dataset.splits[split])):
            try:
                dataset.open(split, row)
            except ImageError as error:
                failures.append(error.where)
    assert failures == [f"{tmp_path / 'a.parquet'}, row {len(rows)}"]


def test_a_row_that_names_a_file_is_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(image(0))
    images = [{"bytes": None, "path": str(tmp_path / "secret.png")}] * 4
    made = pa.table(
        {"image": pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()})), "label": [0, 0, 1, 1]}
    )
    pq.write_table(made, tmp_path / "a.parquet")
    dataset = load_dataset(str(tmp_path / "a.parquet"), test_fraction=0.5)
    with pytest.raises(ImageError, match="not followed"):
        dataset.open("train", 0)


def test_pictures_with_too_many_pixels_are_refused(tmp_path):
    pq.write_table(table(samples("train")), tmp_path / "a.parquet")
    dataset = load_dataset(str(tmp_path / "a.parquet"), test_fraction=0.2, decoding={"max_pixels": 255})
    with pytest.raises(ImageError, match="more than 255"):
        dataset.open("train", 0)


def _negative():
    """A file whose size leads back to its own header."""
    head = bytearray(tarfile.TarInfo("0.png").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" * 8 + (-512 & 0xFFFFFFFF).to_bytes(4, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    return bytes(head) + bytes(1024)


GOOD = [("0.png", image(0)), ("0.cls", b"0")]
BAD_TARS = {
    "cut in a file": (lambda: tarred(GOOD, "w")[:900], "cut off"),
    "cut between files": (lambda: tarred([*GOOD, *GOOD], "w")[:1536], "end is missing"),
    "compressed": (lambda: tarred(GOOD), "damaged"),
    "less than no bytes": (_negative, "less than no bytes"),
    "link": (lambda: tarred([*GOOD, (_link("1.png", "/etc/passwd"), None)], "w"), "neither a file nor a folder"),
    "no label": (lambda: tarred(GOOD[:1], "w"), "no label"),
    "no image": (lambda: tarred(GOOD[1:], "w"), "no images"),
    "two images": (lambda: tarred([*GOOD, ("0.jpg", b"")], "w"), "2 images"),
    "label is no text": (lambda: tarred([GOOD[0], ("0.cls", b"\xff\xfe")], "w"), "cannot be read"),
    "label is endless": (lambda: tarred([GOOD[0], ("0.cls", bytes(2 << 20))], "w"), "2,097,152 bytes"),
    "json is nested": (lambda: tarred([GOOD[0], ("0.json", b"[" * 100_000)], "w"), "cannot be read"),
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
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_damaged_tables(tmp_path, suffix, damage):
    file, made = tmp_path / f"train.{suffix}", table(samples("train"))
    write_stream(made, file) if suffix == "arrow" else pq.write_table(made, file)
    data = file.read_bytes()
    file.write_bytes({"cut": data[: len(data) // 2], "noise": bytes(os.urandom(500)), "empty": b""}[damage])
    with pytest.raises(DatasetError, match="table cannot be read") as raised:
        load_dataset(str(tmp_path), test_fraction=0.2)
    assert f"train.{suffix}" in raised.value.where


@pytest.mark.parametrize("labels", [[0, -1] * 5, [0, 7] * 5, [0, None] * 5])
def test_rows_without_a_label(tmp_path, labels):
    pq.write_table(table(samples("train"), labels=labels), tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match="no label") as raised:
        load_dataset(str(tmp_path / "a.parquet"), test_fraction=0.2)
    assert raised.value.where.endswith("row 1")
