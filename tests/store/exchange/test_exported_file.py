"""A store through one HDF5 file and back: every byte of it, or nothing at all."""

import re
import shutil
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
from disk_waits import without_waiting
from toy_store import CLASSES, build, toy_spec, tree

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.store import open_store
from tosca_cache.store.exchange import ImportRequest, Listener, export_store, import_files

DOCS = Path(__file__).parents[3] / "docs" / "exchange.md"


@pytest.fixture(scope="session")
def original(skipping, tmp_path_factory):
    """The exported file of a store of which two rows were skipped; never changed."""
    with pytest.MonkeyPatch.context() as patch:
        without_waiting(patch)
        return export_store(skipping, tmp_path_factory.mktemp("exported") / "toy.h5")


@pytest.fixture
def exported(original, tmp_path):
    """A copy of it."""
    return Path(shutil.copy(original, tmp_path))


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """A store of more than 2 MB."""
    with pytest.MonkeyPatch.context() as patch:
        without_waiting(patch)
        rows = {"train": 900, "test": 10}
        return build(tmp_path_factory.mktemp("large") / "s", rows=rows, dim=400, shard_rows=512)


def imported(path, root, **more):
    return import_files(ImportRequest(path, root, **more))


def test_round_trip_is_exact(skipping, exported, tmp_path):
    done = imported(exported, tmp_path / "root")
    assert not done.was_there
    assert done.store.path == tmp_path / "root" / "toy"
    assert tree(done.store.path) == tree(skipping.path)
    assert (done.store.path / "provenance.json").read_bytes() == (skipping.path / "provenance.json").read_bytes()
    assert done.store.manifest == skipping.manifest
    assert [row.path for row in done.store.manifest.skipped["train"]] == ["train/ant/bild-ä20.jpg"]
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["toy"]
    assert imported(exported, tmp_path / "root").was_there


@pytest.mark.parametrize(
    "shape",
    [
        {"rows": {"train": 5, "test": 1}, "views": {"train": 1, "test": 2}, "dim": 1},
        {"rows": {"train": 3, "test": 0}, "views": {"train": 2, "test": 1}, "dim": 7},
        {"rows": {"train": 20, "test": 20}, "views": {"train": 2, "test": 1}, "dim": 3000, "shard_rows": 7},
    ],
)
def test_other_shapes_and_float32(tmp_path, shape):
    rows, views, dim = shape["rows"], shape["views"], shape["dim"]
    store = build(tmp_path / "s", toy_spec(rows, views, dim, dtype="float32"), **shape)
    again = imported(export_store(store, tmp_path / "s.h5"), tmp_path / "root").store
    assert tree(again.path) == tree(store.path)


def test_the_same_store_gives_the_same_file(skipping, exported, tmp_path):
    found = []
    with h5py.File(exported) as file:  # it could keep times, in seconds
        file.visititems(lambda name, item: found.append(h5py.h5g.get_objinfo(item.id).mtime))
    assert set(found) == {0}
    assert export_store(skipping, tmp_path / "again.h5").read_bytes() == exported.read_bytes()


def test_every_dataset_is_chunked_and_checksummed(exported):
    found = []
    with h5py.File(exported) as file:
        file.visititems(lambda name, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
        assert all(item.fletcher32 and item.chunks for item in found)
        assert len(found) == 2 + 2 + 10 + 13


def test_ten_lines_of_the_documentation_read_everything(skipping, exported, tmp_path):
    (code,) = re.findall(r"```python\n(import h5py.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 10
    here = {}
    exec(code.replace('"cub.h5"', repr(str(exported))), here)
    assert np.array_equal(here["features"], skipping.features("train"))
    assert np.array_equal(here["labels"], skipping.labels("train"))
    assert tuple(here["paths"]) == skipping.paths("train")
    assert tuple(here["class_names"]) == CLASSES
    assert here["manifest"]["fingerprint"] == skipping.spec.to_dict()
    assert here["manifest"]["skipped"]["test"][0]["reason"] == "cannot decode 0"


def test_a_file_is_replaced_only_by_force(skipping, exported):
    exported.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists already") as caught:
        export_store(skipping, exported)
    assert "--force" in caught.value.remedy
    assert exported.read_bytes() == b"precious"
    export_store(skipping, exported, force=True)
    assert h5py.is_hdf5(exported)


def test_a_link_in_place_of_the_target_is_not_followed(skipping, tmp_path):
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "link.h5").symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match="exists already"):
        export_store(skipping, tmp_path / "link.h5")
    export_store(skipping, tmp_path / "link.h5", force=True)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (tmp_path / "link.h5").is_symlink()


def test_a_damaged_store_is_not_exported(tmp_path):
    store = build(tmp_path / "s")
    data = bytearray((store.path / "test/features/c.2.0.0").read_bytes())
    data[50] ^= 4
    (store.path / "test/features/c.2.0.0").write_bytes(data)
    with pytest.raises(StoreError, match="features of shard 2 of split test"):
        export_store(open_store(store.path), tmp_path / "s.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("checked", [True, False])
def test_a_full_disk_leaves_nothing(mounted, large, monkeypatch, checked):
    disk = mounted("size=1m")
    if not checked:
        monkeypatch.setattr("tosca_cache.store.exchange.export._check_space", lambda store, target: None)
    (disk / "old.h5").write_bytes(b"old")
    with pytest.raises(StoreError, match="disk is full"):
        export_store(large, disk / "old.h5", force=True)
    assert [(path.name, path.read_bytes()) for path in disk.iterdir()] == [("old.h5", b"old")]


def test_a_full_disk_leaves_no_half_import(mounted, large, tmp_path):
    path, disk = export_store(large, tmp_path / "s.h5"), mounted("size=1m")
    with pytest.raises(StoreError, match="disk is full"):
        imported(path, disk)
    assert not list(disk.iterdir())


class Stopped(Exception):
    pass


def test_what_fails_in_the_middle_leaves_nothing(skipping, exported, tmp_path):
    def stop(rows):
        raise Stopped

    with pytest.raises(Stopped):
        export_store(skipping, tmp_path / "other.h5", progress=stop)
    with pytest.raises(Stopped):
        import_files(ImportRequest(exported, tmp_path / "root"), Listener(on_rows=stop))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "toy.h5"]
    assert not list((tmp_path / "root").iterdir())


@pytest.mark.parametrize("what", ["export", "import"])
def test_after_a_kill_the_same_command_works(yard, skipping, exported, tmp_path, what):
    root, before = tmp_path / "root", exported.read_bytes()
    ended = yard.run(deed="die_half_way", **{"with": [what, skipping.path, exported, root]})
    assert ended == -signal.SIGKILL
    assert exported.read_bytes() == before
    assert not (root / "toy").exists()
    export_store(skipping, exported, force=True)
    assert tree(imported(exported, root).store.path) == tree(skipping.path)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")) == ["root", "toy.h5"]
    assert [path.name for path in root.iterdir()] == ["toy"]


def test_another_store_of_that_name_stays(exported, tmp_path):
    other = build(tmp_path / "root" / "toy", toy_spec(precision="bf16"))
    before = tree(other.path)
    with pytest.raises(StoreError, match="Another store has this name"):
        imported(exported, tmp_path / "root")
    assert tree(other.path) == before


def test_options_of_foreign_features_are_refused(exported, tmp_path):
    with pytest.raises(UsageError, match="brings its names") as caught:
        imported(exported, tmp_path / "root", said={"labels": "y"})
    assert caught.value.where == "--labels"
