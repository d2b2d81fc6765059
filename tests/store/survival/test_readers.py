"""Readers beside a writer that is killed and goes on: they never wait, and see no store, an unfinished or the whole one."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from scenes import files
from yard import Yard

READER = """
import sys, time
from pathlib import Path
from scenes import files
from toy_store import read_everything
from tosca_cache.errors import StoreError
from tosca_cache.store import find_store, list_stores, open_store

path, looks, slowest = Path(sys.argv[1]), {}, 0.0
print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    begun = time.thread_time()
    try:
        store = open_store(path)
        read_everything(store)
        seen = "whole"
    except StoreError as error:
        seen = error.problem
    looks[seen] = looks.get(seen, 0) + 1
    for found in list_stores(path.parent):
        assert found.state in ("finished", "unfinished"), f"{found.path.name} looks {found.state}: {found.problem}"
        looks[found.state] = looks.get(found.state, 0) + 1
    try:
        assert find_store(path.parent, "toy").path == path
        looks["found"] = looks.get("found", 0) + 1
    except StoreError as error:
        assert "no store of toy yet" in error.problem or "unfinished" in error.problem, error.problem
    slowest = max(slowest, time.thread_time() - begun)
print(looks, flush=True)
"""
ALLOWED = ("whole", "finished", "unfinished", "found", "This store is unfinished", "This feature store does not exist")


def test_readers_see_nothing_half_written(whole, tmp_path):
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (here, here.parent, here.parents[2])))}
    generator, name = random.Random(3), "skipped"
    stop = tmp_path / "stop"
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, tmp_path / f"root{k}" / "s", stop],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for k in range(1)
    ]  # fmt: skip
    with Yard() as yard:
        assert all(reader.stdout.readline() == "ready\n" for reader in readers)
        path, until = tmp_path / "root0" / "s", time.monotonic() + 3
        while time.monotonic() < until:
            pid = yard.start(scene=name, path=path)
            time.sleep(generator.uniform(0, 0.3))
            os.kill(pid, signal.SIGKILL)
            if yard.wait() == 0:
                assert files(path) == whole[name]
                path.rename(tmp_path / f"done{time.monotonic_ns()}")
    stop.touch()
    for reader in readers:
        said, problems = reader.communicate(timeout=60)
        assert reader.returncode == 0, problems
        assert all(look.startswith(ALLOWED) for look in eval(said)), said
        assert sum(eval(said).values()) > 5
