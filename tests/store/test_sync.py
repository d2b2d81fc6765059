"""Copies of stores: whole and checked wherever they arrive, gone on with after an interruption, never half a store."""

import fsspec
import pytest
from toy_store import build, read_everything, toy_spec
from trees import everything

from tosca_cache.errors import FingerprintMismatch, StoreError, UsageError
from tosca_cache.store import open_store
from tosca_cache.store.sync import is_address, list_remote, pull, pull_wanted, push

NAME, OBJECT = "toy--vit--v1--0123456789", "train/features/c.0.0.0"


@pytest.fixture(params=["memory", "file"])
def address(request, tmp_path):
    """An empty place to push to."""
    yield f"{request.param}://{tmp_path}/far" if request.param == "file" else f"memory://{tmp_path.name}"
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def store(tmp_path):
    return build(tmp_path / "near" / NAME)


def stopping(after):
    """Told of progress, it interrupts."""
    told = []

    def tell(done, total):
        told.append(done)
        if len(told) > after:
            raise RuntimeError

    return tell


def test_there_and_back(address, store, tmp_path):
    told, size, there = [], store.manifest.size, f"{address}/{NAME}"
    assert push(store, address, lambda *counts: told.append(counts)) == there
    assert told[-1] == (size, size) and told == sorted(told)
    (summary,) = list_remote(address)
    rows = {split: store.rows(split) for split in ("train", "test")}
    assert (summary.path.name, summary.spec, summary.rows) == (NAME, store.spec, rows)
    path = pull(there, tmp_path / "root", lambda *counts: told.append(counts))
    assert everything(path) == everything(store.path)
    assert told[-1] == (size, size) and len(told) == 2 * len(store.manifest.objects)
    read_everything(open_store(path))
    assert pull(f"{there}/", tmp_path / "root") == path, "it is there"
    assert [entry.name for entry in (tmp_path / "root").iterdir()] == [NAME]


@pytest.mark.parametrize("after", [0, 3])
def test_an_interrupted_upload_is_no_store_and_what_is_there_is_not_copied_again(address, store, tmp_path, after):
    there, root = f"{address}/{NAME}", tmp_path / "root"
    with pytest.raises(StoreError):
        push(store, address, stopping(after))
    assert list_remote(address) == []
    with pytest.raises(StoreError, match="no finished store"):
        pull(there, root)
    assert not root.exists()
    fs, base = fsspec.core.url_to_fs(there)
    before = {key: fs.modified(key) for key in fs.find(base)}
    push(store, address)
    assert before and before == {key: fs.modified(key) for key in before}
    with pytest.raises(StoreError):
        pull(there, root, stopping(after))
    assert [path.name for path in root.iterdir()] == [f".{NAME}.fetching"]
    fetched = {path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    assert everything(pull(there, root)) == everything(store.path)
    assert fetched and fetched <= {path.stat().st_mtime_ns for path in (root / NAME).rglob("*")}


def test_damage_here_or_on_the_way_is_seen(address, store, tmp_path):
    push(store, address)
    fs, key = fsspec.core.url_to_fs(f"{address}/{NAME}/{OBJECT}")
    data = fs.cat_file(key)
    for content in (data[:-1] + b"?", data[:-1], None):
        fs.rm(key) if content is None else fs.pipe_file(key, content)
        with pytest.raises(StoreError, match="is missing, or is not what its manifest says"):
            pull(f"{address}/{NAME}", tmp_path / "root")
    assert not (tmp_path / "root" / NAME).exists()
    other = build(tmp_path / "other" / "toy--vit--v1--abcdef0123")
    (other.path / OBJECT).write_bytes(data[:-1] + b"?")
    with pytest.raises(StoreError, match="damaged"):
        push(other, address)
    assert [summary.path.name for summary in list_remote(address)] == [NAME]


def test_another_store_of_the_name_stays_and_the_one_that_is_wanted_is_pulled(address, store, tmp_path):
    push(store, address)
    other = build(tmp_path / "other" / NAME, toy_spec(precision="fp16"))
    with pytest.raises(StoreError, match="Another store of this name is there"):
        push(other, address)
    with pytest.raises(StoreError, match="is here already"):
        pull(f"{address}/{NAME}", other.path.parent)
    read_everything(other)
    assert pull_wanted(address, tmp_path / "root", "toy", {"views.count": 2}).name == NAME
    with pytest.raises(FingerprintMismatch, match=r"views\.count: asked for 99"):
        pull_wanted(address, tmp_path / "root", "toy", {"views.count": 99})


def test_names_from_the_other_side_lead_nowhere_else(address, store, tmp_path):
    push(store, address)
    fs, base = fsspec.core.url_to_fs(address)
    fs.makedirs(f"{base}/.hidden", exist_ok=True)
    fs.copy(f"{base}/{NAME}/manifest.json", f"{base}/.hidden/manifest.json")
    assert [summary.path.name for summary in list_remote(address)] == [NAME]
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
