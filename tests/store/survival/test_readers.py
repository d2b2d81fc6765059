"""Readers beside a writer that is killed and goes on: they never wait, and see no store, an unfinished or the whole one."""

import json
import random
import signal
import time

import deeds
import pytest
from campaign import times
from commands import Fork
from scenes import SCENES
from steps import Observer, watched
from toy_store import read_everything, wait_until
from trees import everything

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store

SEEN_BEFORE = ("store is unfinished", "feature store does not exist.")
ALLOWED = ("whole", "finished", "unfinished", "found", "This store is unfinished", "This feature store does not exist")


@pytest.mark.campaign
def test_writers_that_are_killed_at_any_moment_beside_a_reader(whole, tmp_path):
    """Each store's writer is killed so many times, then it may finish; the reader looks until all of them have."""
    generator, root, said, stop = random.Random(3), tmp_path / "root", tmp_path / "said", tmp_path / "stop"
    reader = Fork(deeds.look, root, said, stop)

    def looks():
        return json.loads(said.read_text()) if said.exists() else {}

    def seen(what):
        wait_until(lambda: looks().get(what) or looks().get("problem"))

    try:
        first = Fork(deeds.dying, tmp_path, 150, deeds.make, "plain", root / "0")
        assert first.wait() == -signal.SIGKILL
        seen("unfinished")
        for path, name in ((root / str(k), name) for k, name in enumerate(("plain", "skipped", "parts"))):
            done = 0
            for left in reversed(range(times(4, 40))):
                writer = Fork(deeds.make, name, path)
                if left:
                    time.sleep(generator.uniform(0, 0.3))
                    assert writer.kill() in (0, -signal.SIGKILL)
                assert left or writer.wait() == 0
                found = sum(store.done_rows for store in list_stores(root) if path.name in store.path.name)
                assert path.exists() or found >= done, "what was done is done no more"
                done = found
            assert everything(path) == whole(name)
        assert {file.name for file in root.iterdir() if not file.name.endswith("lock")} == {"0", "1", "2"}
        seen("finished")
    finally:
        stop.touch()
    ended = reader.wait()
    assert "problem" not in looks(), looks()
    assert ended == 0
    assert all(look.startswith(ALLOWED) for look in looks()), looks()
    assert looks().keys() >= {"unfinished", "finished"}


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
