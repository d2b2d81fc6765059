"""Two writers of one store: one works, the other is told who does, or waits; and the dead hold nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from scenes import ROWS, SCENES, files
from toy_store import open_writer
from yard import Yard

from tosca_cache.store import Part, StoreBusy
from tosca_cache.store.claims import wait_until_free
from tosca_cache.store.leftovers import busy

SLOW = """
import sys, time
from pathlib import Path
from scenes import ARRAYS, SCENES
from toy_store import publish
with SCENES["plain"].open(Path(sys.argv[1])) as writer:
    for shard in writer.pending():
        publish(writer, shard, ARRAYS)
        print("published", flush=True)
        time.sleep(float(sys.argv[2]))
    if sys.argv[3:]:
        writer.finish({})
"""


def start(path, pause, *finish):
    """A writer in a process of its own, which has just published its first shard."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SLOW, path, str(pause), *finish]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "published\n"
    return process


def test_who_holds_it_is_said_until_it_is_killed_and_then_the_next_goes_on(whole, tmp_path):
    path = tmp_path / "s"
    process = start(path, 60)
    said = f"process {process.pid} on {socket.gethostname()}, since 20"
    with pytest.raises(StoreBusy, match=said):
        SCENES["plain"].make(path)
    waited = threading.Thread(target=wait_until_free, args=(path, None, 0.02))
    waited.start()
    waited.join(0.2)
    assert waited.is_alive() and said in busy(path)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    waited.join(30)
    assert not waited.is_alive() and busy(path) is None
    with SCENES["plain"].open(path) as writer:
        assert writer.done_rows == 3
    SCENES["plain"].make(path)
    assert files(path) == whole["plain"]


def test_waiting_ends_with_the_writer_and_parts_do_not_wait_for_each_other(tmp_path):
    with open_writer(tmp_path / "s", part=Part(3, 1)):
        wait_until_free(tmp_path / "s", Part(3, 2))
        waited = threading.Thread(target=wait_until_free, args=(tmp_path / "s", None, 0.02))
        waited.start()
        waited.join(0.1)
        assert waited.is_alive()
    waited.join(30)
    assert not waited.is_alive()


@pytest.mark.parametrize("dead", ["killed", "another host"])
def test_the_lock_of_the_dead_is_taken_over(dead, whole, tmp_path):
    path, lock = tmp_path / "s", tmp_path / ".s.lock"
    if dead == "killed":
        with Yard() as yard:
            assert yard.run(scene="plain", path=path, root=tmp_path, die=[100, "before"]) == -signal.SIGKILL
        assert json.loads(lock.read_text())["host"] == socket.gethostname()
    else:
        lock.write_text(json.dumps({"pid": 1, "host": "elsewhere", "since": "2020-01-01T00:00:00+00:00"}))
    assert busy(path) is None
    wait_until_free(path, None)
    SCENES["plain"].make(path)
    assert files(path) == whole["plain"]
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


def test_many_that_come_at_once_make_one_store(whole, tmp_path):
    """Of writers that begin together one works; the others are refused or find it finished, and nothing is made twice."""
    yards = [Yard() for _ in range(3)]
    for _ in range(3):
        for yard in yards:
            yard.start(scene="plain", path=tmp_path / "s")
        assert {yard.wait() for yard in yards} <= {0, 1}
    for yard in yards:
        yard.__exit__()
    assert files(tmp_path / "s") == whole["plain"]
    assert [file.name for file in tmp_path.iterdir()] == ["s"] and sum(ROWS.values()) == 7
