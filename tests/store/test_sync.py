"""Copies of stores: whole and checked wherever they arrive, gone on with after an interruption, never half a store."""

import fsspec
import pytest
from toy_store import build, read_everything, toy_spec, tree

from tosca_cache.errors import FingerprintMismatch, StoreError, UsageError
from tosca_cache.store import open_store
from tosca_cache.store.layout import object_key
from tosca_cache.store.manifest import MANIFEST
from tosca_cache.store.sync import is_address, list_remote, pull, pull_wanted, push


@pytest.fixture(params=["memory", "file"])
def address(request, tmp_path):
    """An empty place to push to."""
    yield f"{request.param}://{tmp_path}/far" if request.param == "file" else f"memory://{tmp_path.name}"
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def store(tmp_path):
    return build(tmp_path / "near" / "toy--vit--v1--0123456789")


def far(address, key):
    """The file system of an address, and the path of an object there."""
    fs, base = fsspec.core.url_to_fs(address)
    return fs, f"{base}/toy--vit--v1--0123456789/{key}"


def test_there_and_back(address, store, tmp_path):
    told, size = [], store.manifest.size
    assert push(store, address, lambda *counts: told.append(counts)) == f"{address}/{store.path.name}"
    assert told[-1] == (size, size) and told == sorted(told)
    (summary,) = list_remote(address)
    assert (summary.path.name, summary.spec, summary.rows) == (
        store.path.name,
        store.spec,
        {split: store.rows(split) for split in ("train", "test")},
    )
    path = pull(f"{address}/{store.path.name}", tmp_path / "root", lambda *counts: told.append(counts))
    assert tree(path) == tree(store.path)
    assert told[-1] == (size, size) and len(told) == 2 * len(store.manifest.objects)
    read_everything(open_store(path))
    assert pull(f"{address}/{store.path.name}/", tmp_path / "root") == path, "it is there"
    assert [entry.name for entry in (tmp_path / "root").iterdir()] == [path.name]


def test_what_is_there_is_not_copied_again(address, store, tmp_path, monkeypatch):
    push(store, address)
    fs, path = far(address, "")
    written, write = [], type(fs).pipe_file
    monkeypatch.setattr(
        type(fs), "pipe_file", lambda self, key, data, **more: written.append(key) or write(self, key, data)
    )
    push(store, address)
    assert {key.rpartition("/")[2] for key in written} <= {"manifest.json", "manifest.copy.json", "provenance.json"}
    one = object_key("train", "features", 0)
    fs.rm(f"{path}{one}")
    push(store, address)
    assert any(key.endswith(one) for key in written)


class Stopped(Exception):
    pass


def stopping(after):
    """Told of progress, it interrupts."""
    told = []

    def tell(done, total):
        told.append(done)
        if len(told) > after:
            raise Stopped

    return tell


@pytest.mark.parametrize("after", [0, 3])
def test_an_interrupted_upload_is_no_store(address, store, tmp_path, after):
    with pytest.raises(StoreError):
        push(store, address, stopping(after))
    assert list_remote(address) == []
    with pytest.raises(StoreError, match="no finished store"):
        pull(f"{address}/{store.path.name}", tmp_path / "root")
    assert not (tmp_path / "root").exists()
    push(store, address)
    assert tree(pull(f"{address}/{store.path.name}", tmp_path / "root")) == tree(store.path)


@pytest.mark.parametrize("after", [0, 3])
def test_an_interrupted_download_goes_on(address, store, tmp_path, after, monkeypatch):
    push(store, address)
    with pytest.raises(StoreError):
        pull(f"{address}/{store.path.name}", tmp_path / "root", stopping(after))
    assert not (tmp_path / "root" / store.path.name).exists()
    fs, _ = far(address, "")
    fetched, fetch = [], type(fs).cat_file
    monkeypatch.setattr(
        type(fs), "cat_file", lambda self, key, *a, **more: fetched.append(key) or fetch(self, key, *a, **more)
    )
    path = pull(f"{address}/{store.path.name}", tmp_path / "root")
    assert tree(path) == tree(store.path)
    objects = [key for key in fetched if key.rpartition("/")[2].startswith(("c.", "zarr"))]
    assert len(objects) < len(store.manifest.objects)


def test_damage_on_the_way_is_seen(address, store, tmp_path):
    push(store, address)
    fs, key = far(address, object_key("test", "features", 0))
    data = bytearray(fs.cat_file(key))
    data[len(data) // 2] ^= 1
    fs.pipe_file(key, bytes(data))
    with pytest.raises(StoreError, match="not what its manifest says"):
        pull(f"{address}/{store.path.name}", tmp_path / "root")
    fs.pipe_file(key, bytes(data[:-1]))
    with pytest.raises(StoreError, match="another size"):
        pull(f"{address}/{store.path.name}", tmp_path / "root")
    fs.rm(key)
    with pytest.raises(StoreError, match="is missing"):
        pull(f"{address}/{store.path.name}", tmp_path / "root")
    assert not (tmp_path / "root" / store.path.name).exists()


def test_a_damaged_store_is_not_pushed(address, store):
    victim = store.path / object_key("train", "features", 0)
    data = bytearray(victim.read_bytes())
    data[5] ^= 1
    victim.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="damaged"):
        push(store, address)
    assert list_remote(address) == []


def test_another_store_of_the_name_stays(address, store, tmp_path):
    push(store, address)
    precision = "fp16" if store.spec.precision != "fp16" else "bf16"
    other = build(tmp_path / "other" / store.path.name, toy_spec(precision=precision))
    with pytest.raises(StoreError, match="Another store of this name is there"):
        push(other, address)
    with pytest.raises(StoreError, match="is here already"):
        pull(f"{address}/{store.path.name}", other.path.parent)
    read_everything(other)


def test_the_store_that_is_wanted_is_pulled(address, store, tmp_path):
    push(store, address)
    dataset = store.spec.dataset["name"]
    path = pull_wanted(address, tmp_path / "root", dataset, {"views.count": store.spec.views["count"]})
    assert path.name == store.path.name
    with pytest.raises(FingerprintMismatch, match=r"views\.count: asked for 99"):
        pull_wanted(address, tmp_path / "root", dataset, {"views.count": 99})
    with pytest.raises(StoreError, match="no store of nothing"):
        pull_wanted(address, tmp_path / "root", "nothing")


def test_names_from_the_other_side_lead_nowhere_else(address, store, tmp_path):
    push(store, address)
    fs, base = fsspec.core.url_to_fs(address)
    fs.makedirs(f"{base}/.hidden", exist_ok=True)
    fs.pipe_file(f"{base}/.hidden/{MANIFEST}", (store.path / MANIFEST).read_bytes())
    assert [summary.path.name for summary in list_remote(address)] == [store.path.name]
    for name in ("..", ".hidden", "a b", "x\n"):
        with pytest.raises(UsageError, match="no name of a store"):
            pull(f"{address}/{name}", tmp_path / "root")


def test_addresses():
    assert is_address("s3://bucket/folder")
    assert not any(map(is_address, ("cache", "/abs", "C:\\x", "a/b:c", "")))


@pytest.mark.parametrize(
    ("address", "words"), [("nowhere://x", "no address|needs a library"), ("gs://b/x", "gcs|failed|refused|no such")]
)
def test_what_cannot_be_reached_is_said(store, address, words):
    with pytest.raises((StoreError, UsageError), match=words) as refused:
        push(store, address)
    assert refused.value.remedy
