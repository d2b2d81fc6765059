"""kill -9 of real writers at random moments: the next one goes on, and the store is the same bit for bit."""

import os
import random
import signal
import time

import pytest
from campaign import times
from scenes import files

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store

NAMES = ("plain", "skipped", "parts")
KILLS = times(3, 6)  # of one store, before a writer is let through


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


@pytest.mark.campaign
@pytest.mark.parametrize("name", NAMES)
def test_killed_at_random_moments(name, yard, whole, tmp_path):
    generator, seconds = random.Random(f"6 {name}"), seconds_of(yard, name, tmp_path)
    for store in range(times(1, 10)):
        path, done = tmp_path / f"root{store}" / "s", 0
        for left in reversed(range(KILLS + 1)):
            pid = yard.start(scene=name, path=path)
            if left:
                time.sleep(generator.uniform(0, seconds))
                os.kill(pid, signal.SIGKILL)  # nothing, if it has just ended
            status = yard.wait()
            assert status in ((0, -signal.SIGKILL) if left else (0,))
            check_looks(path, whole[name])
            if status == 0:
                break
            found = sum(store.done_rows for store in list_stores(path.parent))
            assert path.exists() or found >= done, "what was done is done no more"
            done = found
        assert files(path) == whole[name]
        assert [file.name for file in path.parent.iterdir() if not file.name.endswith("lock")] == ["s"]
