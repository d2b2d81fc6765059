"""Two writers of one store: one works, the other is told who does, or waits; and the dead hold nothing."""

import json
import re
import signal
import socket
import threading

import pytest
from scenes import ROWS, SCENES, files
from toy_store import BAD, build, open_writer, tree, wait_until

from tosca_cache.store import Part, StoreBusy
from tosca_cache.store.locks import busy, wait_until_free


def test_who_holds_it_is_said_until_it_is_killed_and_then_the_next_goes_on(yard, skipping, tmp_path):
    path = tmp_path / "s"
    pid = yard.start(deed="publish_one_and_stay", **{"with": [path, tmp_path / "ready"]})
    wait_until((tmp_path / "ready").exists)
    said = f"process {pid} on {socket.gethostname()}, since 20"
    with pytest.raises(StoreBusy, match=re.escape(said)):
        build(path)
    waited = threading.Thread(target=wait_until_free, args=(path, None, 0.02), daemon=True)
    waited.start()
    waited.join(0.2)
    assert waited.is_alive() and said in busy(path)
    yard.kill(pid)
    wait_until(lambda: not waited.is_alive())
    assert busy(path) is None
    with open_writer(path) as writer:
        assert writer.done_rows == 14
    assert tree(build(path, bad=BAD).path) == tree(skipping.path)


def test_waiting_ends_with_the_writer_and_parts_do_not_wait_for_each_other(tmp_path):
    with open_writer(tmp_path / "s", part=Part(3, 1)):
        wait_until_free(tmp_path / "s", Part(3, 2))
        waited = threading.Thread(target=wait_until_free, args=(tmp_path / "s", None, 0.02), daemon=True)
        waited.start()
        waited.join(0.1)
        assert waited.is_alive()
    wait_until(lambda: not waited.is_alive())


@pytest.mark.parametrize("dead", ["killed", "another host"])
def test_the_lock_of_the_dead_is_taken_over(dead, yard, whole, tmp_path):
    path, lock = tmp_path / "s", tmp_path / ".s.lock"
    if dead == "killed":
        assert yard.run(scene="plain", path=path, root=tmp_path, die=[100, "before"]) == -signal.SIGKILL
        assert json.loads(lock.read_text())["host"] == socket.gethostname()
    else:
        lock.write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "2020-01-01T00:00:00+00:00"}))
    assert busy(path) is None
    wait_until_free(path, None)
    SCENES["plain"].make(path)
    assert files(path) == whole["plain"]
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


def test_many_that_come_at_once_make_one_store(yard, whole, tmp_path):
    """Of writers that begin together one works; the others are refused or find it finished, and nothing is made twice."""
    for _ in range(3):
        writers = [yard.start(scene="plain", path=tmp_path / "s") for _ in range(3)]
        assert {yard.wait(writer) for writer in writers} <= {0, 1}
    assert files(tmp_path / "s") == whole["plain"]
    assert [file.name for file in tmp_path.iterdir()] == ["s"] and sum(ROWS.values()) == 7
