"""Two writers of one store: one works, the other is told who does, or waits; and the dead hold nothing."""

import os
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import scenes
from commands import Fork
from scenes import SCENES
from toy_store import BAD, build, open_writer, wait_until
from trees import everything, tree

from tosca_cache.errors import StoreError
from tosca_cache.store import Part, StoreBusy
from tosca_cache.store.locks import exclusive


def refused(path, **how):
    """What a second writer is told."""
    with pytest.raises(StoreBusy, match=rf"process {os.getpid()} on .* since 20") as raised:
        open_writer(path, **how)
    return str(raised.value)


def test_who_holds_it_is_said_until_it_is_killed_and_then_the_next_goes_on(skipping, tmp_path):
    """Even if its child lives: a data loader's forked worker may outlive its parent for a while."""
    path = tmp_path / "s"
    writer = Fork(scenes.publish_one_and_stay, path, tmp_path / "ready")
    wait_until((tmp_path / "ready").exists)
    child = int((tmp_path / "ready").read_text())
    try:
        said = f"process {writer.pid} on {socket.gethostname()}, since 20"
        with pytest.raises(StoreBusy, match=re.escape(said)):
            build(path)
        writer.kill()
        os.kill(child, 0)
        with open_writer(path) as writer:
            assert writer.done_rows == 14
    finally:
        os.kill(child, signal.SIGKILL)
    assert tree(build(path, bad=BAD).path) == tree(skipping.path)


def test_a_dead_owner_holds_nothing(whole, tmp_path):
    for name, said in (
        ("s", b'{"pid": 1, "host": "elsewhere", "since": "2020-01-01T00:00:00+00:00"}'),
        ("t", b"\xff{"),
    ):
        (tmp_path / f".{name}.lock").write_bytes(said)
        (tmp_path / f".{name}.part-1-of-2.lock").write_bytes(said)
        SCENES["plain"].make(tmp_path / name)
        assert everything(tmp_path / name) == whole("plain")
    assert {file.name for file in tmp_path.iterdir()} == {"s", "t"}


def test_a_writer_keeps_all_others_away_and_parts_of_one_number_go_together(tmp_path):
    path = tmp_path / "s"
    with open_writer(path):
        for how in ({}, {"restart": True}, {"part": Part(3, 1)}):
            assert "is writing this store" in refused(path, **how)
    with exclusive(path, Part(3, 0)):  # who shares parts out lets them be written
        open_writer(path, part=Part(3, 2)).close()
        assert "writing 3 parts of this store" in refused(path)
        with pytest.raises(StoreBusy), exclusive(path, Part(3, 0)):
            pass
    with open_writer(path, part=Part(3, 1)), open_writer(path, part=Part(3, 3)):
        assert "part 3/3 of this store" in refused(path, part=Part(3, 3))
        for how in ({}, {"restart": True}, {"part": Part(4, 4)}):
            assert "part 1/3 of this store: process" in refused(path, **how)
    open_writer(path, part=Part(4, 4)).close()
    assert [file.name for file in tmp_path.iterdir()] == ["s.partial"]


def test_many_takers_of_one_lock_never_hold_it_together(tmp_path):
    """Releasing removes the file, so a taker must not be left with a lock on a removed one."""
    owners = []

    def take(number):
        try:
            with exclusive(tmp_path / "s"):
                owners.append(number)
                alone = len(owners) == 1
                time.sleep(0.0005)
                owners.remove(number)
        except StoreError:
            return 0
        assert alone
        return 1

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(take, range(80))) > 0


def test_many_that_come_at_once_make_one_store(whole, tmp_path):
    """Of writers that begin together one works; the others are refused or find it finished, and nothing is made twice."""
    for _ in range(3):
        writers = [Fork(scenes.make, "plain", tmp_path / "s") for _ in range(3)]
        assert {writer.wait() for writer in writers} <= {0, 1}
    assert everything(tmp_path / "s") == whole("plain")
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
