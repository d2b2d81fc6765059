"""Real processes on one ledger: nothing runs twice, and kill -9 at any moment loses nothing that was recorded."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

import pytest
from campaign import times

from tosca_cache.sweep.ledger import DONE, OPEN, RUNNING, Ledger
from tosca_cache.sweep.ledger import file as ledger_file

# Claims in bites, writes each cell that it runs to its own file, and then each that is recorded; ends when nothing is left.
WORKER = """
import os, sys, time
from pathlib import Path
from tosca_cache.sweep.ledger import file as ledger_file
from tosca_cache.sweep.ledger import DONE, Finished, Ledger

ledger_file.MOUNTS = Path(sys.argv[6])
path, diary, bite, pause = Path(sys.argv[1]), open(sys.argv[2], "ab", buffering=0), int(sys.argv[3]), float(sys.argv[4])
with Ledger.open(path) as ledger:
    content = {"setting": {}, "seed": 1, "select": {"rows": "val"}, "store": "s", "arithmetic": 1}
    ledger.add((f"{n:064x}", content) for n in range(int(sys.argv[5])))
    wanted = [cell.address for cell in ledger.cells()]
    print("ready", flush=True)
    while taken := ledger.claim(wanted, bite):
        for address in taken:
            diary.write(f"run {address}\\n".encode())
            time.sleep(pause)
        said = [(address, {"score": int(address, 16) / 7, "by": os.getpid()}) for address in taken]
        recorded = ledger.record(Finished(address, DONE, result) for address, result in said)
        diary.write("".join(f"recorded {address} {os.getpid()}\\n" for address in taken).encode())
        assert recorded == len(taken), recorded
"""


def start(path, diary, *, bite, pause, cells, mounts=ledger_file.MOUNTS):
    command = [sys.executable, "-c", WORKER, path, diary, str(bite), str(pause), str(cells), mounts]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def entries(diary, word):
    """What a worker wrote, without a line that its death cut short."""
    lines = diary.read_text().splitlines(keepends=True) if diary.exists() else []
    return [line.split()[1:] for line in lines if line.startswith(word + " ") and line.endswith("\n")]


def is_sound(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_four_processes_that_begin_together_share_a_new_ledger(tmp_path):
    path, cells = tmp_path / "ledger", 300
    diaries = [tmp_path / f"diary{number}" for number in range(4)]
    workers = [start(path, diary, bite=3, pause=0.0005, cells=cells) for diary in diaries]
    for worker in workers:
        _, errors = worker.communicate()
        assert worker.returncode == 0, errors
    runs = Counter(address for diary in diaries for (address,) in entries(diary, "run"))
    assert len(runs) == cells
    assert set(runs.values()) == {1}
    with Ledger.open(path, create=False) as ledger:
        assert ledger.counts()[DONE] == cells
        assert {cell.attempts for cell in ledger.cells()} == {1}
    assert is_sound(path)


CELLS = 2000  # far more than the users record until they are killed, so that there is always something left


@pytest.fixture(scope="module", params=["wal", "delete"])
def killed(request, tmp_path_factory):
    """A ledger whose users were killed at random moments: path, what they had recorded, how many held cells, mounts."""
    folder = tmp_path_factory.mktemp("killed")
    mounts = ledger_file.MOUNTS
    if request.param == "delete":
        mounts = folder / "mountinfo"
        mounts.write_text("27 1 254:0 / / rw,relatime - nfs server:/ rw\n")
    path = folder / "ledger"
    recorded, holders = kill_users(path, folder, mounts, kills=times(6, 60))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == (request.param,)
    return path, recorded, holders, mounts


def kill_users(path, folder, mounts, *, kills):
    generator = random.Random(1)
    recorded, holders = {}, 0
    for number in range(kills):
        diary = folder / f"diary{number}"
        worker = start(path, diary, bite=5, pause=0.02, cells=CELLS, mounts=mounts)
        if number % 6 != 5:  # the sixth dies at its beginning, perhaps
            while not entries(diary, "recorded" if number == 0 else "run"):
                assert worker.poll() is None, worker.stderr.read()
                time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.15))
        assert worker.poll() is None, worker.stderr.read()
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        recorded |= dict(entries(diary, "recorded"))
        with Ledger.open(path, read_only=True) as ledger:
            holders += len(ledger.abandoned()) > 0
            found = {cell.address: str(cell.result["by"]) for cell in ledger.cells(state=DONE)}
        assert recorded.items() <= found.items()
        assert is_sound(path)
    return recorded, holders


@pytest.mark.campaign
def test_after_kills_the_next_process_finishes_the_rest(killed, tmp_path):
    path, recorded, holders, mounts = killed
    assert holders >= 3  # otherwise the kills show nothing
    assert 0 < len(recorded) < CELLS
    worker = start(path, tmp_path / "diary", bite=100, pause=0, cells=CELLS, mounts=mounts)
    _, errors = worker.communicate()
    assert worker.returncode == 0, errors
    assert is_sound(path)
    with Ledger.open(path, create=False) as ledger:
        done = {cell.address: cell.result for cell in ledger.cells()}
        assert ledger.counts() == {OPEN: 0, RUNNING: 0, DONE: CELLS, "diverged": 0, "failed": 0}
    assert recorded.items() <= {address: str(result["by"]) for address, result in done.items()}.items()
    assert all(result["score"] == int(address, 16) / 7 for address, result in done.items())
    again = {address for (address,) in entries(tmp_path / "diary", "run")}
    assert not again & set(recorded)


SLOW = """
import sys
from pathlib import Path
from tosca_cache.sweep.ledger import owners
from tosca_cache.sweep.ledger import Ledger

owners.this_place = lambda: "another host"
ledger = Ledger.open(Path(sys.argv[1]))
content = {"setting": {}, "seed": 1, "select": {"rows": "val"}, "store": "s", "arithmetic": 1}
ledger.add([("a", content), ("b", content)])
print(json.dumps(ledger.claim(["a", "b"])), flush=True)
sys.stdin.readline()
print(json.dumps([ledger.done("a", {"score": 1.0, "by": "old"}), ledger.done("b", {"score": 1.0, "by": "old"})]))
"""


def test_an_owner_taken_for_dead_records_late(tmp_path):
    """A process on a host that stood still for longer than the stated time, and then goes on."""
    path = tmp_path / "ledger"
    command = [sys.executable, "-c", "import json" + SLOW, path]
    old = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert json.loads(old.stdout.readline()) == ["a", "b"]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE owners SET beat = beat - 1000")
    with Ledger.open(path) as new:
        assert new.claim(["a", "b"]) == ["a", "b"]
        assert new.done("a", {"score": 1.0, "by": "new"})
        output, _ = old.communicate("go on\n")
        assert json.loads(output) == [False, False]
        assert new.done("b", {"score": 1.0, "by": "new"})
        assert [cell.result["by"] for cell in new.cells()] == ["new", "new"]
    assert is_sound(path)
