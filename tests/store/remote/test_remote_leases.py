"""Of two machines one writes, and the other is told which."""

import json
import socket
from datetime import timedelta

import pytest
from toy_store import open_writer, publish, toy_arrays, wait_until

from tosca_cache.errors import StoreError
from tosca_cache.store import Part, StoreBusy
from tosca_cache.store.remote import delete_store, lease, local_path, local_root, mirror_of
from tosca_cache.store.remote.access import Access
from tosca_cache.store.remote.lease import Lease


@pytest.fixture
def far(memory):
    """A way to the objects of an empty remote root."""
    return Access(mirror_of(local_root(memory)), 1)


def grow_older(far, seconds, key=".s.lock"):
    """The server says that an object was written so much earlier."""
    far._fs.store[far._path(key)].modified -= timedelta(seconds=seconds)


def said(far, key=".s.lock"):
    return json.loads(far.read(key, 0, 9999))


def test_the_second_is_told_who_writes(memory, machine, far):
    writer = open_writer(local_path(f"{memory}/s"))
    facts = said(far)
    assert facts["host"] == socket.gethostname()
    machine("second")
    with pytest.raises(StoreBusy) as caught:
        open_writer(local_path(f"{memory}/s"))
    assert f"process {facts['pid']} on {facts['host']}, since {facts['since']}" in str(caught.value)
    assert f"{memory}/s" in str(caught.value)
    with pytest.raises(StoreBusy):
        delete_store(local_root(memory), "s")
    writer.close()
    open_writer(local_path(f"{memory}/s")).close()
    assert far.children("") == {"s": None}


def test_parts_exclude_what_they_must(memory, machine, far):
    with open_writer(local_path(f"{memory}/s"), part=Part(2, 1)):
        machine("second")
        for part in (None, Part(2, 1), Part(3, 2)):
            with pytest.raises(StoreBusy, match="part 1/2"):
                open_writer(local_path(f"{memory}/s"), part=part)
        open_writer(local_path(f"{memory}/s"), part=Part(2, 2)).close()
    with open_writer(local_path(f"{memory}/s")):
        machine("first")
        with pytest.raises(StoreBusy):
            open_writer(local_path(f"{memory}/s"), part=Part(2, 1))
    assert far.children("") == {"s": None}


def test_a_dead_process_of_this_machine_holds_nothing(far):
    facts = {"pid": 999_999_999, "host": "here", "since": "then", "token": "x"}
    far.write(".s.lock", json.dumps(facts | {"machine": "another"}).encode())
    with pytest.raises(StoreBusy, match=r"on here, since then.*"):
        Lease.take(far, "s")
    far.write(".s.lock", json.dumps(facts | {"machine": lease.this_machine()}).encode())
    Lease.take(far, "s").release()
    assert far.children("") == {}


def test_a_lease_that_is_not_renewed_becomes_stale(far, monkeypatch):
    monkeypatch.setattr(lease, "SETTLED", 600.0)
    old = Lease.take(far, "s")
    with pytest.raises(StoreBusy):
        Lease.take(far, "s")
    grow_older(far, lease.STALE / 2)
    with pytest.raises(StoreBusy):
        Lease.take(far, "s")
    grow_older(far, lease.STALE / 2)
    new = Lease.take(far, "s")
    assert said(far)["token"] == new._token
    old.release()  # it is no longer its to remove
    assert said(far)["token"] == new._token
    new.release()


def test_a_holder_renews_and_finds_that_it_has_lost(far, monkeypatch):
    monkeypatch.setattr(lease, "SETTLED", 0.02)
    monkeypatch.setattr(lease, "RENEWED", 0.02)
    held = Lease.take(far, "s")
    before = far.modified(".s.lock")
    wait_until(lambda: far.modified(".s.lock") > before)
    held.check()
    held._over.set()
    held._thread.join()
    far.write(".s.lock", json.dumps({"pid": 7, "host": "moon", "since": "noon", "token": "other"}).encode())
    assert not held._is_mine()
    with pytest.raises(StoreError, match="process 7 on moon, since noon has it"):
        held.check()


def test_a_writer_that_has_lost_its_lease_uploads_nothing_more(memory, far, objects):
    arrays = {split: toy_arrays(split) for split in ("train", "test")}
    writer = open_writer(local_path(f"{memory}/s"))
    writer._remote.lease._lost = "process 7 on moon has it."
    with pytest.raises(StoreError, match="no longer holds the lease"), writer:
        publish(writer, writer.pending()[0], arrays)
    assert not any("/c." in key for key in objects(memory))


@pytest.mark.parametrize("said", [b"", b"[]", b"\xff", b'{"pid": "x"}', b"[" * 4000])
def test_a_lease_that_says_nothing_is_still_one(far, said):
    far.write(".s.lock", said)
    with pytest.raises(StoreBusy, match="does not say who it is"):
        Lease.take(far, "s")


def test_a_server_without_exclusive_creation_is_looked_at_first(far, monkeypatch):
    pipe_file = far._fs.pipe_file

    def old(path, data, **options):
        if options:
            raise TypeError("mode")
        pipe_file(path, data)

    monkeypatch.setattr(far._fs, "pipe_file", old)
    held = Lease.take(far, "s")
    with pytest.raises(StoreBusy):
        Lease.take(far, "s")
    held.release()
