"""Several writers of one store: one works, or each makes a part; others are told who does, and the dead hold nothing."""

import os
import random
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from campaign import times
from commands import Fork
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_store import BAD, build, hastily, make, open_writer, publish, publish_one_and_stay
from trees import everything

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.store import Part, Shard, StoreBusy
from tosca_cache.store.locks import exclusive


def refused(path, **how):
    """What a second writer is told."""
    with pytest.raises(StoreBusy, match=rf"process {os.getpid()} on .* since 20") as raised:
        open_writer(path, **how)
    return str(raised.value)


def test_who_holds_it_is_said_until_it_is_killed_and_then_the_next_goes_on(whole, tmp_path):
    """Even if its child lives: a data loader's forked worker may outlive its parent for a while."""
    path = tmp_path / "s"
    writer = Fork(publish_one_and_stay, path)
    writer.wait_until(lambda: writer.output.endswith("\n"))
    child = int(writer.output)
    try:
        with pytest.raises(StoreBusy, match=re.escape(f"process {writer.pid} on {socket.gethostname()}, since 20")):
            build(path)
        writer.kill()
        os.kill(child, 0)
        with open_writer(path) as writer:
            assert writer.done_rows == 14
    finally:
        os.kill(child, signal.SIGKILL)
    assert everything(build(path, bad=BAD).path) == everything(whole("skipping").path)


@pytest.mark.parametrize("said", [b'{"pid": 1, "host": "elsewhere", "since": "2020-01-01T00:00:00+00:00"}', b"\xff{"])
def test_a_dead_owner_holds_nothing(whole, tmp_path, said):
    for name in (".s.lock", ".s.part-1-of-2.lock"):
        (tmp_path / name).write_bytes(said)
    make("plain", tmp_path / "s")
    assert everything(tmp_path / "s") == everything(whole("plain").path)
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


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
        writers = [Fork(hastily, partial(make, "plain", tmp_path / "s")) for _ in range(3)]
        assert {writer.wait() for writer in writers} <= {0, 1}
    assert everything(tmp_path / "s") == everything(whole("plain").path)
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


@pytest.mark.campaign
@settings(max_examples=times(25, 200))
@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 60))
def test_every_shard_belongs_to_one_part(count, train, test):
    shards = [Shard(split, k, k, k + 1) for split, n in (("train", train), ("test", test)) for k in range(n)]
    parts = [Part(count, index).of(shards) for index in range(1, count + 1)]
    assert sorted(shard for part in parts for shard in part) == sorted(shards)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["5/4", "x", "", "1", "1/0", "-1/4", "1/4/2", "1.0/4", "²/4"])
def test_what_is_no_part(text):
    with pytest.raises(UsageError, match=r"i from 1 to n"):
        Part.parse(text)


def test_parts_of_any_number_in_any_order_are_one_store(whole, tmp_path):
    with open_writer(tmp_path / "s", part=Part(2, 1)) as writer:
        for shard in writer.pending()[:2]:
            publish(writer, shard, BAD)
    with open_writer(tmp_path / "s", part=Part(3, 1)) as writer:
        assert [shard.index for shard in writer.pending()] == [3, 1]  # of its 0, 3, 6, the first is done by part 1/2
        publish(writer, writer.pending()[0], BAD)
        for wrong, words in (
            (lambda: publish(writer, Shard("train", 1, 14, 28)), "another part"),
            (lambda: writer.finish({}), "cannot finish"),
            (lambda: open_writer(tmp_path / "s", part=Part(3, 2), restart=True), "cannot restart"),
        ):
            with pytest.raises(ValueError, match=words):
                wrong()
    for index in random.Random(0).sample(range(1, 21), 20):  # more than shards
        build(tmp_path / "s", part=Part(20, index), bad=BAD)
    with open_writer(tmp_path / "s") as writer:
        assert writer.pending() == []
    assert everything(build(tmp_path / "s").path) == everything(whole("skipping").path)
    assert [file.name for file in tmp_path.iterdir()] == ["s"]
