"""Files of every format: read as they were written, and refused before they cost anything if they are not what they say."""

import io
import json
import struct
import zipfile

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from campaign import times
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import csv
from toy_store import build

import tosca_cache as tosca
from tosca_cache.errors import StoreError, ToscaError, UsageError
from tosca_cache.store.exchange import ImportOptions, export_store, import_file, parse_name

N, D = 24, 5
X = np.random.default_rng(2).normal(size=(N, D)).astype(np.float32)
LABELS = [f"class {row % 3}" for row in range(N)]
SPLIT = ["test" if row % 4 == 0 else "train" for row in range(N)]
TEST = np.array(SPLIT) == "test"


def brought(path, root, *, named=None, most=None, **options):
    roles = {role: parse_name(role, text) for role, text in (named or {}).items()}
    return import_file(path, ImportOptions(root, "birds", **options), roles, most=most).store


def check(store):
    for split, mask in (("train", ~TEST), ("test", TEST)):
        np.testing.assert_array_equal(store.features(split)[:, 0], X[mask])
        assert [store.class_names[c] for c in store.labels(split)] == [LABELS[row] for row in np.flatnonzero(mask)]


def written(path):
    """The same features in the format of the suffix."""
    if path.suffix == ".npz":
        np.savez(path, features=X, labels=np.array(LABELS), split=np.array(SPLIT))
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("features", data=X, compression="gzip")
            file["labels"], file["split"] = np.array(LABELS, "S"), np.array(SPLIT, "S")
    elif path.suffix in (".csv", ".tsv"):
        table = pa.table({"label": LABELS, "split": SPLIT} | {f"f{i}": X[:, i] for i in range(D)})
        separator = "," if path.suffix == ".csv" else "\t"
        csv.write_csv(table, path, csv.WriteOptions(delimiter=separator))
    else:
        lists = pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), D)
        pyarrow.parquet.write_table(pa.table({"features": lists, "label": LABELS, "split": SPLIT}), path)
    return path


SUFFIXES = [".npz", ".h5", ".parquet"]  # read and written


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".csv", ".tsv"])
def test_the_same_store_from_every_format(tmp_path, suffix):
    check(brought(written(tmp_path / f"birds{suffix}"), tmp_path / "root"))


def test_arrays_in_files_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, values in (("birds", X), ("labels", np.array(LABELS)), ("split", np.array(SPLIT))):
        np.save(f"{name}.npy", values)
    named = {"labels": "labels.npy", "split": "split.npy"}
    store = brought(tmp_path / "birds.npy", tmp_path / "root", named=named)
    check(store)
    assert [file["name"] for file in store.spec.source["files"]] == ["birds.npy", "labels.npy", "split.npy"]
    with pytest.raises(UsageError, match="which array holds the labels is not said"):
        brought(tmp_path / "birds.npy", tmp_path / "root")
    np.save("labels.npy", np.array([{}] * N), allow_pickle=True)
    with pytest.raises(UsageError, match="Python objects"):
        brought(tmp_path / "birds.npy", tmp_path / "root", named=named)


def test_lists_of_a_table_have_one_length(tmp_path):
    path = tmp_path / "a.parquet"
    for lists, name in ((list(map(list, X)), "vec"), ([[1.0] * (1 + row % 2) for row in range(N)], "features")):
        table = {name: pa.array(lists, pa.list_(pa.float32())), "label": LABELS, "split": SPLIT, "note": ["x"] * N}
        pyarrow.parquet.write_table(pa.table(table), path)
        if name == "vec":
            check(brought(path, tmp_path / "root", named={"features": "vec"}))
    with pytest.raises(StoreError, match="different lengths"):
        brought(path, tmp_path / "root")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_exported_and_imported_again_whole_or_not_at_all(tmp_path, suffix):
    store = build(tmp_path / "toy")
    file = export_store(store, tmp_path / f"toy{suffix}")
    again = brought(file, tmp_path / "root")
    assert again.class_names == store.class_names
    for split in ("train", "test"):
        views = 1 if suffix == ".parquet" else store.views(split)
        np.testing.assert_array_equal(again.features(split), store.features(split)[:, :views])
        np.testing.assert_array_equal(again.labels(split), store.labels(split))
        assert again.paths(split) == store.paths(split)
    if suffix == ".h5":
        with h5py.File(file) as written:
            assert json.loads(written.attrs["store"]) == store.spec.to_dict()
    for name, words in ((file.name, "a file of this name"), ("toy.mat", "names no format")):
        with pytest.raises(UsageError, match=words):
            export_store(store, tmp_path / name)
    assert export_store(store, file, force=True) == file
    (store.path / "test/features/c.1.0.0").write_bytes(b"?")
    file.write_text("old")
    with pytest.raises(StoreError, match="damaged"):
        export_store(store, file, force=True)
    assert file.read_text() == "old" and {path.name for path in tmp_path.iterdir()} == {"toy", "root", file.name}


def test_bad_rows_are_dropped_on_request(tmp_path):
    bad = X.copy()
    bad[1, 2], bad[4, 0], bad[9] = np.nan, np.inf, 0
    np.savez(tmp_path / "a.npz", features=bad, labels=np.array(LABELS), split=np.array(SPLIT))
    with pytest.raises(UsageError, match=r"NaN or infinite \(2 such rows\)") as refused:
        brought(tmp_path / "a.npz", tmp_path / "root")
    assert "--drop-bad" in refused.value.remedy
    store = brought(tmp_path / "a.npz", tmp_path / "root", drop_bad=True)
    assert store.spec.source["dropped"] == {"train": 2, "test": 1}
    assert store.rows("train") + store.rows("test") == N - 3
    same = tosca.import_features(bad, LABELS, split=SPLIT, dataset="b", drop_bad=True, root=tmp_path / "root")
    np.testing.assert_array_equal(same.features("train"), store.features("train"))
    bad[[row for row in range(N) if row % 3 == 2]] = 0
    with pytest.raises(UsageError, match="1 classes have no rows of train: class 2"):
        tosca.import_features(bad, LABELS, split=SPLIT, dataset="b", drop_bad=True, root=tmp_path / "root")
    none = tosca.import_features(X, LABELS, split=SPLIT, dataset="b", drop_bad=True, root=tmp_path / "root")
    assert "dropped" not in none.spec.source


# Hostile files: what each claims, and what is said of it.


def npy(shape, dtype="<f4", data=b""):
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def npz_of(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def test_an_npz_that_is_not_what_it_says(tmp_path):
    labels = npy((4,), "<i8", bytes(32))
    for data, match in (
        (npz_of(features=npy((10**9, 100)), labels=labels), "to hold"),  # claims more than it has
        (npz_of(features=npy((200_000_000,), data=bytes(800_000_000)), labels=labels), "to hold"),  # a bomb
        (npz_of(features=npy((-5, 3)), labels=npy((0,))), "cannot be read"),
        (b"PK\x03\x04 not a zip", "cannot be read"),
        (b"", "cannot be read"),
    ):
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(StoreError, match=match):
            brought(tmp_path / "a.npz", tmp_path / "root", test_fraction=0.5)
        assert not (tmp_path / "root").exists()


def test_nothing_is_unpickled_and_names_of_arrays_are_text(tmp_path):
    np.savez(tmp_path / "a.npz", **{"../x": X, "\x1b[31m": np.array(LABELS), "split": np.array(SPLIT)})
    with pytest.raises(UsageError, match="is not said") as refused:
        brought(tmp_path / "a.npz", tmp_path / "root")
    assert "\x1b" not in str(refused.value)
    np.savez(tmp_path / "a.npz", features=X, labels=np.array([{}] * N, dtype=object), split=np.array(SPLIT))
    with pytest.raises(UsageError, match="Python objects"):
        brought(tmp_path / "a.npz", tmp_path / "root")
    for name in ("a.csv", "a.npy"):
        torch.save({"features": torch.from_numpy(X)}, tmp_path / name)
        with pytest.raises(StoreError, match="cannot be read"):
            brought(tmp_path / name, tmp_path / "root")
    for name in ("a.pt", "a.pkl", "a"):
        torch.save({"features": torch.from_numpy(X)}, tmp_path / name)
        with pytest.raises(UsageError, match="no format that is read here") as refused:
            brought(tmp_path / name, tmp_path / "root")
        assert "numpy.savez" in refused.value.remedy


@pytest.mark.parametrize("kind", ["external link", "soft link", "virtual", "external data"])
def test_no_link_is_followed(tmp_path, kind):
    """An HDF5 file whose features lie elsewhere."""
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["features"] = X
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["labels"], file["split"] = LABELS, SPLIT
        if kind == "external link":
            file["features"] = h5py.ExternalLink("secret.h5", "/features")
        elif kind == "soft link":
            file["features"] = h5py.SoftLink("/elsewhere")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((N, D), "f4")
            layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "features", (N, D))
            file.create_virtual_dataset("features", layout)
        else:
            file.create_dataset("features", (N, D), "f4", external=[("secret.h5", 0, N * D * 4)])
    with pytest.raises(UsageError, match=r"link|other files"):
        brought(tmp_path / "a.h5", tmp_path / "root")


def test_claims_of_hdf5_and_parquet_are_looked_at_first(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", (10**9, 50), "f4", chunks=(1000, 50), compression="gzip")
        file["labels"], file["split"] = LABELS, SPLIT
    with pytest.raises(StoreError, match="--max-bytes") as refused:
        brought(tmp_path / "a.h5", tmp_path / "root")
    assert "200,000" in str(refused.value)
    rows = 40_000_000
    zeros = pa.table({"features": pa.repeat(pa.scalar(0, pa.int8()), rows), "label": pa.repeat("a", rows)})
    pyarrow.parquet.write_table(zeros, tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 1e6
    with pytest.raises(StoreError, match="claims to hold"):
        brought(tmp_path / "a.parquet", tmp_path / "root")


@pytest.mark.campaign
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_broken_files_are_refused_in_words(tmp_path_factory, suffix):
    """Cut, doubled, overwritten anywhere: a store of what is left, or one of our errors, and nothing beside the root."""
    folder = tmp_path_factory.mktemp("broken")
    sound = written(folder / f"sound{suffix}").read_bytes()

    @settings(max_examples=times(20, 400), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.randoms(use_true_random=False))
    def attempt(chance):
        data = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            place, length = chance.randrange(len(data)), chance.choice((1, 2, 8, 64))
            how = chance.choice(("overwrite", "cut", "double", "extreme"))
            if how == "overwrite":
                data[place : place + length] = chance.randbytes(length)
            elif how == "cut":
                del data[place : place + length]
            elif how == "double":
                data[place:place] = data[place : place + length]
            else:
                data[place : place + length] = chance.choice((b"\x00", b"\xff", b"\x7f")) * length
            if not data:
                return
        path = folder / f"broken{suffix}"
        path.write_bytes(bytes(data))
        try:
            store = brought(path, folder / "root")
        except ToscaError as error:
            assert error.remedy
        else:
            assert np.isfinite(store.features("train")).all()
        assert {entry.name for entry in folder.iterdir()} <= {"root", f"sound{suffix}", f"broken{suffix}"}

    attempt()
