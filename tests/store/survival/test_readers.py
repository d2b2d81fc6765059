"""Readers between the steps of a writer, and after it was killed: they see no store, an unfinished or the whole one."""

import random
import signal
import time

import pytest
import scenes
from campaign import times
from commands import Fork
from scenes import SCENES
from steps import Observer, watched
from toy_store import read_everything
from trees import everything

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store

ALLOWED = {"whole", "finished", "unfinished", "This store is unfinished", "This feature store does not exist."}


def look(path):
    """What readers see of a store and its neighbours: the store whole, or why not; how each is listed."""
    seen = {found.state for found in list_stores(path.parent)}
    try:
        read_everything(open_store(path))
        return seen | {"whole"}
    except StoreError as error:
        return seen | {error.problem.split(":")[0].split(",")[0]}


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["plain", "skipped", "parts"])
def test_writers_that_are_killed_at_any_moment(name, whole, tmp_path):
    """A store's writer is killed so many times, then it may finish; whoever looks in between sees no half of a store."""
    generator, path, done = random.Random(name), tmp_path / "root" / "s", 0
    for left in reversed(range(times(4, 40))):
        writer = Fork(scenes.make, name, path)
        if left:
            time.sleep(generator.uniform(0, 0.3))
            assert writer.kill() in (0, -signal.SIGKILL)
        assert left or writer.wait() == 0
        assert look(path) <= ALLOWED
        found = sum(store.done_rows for store in list_stores(path.parent))
        assert path.exists() or found >= done, "what was done is done no more"
        done = found
    assert everything(path) == whole(name)
    assert [file.name for file in path.parent.iterdir()] == ["s"]


def test_a_reader_that_looks_between_any_two_steps_of_finishing(tmp_path):
    """The writer finishes just when a reader has begun to look: it finds the store whole, or says that it is unfinished."""

    seen = set()

    class Reader(Observer):
        def after(self, step):
            seen.update(look(tmp_path / "s"))

    with watched(tmp_path, Reader()):
        SCENES["skipped"].make(tmp_path / "s")
    assert seen == ALLOWED
