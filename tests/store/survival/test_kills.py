"""kill -9 of real writers at 100 random moments: the next one goes on, and the store is the same bit for bit."""

import os
import random
import signal
import time

import pytest
from scenes import files
from yard import Yard

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store

KILLS = 100


@pytest.fixture(scope="module")
def yard():
    with Yard() as started:
        yield started


def seconds_of(yard, name, folder):
    """What a whole run takes, but no more than on a machine that has time for it."""
    begun = time.monotonic()
    assert yard.run(scene=name, path=folder / "timed") == 0
    return min(time.monotonic() - begun, 0.3)


def check_looks(path, expected):
    """What a reader sees after a death: an unfinished store or none, or the whole one."""
    if path.exists():
        assert files(path) == expected
    else:
        with pytest.raises(StoreError, match=r"unfinished|does not exist"):
            open_store(path)


def test_killed_at_100_random_moments(yard, whole, tmp_path):
    generator, kills, stores = random.Random(6), 0, 0
    names = ["plain", "skipped", "parts"]
    seconds = {name: seconds_of(yard, name, tmp_path / name) for name in names}
    while kills < KILLS:
        name, path, done = names[stores % 3], tmp_path / f"root{stores}" / "s", 0
        stores += 1
        while True:
            pid = yard.start(scene=name, path=path)
            if generator.random() < 0.85:
                time.sleep(generator.uniform(0, seconds[name]))
                os.kill(pid, signal.SIGKILL)  # nothing, if it has just ended
            status = yard.wait()
            assert status in (0, -signal.SIGKILL)
            check_looks(path, whole[name])
            if status == 0:
                break
            kills += 1
            found = sum(store.done_rows for store in list_stores(path.parent))
            assert path.exists() or found >= done, "what was done is done no more"
            done = found
        assert files(path) == whole[name]
        assert [file.name for file in path.parent.iterdir() if not file.name.endswith("lock")] == ["s"]
    assert stores >= KILLS // 10
