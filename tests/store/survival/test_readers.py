"""Readers beside a writer that is killed and goes on: they never wait, and see no store, an unfinished or the whole one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scenes import SCENES, files
from steps import Observer, watched
from toy_store import read_everything
from yard import Yard

from tosca_cache.errors import StoreError
from tosca_cache.store import catalogue, list_stores, open_store

SEEN_BEFORE = ("store is unfinished", "feature store does not exist.")
READER = """
import json, sys
from pathlib import Path
from scenes import files
from toy_store import read_everything
from tosca_cache.errors import StoreError
from tosca_cache.store import find_store, list_stores, open_store

root, looks = Path(sys.argv[1]), {}
NOT_ONE = ("no store of toy yet", "unfinished", "stores of toy fit")
print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    for path in (root / "0", root / "1", root / "2"):
        try:
            store = open_store(path)
            read_everything(store)
            seen = "whole"
        except StoreError as error:
            seen = error.problem
        looks[seen] = looks.get(seen, 0) + 1
    for found in list_stores(root):
        assert found.state in ("finished", "unfinished"), f"{found.path.name} looks {found.state}: {found.problem}"
        looks[found.state] = looks.get(found.state, 0) + 1
    try:
        assert find_store(root, "toy").path.parent == root
        looks["found"] = looks.get("found", 0) + 1
    except StoreError as error:
        assert any(text in error.problem for text in NOT_ONE), error.problem
print(json.dumps(looks), flush=True)
"""
ALLOWED = ("whole", "finished", "unfinished", "found", "This store is unfinished", "This feature store does not exist")


def test_readers_see_nothing_half_written(whole, tmp_path):
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (here, here.parent, here.parents[2])))}
    generator, name = random.Random(3), "skipped"
    stop = tmp_path / "stop"
    command = [sys.executable, "-c", READER, tmp_path / "root", stop]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    with Yard() as yard:
        assert reader.stdout.readline() == "ready\n"
        for path in (tmp_path / "root" / str(number) for number in range(3)):
            finished = False
            while not finished:
                pid = yard.start(scene=name, path=path)
                time.sleep(generator.uniform(0, 0.3))
                os.kill(pid, signal.SIGKILL)
                finished = yard.wait() == 0
            assert files(path) == whole[name]
    stop.touch()
    said, problems = reader.communicate(timeout=60)
    assert reader.returncode == 0, problems
    looks = json.loads(said)
    assert all(look.startswith(ALLOWED) for look in looks), looks
    assert looks.keys() >= {"unfinished", "finished"}


def test_a_reader_that_looks_between_any_two_steps_of_finishing(tmp_path):
    """The writer finishes just when a reader has begun to look: it finds the store whole, or says that it is unfinished."""

    class AtItsName(Observer):
        """Reads around each step, and holds a reader in the middle of its look."""

        def __init__(self, path):
            self.path, self.seen = path, set()

        def after(self, step):
            self.seen |= {found.state for found in list_stores(self.path.parent)}
            try:
                self.seen.add("whole" if read_everything(open_store(self.path)) is None else "")
            except StoreError as error:
                self.seen.add(error.problem.split(":")[0].split(",")[0])

    observer = AtItsName(tmp_path / "s")
    with watched(tmp_path, observer):
        SCENES["skipped"].make(tmp_path / "s")
    assert observer.seen == {"unfinished", "finished", "whole", *(f"This {text}" for text in SEEN_BEFORE)}


def test_a_store_that_gets_its_name_while_it_is_looked_for(tmp_path, monkeypatch):
    make, path = SCENES["plain"].make, tmp_path / "s"

    def interrupted():
        with pytest.raises(KeyboardInterrupt), watched(tmp_path, Interruption("rename", "s.partial")):
            make(path)

    def just_before(owner, name):
        """The writer gets through when a reader first calls this."""
        real = getattr(owner, name)

        def call(*arguments):
            if arguments[0].name == "s.partial":
                monkeypatch.setattr(owner, name, real)
                make(path)
            return real(*arguments)

        monkeypatch.setattr(owner, name, call)

    interrupted()
    just_before(Path, "is_dir")
    read_everything(open_store(path))
    path.rename(tmp_path / "t")
    interrupted()
    just_before(catalogue, "_unfinished")
    assert [(found.path.name, found.state) for found in list_stores(tmp_path)] == [("s", "finished"), ("t", "finished")]


class Interruption(Observer):
    """Ctrl-C before the first step of a kind with a path, and at none after it."""

    def __init__(self, kind, path):
        self.kind, self.path = kind, path

    def before(self, step):
        if (step.kind, step.path) == (self.kind, self.path):
            raise KeyboardInterrupt
