"""Features from elsewhere become stores, and stores files: read as they were written, or refused in words."""

import json
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
from tosca_cache.store import find_store
from tosca_cache.store.export import export_store
from tosca_cache.store.importing import ImportOptions, import_file

N, D = 40, 6
X = np.random.default_rng(5).normal(size=(N, D)).astype(np.float32)
Y = np.arange(N) % 4
TEST = np.arange(N) % 3 == 0
NAMES = np.array(["ant", "bee", "cat", "dögg"])
SPLIT = np.where(TEST, "test", "train")
BASE = {"x": X, "y": Y, "is_test": TEST}
SUFFIXES = [".npz", ".h5", ".parquet"]  # read and written


def written(path, arrays):
    """Arrays in the format of the suffix."""
    lists = {name: value.tolist() for name, value in arrays.items()}
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value.astype(object) if value.dtype.kind == "U" else value
    elif path.suffix == ".csv":
        x = lists.pop("x")
        csv.write_csv(pa.table(lists | {f"f{i}": [row[i] for row in x] for i in range(D)}), path)
    else:
        pyarrow.parquet.write_table(pa.table(lists), path)
    return path


@pytest.fixture
def bring(tmp_path):
    """Saves arrays in a file and imports them: (arrays, options...) -> (store, notes)."""

    def bring(arrays, *, kind=".npz", name="birds", named=None, **how):
        path = written(tmp_path / f"file{kind}", {key: np.asarray(value) for key, value in arrays.items()})
        return import_file(path, ImportOptions(tmp_path / "root", name, **how), named or {})

    return bring


def check(store, paths=True):
    """It has the rows of X and Y, train and test apart."""
    for split, mask in (("train", ~TEST), ("test", TEST)):
        np.testing.assert_allclose(store.features(split)[:, 0], X[mask], rtol=1e-6)
        assert np.array_equal(store.labels(split), Y[mask])
        assert not paths or store.paths(split) == tuple(f"row-{row:08d}" for row in np.flatnonzero(mask))


@pytest.mark.parametrize("kind", [*SUFFIXES, ".csv"])
def test_the_same_store_from_every_format(bring, kind):
    x = "f" if kind == ".csv" else "x"  # of its columns f0, f1, ...
    store, notes = bring({"x": X, "Y": NAMES[Y], "split": SPLIT, "note": SPLIT}, kind=kind, named={"features": x})
    check(store)
    assert store.class_names == tuple(NAMES)
    assert notes == [f"read from file{kind}: features: {x}; labels: Y; split: split"]


def test_arrays_in_files_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, values in (("birds", X), ("labels", Y), ("split", TEST)):
        np.save(f"{name}.npy", values)
    named, options = {"labels": "labels.npy", "split": "split.npy"}, ImportOptions(tmp_path / "root", "birds")
    store, _ = import_file(tmp_path / "birds.npy", options, named)
    check(store)
    assert [file["name"] for file in store.spec.source["files"]] == ["birds.npy", "labels.npy", "split.npy"]
    with pytest.raises(UsageError, match="which array holds the labels is not said"):
        import_file(tmp_path / "birds.npy", options, {})


@pytest.mark.parametrize("form", ["{}_{}", "{1}_{0}", "{1}/{0}"])
def test_separate_arrays_of_train_and_test(bring, form):
    masks = {"train": ~TEST, "test": TEST}
    arrays = {form.format(name, s): values[masks[s]] for s in masks for name, values in (("z", X), ("y", Y))}
    check(bring(arrays, kind=".h5" if "/" in form else ".npz", named={"features": "z"})[0], paths=False)


def test_names_domains_paths_and_other_splits(bring):
    arrays = {"emb": X, "labels": NAMES[Y], "is_test": TEST.astype(int), "domain": np.where(Y % 2, "day", "night")}
    store, _ = bring(arrays | {"paths": np.array([f"a/{row}.jpg" for row in range(N)])})
    assert (store.class_names, store.domain_names) == (tuple(NAMES), ("day", "night"))
    assert np.array_equal(store.domains("train"), 1 - Y[~TEST] % 2)
    assert store.paths("test")[1] == "a/3.jpg"
    again, _ = bring({"emb": X, "labels": Y, "is_test": TEST, "classes": np.append(NAMES, "eel")})
    assert again.class_names == tuple(NAMES), "of those that have rows"
    other, notes = bring({"x": X, "y": Y, "split": np.where(Y == 3, "val", np.where(TEST, "Test", "train"))})
    assert other.class_names == ("0", "1", "2")
    assert notes[1:] == ["rows of other splits are left out: val (10 rows)"]


def test_views_and_dtypes_keep_values(bring):
    views = np.random.default_rng(1).normal(size=(N, 3, D)).astype(np.float32)
    store, _ = bring({"features": views, "y": Y, "is_test": TEST})
    assert np.array_equal(store.features("train"), views[~TEST]) and store.views("test") == 3
    uneven, _ = bring({"x_train": views, "x_test": X[:4], "y_train": Y, "y_test": Y[:4]})
    assert (uneven.views("train"), uneven.views("test")) == (3, 1)
    for dtype, stored in (("f2", "float16"), ("f4", "float32"), ("f8", "float32"), (">f4", "float32")):
        store, _ = bring(BASE | {"x": np.asfortranarray(X.astype(dtype))})
        assert store.spec.dtype == stored
        assert np.array_equal(store.features("test")[:, 0], X.astype(dtype).astype(stored)[TEST])


def test_the_fingerprint_says_where_it_is_from_and_is_the_same_twice(bring, tmp_path):
    store, _ = bring(BASE, backbone="ViT-L-14.openai")
    assert "there already" in bring(BASE, backbone="ViT-L-14.openai")[1][-1]
    spec = store.spec
    assert (spec.imported, spec.precision, spec.transform) == (True, "unknown", {})
    assert (spec.backbone["name"], spec.backbone["tag"]) == ("ViT-L-14", "openai")
    assert spec.source["files"][0]["name"] == "file.npz" and len(spec.source["files"][0]["sha256"]) == 64
    wanted = {"transform.normalize": "none", "transform.image_size": 224, "views.count": 0}
    assert find_store(tmp_path / "root", "birds", wanted).path == store.path


def test_from_memory_as_from_a_file(tmp_path):
    how = {"dataset": "birds", "root": tmp_path}
    same = tosca.import_features(X, Y.tolist(), split=TEST, **how)
    apart = tosca.import_features(X[~TEST], Y[~TEST], test_features=X[TEST], test_labels=Y[TEST], **how)
    for store in (same, apart):
        check(store, paths=store is same)
        assert store.spec.source["arrays"] == "in memory"
    assert tosca.import_features(X, Y.tolist(), split=TEST, **how).path == same.path
    assert tosca.import_features(X, [str(NAMES[y]) for y in Y], split=SPLIT, **how).class_names == tuple(NAMES)


def test_bad_rows_are_dropped_on_request(bring):
    bad = X.copy()
    bad[1, 2], bad[4, 0], bad[9] = np.nan, np.inf, 0
    with pytest.raises(UsageError, match=r"NaN or infinite \(2 such rows\)(.|\n)*--drop-bad"):
        bring(BASE | {"x": bad})
    store, notes = bring(BASE | {"x": bad}, drop_bad=True)
    assert store.spec.source["dropped"] == {"train": 2, "test": 1} and "2 of train, 1 of test" in notes[1]
    assert store.rows("train") + store.rows("test") == N - 3
    with pytest.raises(UsageError, match="1 classes have no rows of train: 2"):
        bring(BASE | {"x": np.where(Y[:, None] == 2, 0, X)}, drop_bad=True)
    assert "dropped" not in bring(BASE, drop_bad=True)[0].spec.source


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_exported_and_imported_again_whole_or_not_at_all(tmp_path, suffix):
    store = build(tmp_path / "toy")
    file = export_store(store, tmp_path / f"toy{suffix}")
    again, _ = import_file(file, ImportOptions(tmp_path / "root", "toy"), {})
    assert again.class_names == store.class_names and again.domain_names == store.domain_names
    for split in ("train", "test"):
        views = 1 if suffix == ".parquet" else store.views(split)
        np.testing.assert_array_equal(again.features(split), store.features(split)[:, :views])
        np.testing.assert_array_equal(again.labels(split), store.labels(split))
        np.testing.assert_array_equal(again.domains(split), store.domains(split))
        assert again.paths(split) == store.paths(split)
    if suffix == ".h5":
        with h5py.File(file) as exported:
            assert json.loads(exported.attrs["store"]) == store.spec.to_dict()
    for name, words in ((file.name, "a file of this name"), ("toy.mat", "names no format")):
        with pytest.raises(UsageError, match=words):
            export_store(store, tmp_path / name)
    assert export_store(store, file, force=True) == file
    (store.path / "test/features/c.1.0.0").write_bytes(b"?")
    file.write_text("old")
    with pytest.raises(StoreError, match="damaged"):
        export_store(store, file, force=True)
    assert file.read_text() == "old" and {path.name for path in tmp_path.iterdir()} == {"toy", "root", file.name}


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


APART = {"x_train": X, "x": None, "y": None, "is_test": None}
REFUSED = [  # other arrays than BASE's, options, and what is said
    ({"x": changed(X, (7, 3), np.nan)}, {}, "NaN or infinite"),
    ({"x": changed(X, (7, 3), 7e4)}, {"store_dtype": "float16"}, "too large for float16"),
    ({"x": X.astype(float) * 1e60}, {}, "too large for float32"),
    ({"x": changed(X, 7, 1e-9)}, {"store_dtype": "float16"}, "all zeros in float16"),
    ({"x": X.astype(np.int64)}, {}, "features have type int64"),
    ({"x": X[:, 0]}, {}, r"features have shape \[40\]"),
    ({"x": X[:30]}, {}, "30 rows of features, but 40 labels"),
    ({"x": X[:0], "y": Y[:0], "is_test": TEST[:0]}, {}, r"have shape \[0, 6\]"),
    ({"y": Y + 0.5}, {}, "not one value a row"),
    ({"y": Y - 1}, {}, "labels have no name: -1"),
    ({"y": np.eye(4)[Y]}, {}, "not one value a row"),
    ({"y": np.where(TEST, 0, 1)}, {}, "classes have no rows of"),
    ({"classes": NAMES[:3]}, {}, "labels have no name: 3"),
    ({"classes": NAMES[[0, 1, 2, 2]]}, {}, "same name"),
    ({"is_test": TEST[:5]}, {}, "5 values of the split"),
    ({"is_test": np.arange(N) % 3}, {}, "is not clear"),
    ({"is_test": np.ones(N, bool)}, {}, "is not clear"),
    ({"is_test": None}, {}, "not said"),
    ({"paths": np.array([f"/abs/{r}" for r in range(N)])}, {}, "must be relative"),
    ({"paths": np.array([f"../{r}" for r in range(N)])}, {}, "must be relative"),
    ({"paths": np.array(["same"] * N)}, {}, "same path"),
    ({"paths": Y}, {}, "paths have shape"),
    ({"o": np.array([{}] * N, dtype=object)}, {"named": {"labels": "o"}}, "Object arrays cannot be loaded"),
    ({}, {"name": ".hidden"}, "is no name"),
    ({}, {"backbone": "a/b"}, "is no name"),
    ({}, {"store_dtype": "int8"}, "cannot be stored"),
    (APART | {"x_test": X[:4], "y": Y}, {"named": {"labels": "y"}}, "no array 'y' of each split"),
    (APART | {"x_test": X[:4, :3], "y_train": Y, "y_test": Y[:4]}, {}, "width 6, test features 3"),
]


@pytest.mark.parametrize(("arrays", "more", "match"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_a_store_is_refused_and_leaves_nothing(bring, tmp_path, arrays, more, match):
    with pytest.raises((UsageError, StoreError), match=match) as caught:
        bring({name: value for name, value in (BASE | arrays).items() if value is not None}, **more)
    assert caught.value.remedy
    if "too large for float16" in match:
        assert "--store-dtype float32" in caught.value.remedy
        assert "row 7 of the features (train)" in caught.value.where
    assert not (tmp_path / "root").exists() or not list((tmp_path / "root").iterdir())


# Hostile files


def claim(path, shape):
    """Writes an .npz of arrays that claim a shape, and of which nothing is there."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("features", "labels", "split"):
            with archive.open(f"{name}.npy", "w") as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)


@pytest.fixture
def refused(tmp_path):
    """(path, words) -> the error of importing a file, which leaves nothing."""

    def refused(name, words, error=StoreError):
        with pytest.raises(error, match=words) as caught:
            import_file(tmp_path / name, ImportOptions(tmp_path / "root", "birds"), {})
        assert not (tmp_path / "root").exists() and "\x1b" not in str(caught.value)
        return caught.value

    return refused


def test_what_is_not_what_it_says_or_claims_too_much(tmp_path, refused):
    for shape, words in (((10**9, 100), "to hold"), ((-5, 3), "cannot be read")):
        claim(tmp_path / "a.npz", shape)
        refused("a.npz", words)
    for data in (b"PK\x03\x04 not a zip", b""):
        (tmp_path / "a.npz").write_bytes(data)
        refused("a.npz", "cannot be read")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", (10**9, 50), "f4", chunks=(1000, 50), compression="gzip")
        file["labels"], file["split"] = NAMES[Y].tolist(), SPLIT.tolist()
    assert "uncompressed" in refused("a.h5", "claims to hold").remedy
    rows = 40_000_000
    zeros = pa.table({"features": pa.repeat(pa.scalar(0, pa.int8()), rows), "label": pa.repeat("a", rows)})
    lists = pa.array([[1.0] * (1 + row % 2) for row in range(N)], pa.list_(pa.float32()))
    uneven = pa.table({"features": lists, "y": Y, "is_test": TEST})
    for table, words in ((zeros, "claims to hold"), (uneven, "different lengths")):
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
        refused("a.parquet", words)


def test_nothing_is_unpickled_and_names_of_arrays_are_text(tmp_path, refused):
    np.savez(tmp_path / "a.npz", **{"../x": X, "\x1b[31m": np.array(Y), "split": SPLIT})
    refused("a.npz", "is not said", UsageError)
    for name in ("a.csv", "a.npy", "a.pt", "a.pkl", "a"):
        torch.save({"features": torch.from_numpy(X)}, tmp_path / name)
        if name in ("a.csv", "a.npy"):
            refused(name, "cannot be read")
        else:
            assert "numpy.savez" in refused(name, "no format", UsageError).remedy


def test_no_link_is_followed(tmp_path, refused):
    """HDF5 files whose features lie elsewhere."""
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["features"] = X
    layout = h5py.VirtualLayout((N, D), "f4")
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "features", (N, D))
    for link in (
        lambda file: file.__setitem__("features", h5py.ExternalLink("secret.h5", "/features")),
        lambda file: file.__setitem__("features", h5py.SoftLink("/elsewhere")),
        lambda file: file.create_virtual_dataset("features", layout),
        lambda file: file.create_dataset("features", (N, D), "f4", external=[("secret.h5", 0, N * D * 4)]),
    ):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["labels"], file["split"] = Y, SPLIT.tolist()
            link(file)
        assert "there are: labels, split" in refused("a.h5", "features is not said", UsageError).remedy


@pytest.mark.campaign
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_broken_files_are_refused_in_words(tmp_path_factory, suffix):
    """Cut, doubled, overwritten anywhere: a store of what is left, or one of our errors, and nothing beside the root.

    In HDF5 texts of a fixed length: libhdf5 2.0 may never come back from a damaged heap of texts of any length.
    """
    folder = tmp_path_factory.mktemp("broken")
    arrays = {"x": X, "y": NAMES[Y], "split": SPLIT}
    if suffix == ".h5":
        arrays |= {name: np.char.encode(np.asarray(arrays[name], str), "utf-8") for name in ("y", "split")}
    sound = written(folder / f"sound{suffix}", arrays).read_bytes()

    @settings(max_examples=times(20, 400), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.randoms(use_true_random=False))
    def attempt(chance):
        data = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            place, length = chance.randrange(len(data)), chance.choice((1, 2, 8, 64))
            new = chance.choice(
                (chance.randbytes(length), b"", 2 * data[place : place + length], b"\0" * length, b"\xff" * length)
            )
            data[place : place + length] = new
            if not data:
                return
        path = folder / f"broken{suffix}"
        path.write_bytes(bytes(data))
        try:
            store, _ = import_file(path, ImportOptions(folder / "root", "birds"), {})
        except ToscaError as error:
            assert error.remedy
        else:
            assert np.isfinite(store.features("train")).all()
        assert {entry.name for entry in folder.iterdir()} <= {"root", f"sound{suffix}", f"broken{suffix}"}

    attempt()
