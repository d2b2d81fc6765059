"""Copies of stores: whole and checked wherever they arrive, gone on with after an interruption, never half a store."""

import fsspec
import pytest
from toy_store import build, read_everything, toy_spec
from trees import tree

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


def test_there_and_back(address, store, tmp_path, monkeypatch):
    told, size, there = [], store.manifest.size, f"{address}/{store.path.name}"
    assert push(store, address, lambda *counts: told.append(counts)) == there
    assert told[-1] == (size, size) and told == sorted(told)
    (summary,) = list_remote(address)
    rows = {split: store.rows(split) for split in ("train", "test")}
    assert (summary.path.name, summary.spec, summary.rows) == (store.path.name, store.spec, rows)
    path = pull(there, tmp_path / "root", lambda *counts: told.append(counts))
    assert tree(path) == tree(store.path)
    assert told[-1] == (size, size) and len(told) == 2 * len(store.manifest.objects)
    read_everything(open_store(path))
    assert pull(f"{there}/", tmp_path / "root") == path, "it is there"
    assert [entry.name for entry in (tmp_path / "root").iterdir()] == [path.name]
    fs, folder = far(address, "")
    written, write = [], type(fs).pipe_file

    def pipe_file(self, key, data, **more):
        written.append(key.rpartition(store.path.name)[2])
        return write(self, key, data)

    monkeypatch.setattr(type(fs), "pipe_file", pipe_file)
    push(store, address)  # what is there is not copied again
    assert set(written) <= {"/manifest.json", "/manifest.copy.json", "/provenance.json"}
    one = object_key("train", "features", 0)
    fs.rm(f"{folder}{one}")
    push(store, address)
    assert f"/{one}" in written


def stopping(after):
    """Told of progress, it interrupts."""
    told = []

    def tell(done, total):
        told.append(done)
        if len(told) > after:
            raise RuntimeError

    return tell


@pytest.mark.parametrize("after", [0, 3])
def test_an_interrupted_upload_is_no_store_and_an_interrupted_download_goes_on(
    address, store, tmp_path, after, monkeypatch
):
    there, root = f"{address}/{store.path.name}", tmp_path / "root"
    with pytest.raises(StoreError):
        push(store, address, stopping(after))
    assert list_remote(address) == []
    with pytest.raises(StoreError, match="no finished store"):
        pull(there, root)
    assert not root.exists()
    push(store, address)
    with pytest.raises(StoreError):
        pull(there, root, stopping(after))
    assert not (root / store.path.name).exists()
    fs, _ = far(address, "")
    fetched, fetch = [], type(fs).cat_file

    def cat_file(self, key, *arguments, **more):
        fetched.append(key.rpartition("/")[2])
        return fetch(self, key, *arguments, **more)

    monkeypatch.setattr(type(fs), "cat_file", cat_file)
    assert tree(pull(there, root)) == tree(store.path)
    assert sum(name.startswith(("c.", "zarr")) for name in fetched) < len(store.manifest.objects)


def test_damage_here_or_on_the_way_is_seen(address, store, tmp_path):
    push(store, address)
    fs, key = far(address, object_key("test", "features", 0))
    data = bytearray(fs.cat_file(key))
    data[len(data) // 2] ^= 1
    for content in (data, data[:-1], None):
        fs.rm(key) if content is None else fs.pipe_file(key, bytes(content))
        with pytest.raises(StoreError, match="is missing, or is not what its manifest says"):
            pull(f"{address}/{store.path.name}", tmp_path / "root")
    assert not (tmp_path / "root" / store.path.name).exists()
    other = build(tmp_path / "other" / "toy--vit--v1--abcdef0123")
    victim = other.path / object_key("train", "features", 0)
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match="damaged"):
        push(other, address)
    assert [summary.path.name for summary in list_remote(address)] == [store.path.name]


def test_another_store_of_the_name_stays_and_the_one_that_is_wanted_is_pulled(address, store, tmp_path):
    push(store, address)
    other = build(tmp_path / "other" / store.path.name, toy_spec(precision="fp16"))
    with pytest.raises(StoreError, match="Another store of this name is there"):
        push(other, address)
    with pytest.raises(StoreError, match="is here already"):
        pull(f"{address}/{store.path.name}", other.path.parent)
    read_everything(other)
    path = pull_wanted(address, tmp_path / "root", "toy", {"views.count": store.spec.views["count"]})
    assert path.name == store.path.name
    with pytest.raises(FingerprintMismatch, match=r"views\.count: asked for 99"):
        pull_wanted(address, tmp_path / "root", "toy", {"views.count": 99})
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


def test_what_is_an_address_and_what_cannot_be_reached(store):
    assert is_address("s3://bucket/folder")
    assert not any(map(is_address, ("cache", "/abs", "C:\\x", "a/b:c", "")))
    for address, words in (("nowhere://x", "no address|needs a library"), ("gs://b/x", "gcs|failed|refused|no such")):
        with pytest.raises((StoreError, UsageError), match=words) as refused:
            push(store, address)
        assert refused.value.remedy
