"""Faults of writing a store: the process dies, before any step or at any moment, or the disk refuses a step.

The steps are those that steps.py sees. Readers between the steps of a writer, and after it was killed, see no store, an
unfinished or the whole one.
"""

import errno
import random
import signal
import time

import pytest
import scenes
from campaign import times
from commands import Fork
from scenes import SCENES
from steps import Fault, Observer, refusal, watched
from toy_store import read_everything
from trees import everything

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store

ALLOWED = {"whole", "finished", "unfinished", "This store is unfinished", "This feature store does not exist."}


def steps_of(name, root):
    """All steps of an uninterrupted run."""
    seen = Fault()
    with watched(root, seen):
        SCENES[name].make(root / "s")
    return seen.steps


def some(steps):
    """The numbers of a few steps, or of all in `make test-long`."""
    return times(sorted(random.Random(0).sample(range(len(steps)), 8)), range(len(steps)))


def gone_on_with(root, expected, at):
    """The next writer makes of what is left what an uninterrupted run makes, and leaves nothing else."""
    SCENES["plain"].make(root / "s")
    assert everything(root / "s") == expected, at
    assert {file.name for file in root.iterdir() if not file.name.endswith("lock")} == {"s"}, at


@pytest.mark.campaign
def test_a_process_that_dies_at_any_step_loses_nothing(whole, tmp_path):
    (tmp_path / "counted").mkdir()
    steps, expected = steps_of("plain", tmp_path / "counted"), whole("plain")
    for number in some(steps):
        root, at = tmp_path / str(number), f"before step {number}: {steps[number]}"
        root.mkdir()
        assert Fork(scenes.dying, root, number, scenes.make, "plain", root / "s").wait() == -9, at
        assert look(root / "s") <= ALLOWED, at
        assert not (root / "s").exists() or everything(root / "s") == expected, at
        gone_on_with(root, expected, at)


@pytest.mark.campaign
def test_a_disk_that_refuses_any_step_is_one_clear_error(whole, tmp_path):
    (tmp_path / "counted").mkdir()
    steps = steps_of("plain", tmp_path / "counted")
    for number in some(steps):
        root, code = tmp_path / str(number), (errno.ENOSPC, errno.EIO)[number % 2]
        root.mkdir()
        at = f"step {number}: {steps[number]}"
        try:
            with watched(root, refusal(number, code)):
                SCENES["plain"].make(root / "s")
        except StoreError as error:
            assert ("disk is full" if code == errno.ENOSPC else "refuses") in error.problem, at
            assert error.where and "run the same command again" in error.remedy, at
        else:  # a lock's file that stays does no harm
            assert steps[number].path.endswith("lock") and steps[number].kind == "unlink", at
        gone_on_with(root, whole("plain"), at)


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
