"""Fetching, and doing without the remote side: what is read is what the manifest lists, or nothing is."""

import os
import shutil

import pytest
from disk_waits import without_waiting
from toy_store import build, open_writer, read_everything, toy_spec, tree

from tosca_cache.errors import StoreError, ToscaWarning
from tosca_cache.store import find_store, list_stores, open_store
from tosca_cache.store.remote import Unreachable, delete_store, fetch, local_path, local_root, mirror_of, settle, sizes
from tosca_cache.store.remote.access import Access

SMALL = {"rows": {"train": 9, "test": 4}, "shard_rows": 5}


@pytest.fixture(scope="session")
def uploaded(tmp_path_factory):
    """What is left of building the small store `s`: (its folder here, its remote objects); never changed."""
    with pytest.MonkeyPatch.context() as patch:
        without_waiting(patch)
        patch.setenv("TOSCA_CACHE_HOME", str(tmp_path_factory.mktemp("uploaded")))
        store = build(local_path(f"memory://uploaded-{os.getpid()}/s"), **SMALL)
        far = Access(mirror_of(store.path.parent), 1)
        return store.path, {key: far.read(key, 0, size) for key, size in far.objects("").items()}


@pytest.fixture
def far(uploaded, memory):
    """A way to the objects of a remote root with the small store `s`, which was built on the first machine."""
    folder, objects = uploaded
    shutil.copytree(folder, local_path(f"{memory}/s"))
    far = Access(mirror_of(local_root(memory)), 1)
    for key, data in objects.items():
        far.write(key, data)
    return far


@pytest.fixture
def reads(monkeypatch):
    """Keys of the objects that are read from now on."""
    keys, read = [], Access.read

    def noting(self, key, start, stop):
        keys.append(key)
        return read(self, key, start, stop)

    monkeypatch.setattr(Access, "read", noting)
    return keys


@pytest.fixture
def offline(monkeypatch):
    """Cuts the network: ()."""

    def cut():
        def unreachable(self, key, *_):
            raise Unreachable("The server cannot be reached.", where=self.where(key))

        monkeypatch.setattr(Access, "_do", unreachable)

    return cut


def test_a_complete_mirror_is_only_compared(far, memory, machine, reads):
    machine("second")
    open_store(f"{memory}/s")
    assert len(reads) == len(set(reads)) > 20
    reads.clear()
    open_store(f"{memory}/s")
    assert reads == ["s/manifest.json"]
    reads.clear()
    assert [store.path.name for store in list_stores(memory)] == ["s"]
    assert reads == ["s/manifest.json"]


def test_a_store_is_found_by_what_it_is(far, memory, machine):
    machine("second")
    found = find_store(memory, "toy", {"backbone.name": "nano"})
    assert found.path == local_path(f"{memory}/s")
    with pytest.raises(StoreError) as caught:
        find_store(memory, "other")
    assert f"where: {memory}" in str(caught.value)
    assert f"--root {memory}" in str(caught.value)


def test_an_interrupted_fetch_goes_on(far, memory, machine, reads, monkeypatch):
    machine("second")
    with monkeypatch.context() as patch:
        kept, fetch_object = [], fetch.fetch_object

        def some(access, key, record, target):
            if len(kept) == 10:
                raise KeyboardInterrupt
            kept.append(key)
            return fetch_object(access, key, record, target)

        patch.setattr(fetch, "fetch_object", some)
        with pytest.raises(KeyboardInterrupt):
            open_store(f"{memory}/s")
    assert not local_path(f"{memory}/s").exists()
    assert list_stores(local_root(memory))[0].path == local_path(f"{memory}/s")
    waiting = local_root(memory) / ".s.fetching"
    there = {str(file.relative_to(waiting)) for file in waiting.rglob("c.*") if not file.name.startswith(".")}
    damaged = sorted(there)[0]
    (waiting / damaged).write_bytes(bytes((waiting / damaged).stat().st_size))
    reads.clear()
    store = open_store(f"{memory}/s")
    assert not {f"s/{key}" for key in there - {damaged}} & set(reads)
    assert f"s/{damaged}" in reads
    machine("first")
    assert tree(store.path) == tree(open_store(f"{memory}/s").path)


@pytest.mark.parametrize("key", ["s/train/features/c.0.0.0", "s/test/labels/c.0", "s/train/paths/zarr.json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone", "longer"])
def test_a_remote_object_that_is_not_the_listed_one_is_refused(far, memory, machine, key, how):
    data = far.read(key, 0, 1 << 20)
    far.remove(key)
    if how != "gone":
        far.write(key, {"flipped": data[:-1] + bytes([data[-1] ^ 4]), "cut": data[:-1], "longer": data + b"x"}[how])
    machine("second")
    with pytest.raises(StoreError) as caught:
        open_store(f"{memory}/s")
    assert f"{memory}/{key}" in str(caught.value)
    assert "The remote store is damaged" in str(caught.value)
    assert not local_path(f"{memory}/s").exists()


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\x00", b"[" * 100_000, b'{"format": 1}'])
def test_a_remote_manifest_that_is_garbage_is_refused(far, memory, machine, data):
    far.write("s/manifest.json", data)
    far.write("t/plan.json", data)
    machine("second")
    assert {store.path.name: store.state for store in list_stores(memory)} == {"s": "damaged", "t.partial": "damaged"}
    with pytest.raises(StoreError, match="The remote store is damaged"):
        open_store(f"{memory}/s")
    with pytest.raises(StoreError, match="restart"):
        open_writer(local_path(f"{memory}/t"))


def test_names_that_lead_elsewhere_are_no_stores(far, memory, tmp_path):
    manifest = far.read("s/manifest.json", 0, 1 << 20)
    for name in ("..", "../../x", "a b", "x\ny", ".hidden", "x.partial"):
        far.write(f"{name}/manifest.json", manifest)
    far.write("u/plan.json", b"{}")
    far.write("u/done/../../../x.json", b"{}")
    before = {path for path in tmp_path.parent.rglob("*") if "first" not in path.parts}
    assert [store.path.name for store in list_stores(memory)] == ["s", "u.partial"]
    assert {path for path in tmp_path.parent.rglob("*") if "first" not in path.parts} == before


def test_done_objects_of_shards_that_there_are_not_count_for_nothing(far, memory, machine):
    with open_writer(local_path(f"{memory}/t")):
        pass
    for name in ("train-99.json", "train-0.json", "other-0.json", "train--1.json", "train-0.json.json"):
        far.write(f"t/done/{name}", b'{"shard": {"split": "train"}, "crc32": 0}\n')
    machine("second")
    with pytest.warns(ToscaWarning, match="Shard 0 of split train"), open_writer(local_path(f"{memory}/t")) as writer:
        assert len(writer.pending()) == 8


def test_a_store_that_was_replaced_is_fetched_anew(far, memory, machine, tmp_path):
    machine("second")
    before = tree(open_store(f"{memory}/s").path)
    machine("first")
    delete_store(local_root(memory), "s")
    shutil.rmtree(local_path(f"{memory}/s"))
    build(local_path(f"{memory}/s"), bad=[("train", 3)], **SMALL)
    machine("second")
    store = open_store(f"{memory}/s")
    assert tree(store.path) != before
    read_everything(store)
    machine("first")
    assert tree(open_store(f"{memory}/s").path) == tree(local_path(f"{memory}/s"))


def test_a_complete_mirror_does_without_the_remote_side(far, memory, machine, offline):
    machine("second")
    expected = tree(open_store(f"{memory}/s").path)
    offline()
    with pytest.warns(ToscaWarning, match="cannot be reached"):
        store = open_store(f"{memory}/s")
    assert tree(store.path) == expected
    with pytest.warns(ToscaWarning, match="Listing what"):
        assert [summary.path for summary in list_stores(memory)] == [store.path]
    with pytest.warns(ToscaWarning):
        assert find_store(memory, "toy").path == store.path
    with pytest.raises(StoreError, match="cannot be reached"):
        settle(store.path)
    machine("third")
    for look in (lambda: open_store(f"{memory}/s"), lambda: list_stores(memory), lambda: find_store(memory, "toy")):
        with pytest.raises(Unreachable, match="cannot be reached"):
            look()


def test_a_removed_store_is_not_read_from_its_copy_but_can_be_uploaded_again(far, memory, machine, objects):
    before = objects(memory)
    assert sizes(local_root(memory)) == {"s": sum(map(len, before.values()))}
    assert delete_store(local_root(memory), "s.partial") == 0
    assert delete_store(local_root(memory), "s") == sum(map(len, before.values()))
    assert objects(memory) == {}
    assert sizes(local_root(memory)) == {}
    assert list_stores(memory) == []
    with pytest.raises(StoreError, match="not at its remote root any more"):
        open_store(f"{memory}/s")
    settle(local_path(f"{memory}/s"))
    assert objects(memory) == before
    with pytest.raises(StoreError, match="no name of a store"):
        delete_store(local_root(memory), "../x")
    with pytest.raises(StoreError, match="mirrors no remote root"):
        sizes(local_root(memory).parent)


def test_there_must_be_room_for_a_copy(far, memory, machine, monkeypatch):
    machine("second")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(StoreError, match="TOSCA_CACHE_HOME"):
        open_store(f"{memory}/s")


def test_reading_makes_nothing_there(far, memory, machine, objects):
    before = objects(memory)
    machine("second")
    open_store(f"{memory}/s")
    list_stores(memory)
    with pytest.raises(StoreError, match="does not exist"):
        open_store(f"{memory}/nothing")
    assert objects(memory) == before
    assert toy_spec(SMALL["rows"]) == open_store(f"{memory}/s").spec
