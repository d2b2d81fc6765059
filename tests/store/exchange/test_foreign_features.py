"""Embeddings in the forms that people have them in become stores, with the rows where they belong."""

import h5py
import numpy as np
import pytest
from trees import tree

import tosca_cache as tosca
from tosca_cache.errors import StoreError, UsageError
from tosca_cache.store import StoreWriter, find_store
from tosca_cache.store.exchange import ImportOptions, import_file, parse_name

N, D = 40, 6
X = np.random.default_rng(5).normal(size=(N, D)).astype(np.float32)
Y = np.arange(N) % 4
TEST = np.arange(N) % 3 == 0
NAMES = np.array(["ant", "bee", "cat", "dögg"])


@pytest.fixture
def bring(tmp_path):
    """Saves arrays as .npz, or .h5, and imports them: (arrays, options...) -> Imported."""

    def bring(arrays, *, kind="npz", name="birds", named=None, heard=None, **how):
        path = tmp_path / f"file.{kind}"
        if kind == "npz":
            np.savez_compressed(path, **arrays)
        else:
            with h5py.File(path, "w") as file:
                for key, value in arrays.items():
                    file[key] = value.astype(object) if np.asarray(value).dtype.kind == "U" else value
        roles = {role: parse_name(role, text) for role, text in (named or {}).items()}
        options = ImportOptions(tmp_path / "root", name, **how)
        return import_file(path, options, roles, on_columns=lambda path, *told: heard is None or heard.append(told))

    return bring


def check(store, train=~TEST, labels=Y, features=X):
    for split, mask in (("train", train), ("test", ~train)):
        assert np.array_equal(store.features(split)[:, 0], features[mask])
        assert np.array_equal(store.labels(split), labels[mask])
        assert store.paths(split) == tuple(f"row-{row:08d}" for row in np.flatnonzero(mask))


@pytest.mark.parametrize(
    ("kind", "split", "values"),
    [
        ("npz", "is_test", TEST),
        ("h5", "split", TEST.astype(np.int64)),
        ("npz", "split", np.where(TEST, "Test", "train")),
    ],
)
def test_a_split_vector(bring, kind, split, values):
    heard = []
    done = bring({"embeddings": X, "y": Y, split: values, "other": X[:3]}, kind=kind, heard=heard)
    check(done.store)
    assert done.store.class_names == ("0", "1", "2", "3")
    assert heard[0] == ({"features": "embeddings", "labels": "y", "split": split}, ["other"])


@pytest.mark.parametrize(
    "names",
    [
        "x_train y_train x_test y_test",
        "train/features train/labels test/features test/labels",
        "train_features train_labels test_features test_labels",
    ],
)
def test_separate_arrays(bring, names):
    arrays = dict(zip(names.split(), (X[~TEST], Y[~TEST], X[TEST], Y[TEST]), strict=True))
    store = bring(arrays, kind="h5" if "/" in names else "npz").store
    for split, mask in (("train", ~TEST), ("test", TEST)):
        assert np.array_equal(store.features(split)[:, 0], X[mask])
        assert np.array_equal(store.labels(split), Y[mask])


def test_rows_of_other_splits_are_left_out_and_a_fraction_of_each_class_is_by_seed(bring):
    done = bring({"x": X, "y": Y, "split": np.where(Y == 3, "val", np.where(TEST, "test", "train"))})
    assert done.store.class_names == ("0", "1", "2")
    assert done.notes == ("rows of other splits are left out: val (10 rows)",)
    one, other = (bring({"x": X, "y": Y}, test_fraction=0.3, seed=seed).store for seed in (1, 2))
    assert np.bincount(one.labels("test")).tolist() == [3, 3, 3, 3]
    assert one.paths("test") != other.paths("test")
    assert not set(one.paths("test")) & set(one.paths("train"))
    assert one.spec.source["test_fraction"] == 0.3


def test_texts_names_domains_and_paths(bring):
    arrays = {"emb": X, "labels": NAMES[Y], "is_test": TEST, "domain": np.where(Y % 2, "day", "night")}
    store = bring(arrays | {"paths": np.array([f"a/{row}.jpg" for row in range(N)])}).store
    assert store.class_names == tuple(NAMES)
    assert store.domain_names == ("day", "night")
    assert np.array_equal(store.domains("train"), 1 - Y[~TEST] % 2)
    assert store.paths("test")[1] == "a/3.jpg"
    again = bring({"emb": X, "labels": Y.astype(float), "is_test": TEST, "classes": np.append(NAMES, "eel")})
    assert again.store.class_names == tuple(NAMES)
    assert again.notes == ("1 classes have no rows and are left out: eel",)


def test_views_and_dtypes_keep_values(bring):
    views = np.random.default_rng(1).normal(size=(N, 3, D)).astype(np.float32)
    store = bring({"features": views, "y": Y, "is_test": TEST}).store
    assert np.array_equal(store.features("train"), views[~TEST])
    assert (store.spec.views["count"], store.views("test")) == (2, 3)
    uneven = bring({"x_train": views, "x_test": X[:4], "y_train": Y, "y_test": Y[:4]}).store
    assert (uneven.views("train"), uneven.views("test")) == (3, 1)
    for dtype, stored in (("f2", "float16"), ("f4", "float32"), ("f8", "float32"), (">f4", "float32")):
        store = bring({"x": np.asfortranarray(X.astype(dtype)), "y": Y, "is_test": TEST}).store
        assert store.spec.dtype == stored
        assert np.array_equal(store.features("test")[:, 0], X.astype(dtype).astype(stored)[TEST])


def test_the_fingerprint_says_where_it_is_from_and_is_the_same_twice(bring, tmp_path):
    arrays = {"x": X, "y": Y, "is_test": TEST}
    first, second = bring(arrays, backbone="ViT-L-14.openai"), bring(arrays, backbone="ViT-L-14.openai")
    assert (first.was_there, second.was_there) == (False, True)
    spec = first.store.spec
    assert (spec.imported, spec.precision, spec.transform) == (True, "unknown", {})
    assert (spec.backbone["name"], spec.backbone["tag"]) == ("ViT-L-14", "openai")
    assert spec.source["files"][0]["name"] == "file.npz"
    assert len(spec.source["files"][0]["sha256"]) == 64
    wanted = {"transform.normalize": "none", "transform.image_size": 224, "views.count": 0}
    assert find_store(tmp_path / "root", "birds", wanted).path == first.store.path


def test_from_memory_as_from_a_file(bring, tmp_path):
    store = bring({"x": X, "y": Y, "is_test": TEST}).store
    given = {"dataset": "birds", "root": tmp_path / "memory"}
    same = tosca.import_features(X, Y.tolist(), split=TEST, **given)
    apart = tosca.import_features(X[~TEST], Y[~TEST], test_features=X[TEST], test_labels=Y[TEST], **given)
    for other in (same, apart):
        assert np.array_equal(other.features("train"), store.features("train"))
        assert np.array_equal(other.labels("test"), store.labels("test"))
        assert other.spec.source["arrays"] == "in memory"
    assert tree(tosca.import_features(X, Y.tolist(), split=TEST, **given).path) == tree(same.path)
    texts = tosca.import_features(X, [str(NAMES[y]) for y in Y], test_fraction=0.5, **given)
    assert texts.class_names == tuple(NAMES)


def test_an_import_that_was_interrupted_goes_on(bring, tmp_path, monkeypatch):
    publish, published = StoreWriter.publish, []

    def stopping(writer, shard, **rows):
        published.append(shard.split)
        if len(published) == 2:
            raise KeyboardInterrupt
        publish(writer, shard, **rows)

    monkeypatch.setattr(StoreWriter, "publish", stopping)
    with pytest.raises(KeyboardInterrupt):
        bring(BASE)
    (left,) = (path for path in (tmp_path / "root").iterdir() if path.is_dir())
    assert left.name.endswith(".partial")
    check(bring(BASE).store)
    assert published == ["train", "test", "test"]  # the train rows were there


BASE = {"x": X, "y": Y, "is_test": TEST}
APART = {"x_train": X, "x": None, "y": None, "is_test": None}


def changed(array, place, value):
    array = array.copy()
    array[place] = value
    return array


REFUSED = [  # other arrays than BASE's, options, and what is said
    ({"x": changed(X, (7, 3), np.nan)}, {}, "NaN or infinite"),
    ({"x": changed(X, 7, 0)}, {}, "all zeros"),
    ({"x": changed(X, (7, 3), 7e4)}, {"store_dtype": "float16"}, "too large for float16"),
    ({"x": X.astype(float) * 1e60}, {}, "too large for float32"),
    ({"x": changed(X, 7, 1e-9)}, {"store_dtype": "float16"}, "all zeros in float16"),
    ({"x": X.astype(np.int64)}, {}, "features have type int64"),
    ({"x": X[:, 0]}, {}, r"features have shape \[40\]"),
    ({"x": X[:30]}, {}, "30 rows of features, but 40 labels"),
    ({"x": X[:0], "y": Y[:0], "is_test": TEST[:0]}, {}, r"have shape \[0, 6\]"),
    ({"y": Y + 0.5}, {}, "not whole numbers"),
    ({"y": changed(Y.astype(float), 3, np.nan)}, {}, "not whole numbers"),
    ({"y": Y.astype(np.uint64) + 2**63}, {}, "not whole numbers"),
    ({"y": np.eye(4)[Y]}, {}, "not one value a row"),
    ({"y": np.array(["a\x1b[31m"] * N)}, {}, "cannot be a name"),
    ({"y": np.where(TEST, 0, 1)}, {}, "classes have no rows of"),
    ({"classes": NAMES[:3]}, {}, "labels have no name: 3"),
    ({"classes": NAMES[[0, 1, 2, 2]]}, {}, "same name"),
    ({"is_test": TEST[:5]}, {}, "5 values of the split"),
    ({"is_test": np.arange(N) % 3}, {}, "is not clear"),
    ({"is_test": None}, {}, "not said"),
    ({"is_test": None}, {"test_fraction": 1.0}, "between 0 and 1"),
    ({}, {"test_fraction": 0.2}, "a split already"),
    ({"paths": np.array([f"/abs/{r}" for r in range(N)])}, {}, "must be relative"),
    ({"paths": np.array([f"../{r}" for r in range(N)])}, {}, "must be relative"),
    ({"paths": np.array(["same"] * N)}, {}, "same path"),
    ({"o": np.array([{}] * N, dtype=object)}, {"named": {"labels": "o"}}, "Python objects"),
    ({}, {"named": {"features": "nope"}}, "no array 'nope'"),
    ({}, {"name": "../birds"}, "is no name"),
    ({}, {"name": ".hidden"}, "is no name"),
    ({}, {"backbone": "a/b"}, "is no name"),
    ({}, {"store_dtype": "int8"}, "cannot be stored"),
    (APART | {"x_test": X[:4], "y": Y}, {"named": {"labels": "y"}}, "of some kinds only"),
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
