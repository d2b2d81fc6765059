"""Faults of writing a store: processes that die, disks that refuse, power cuts, and what readers see meanwhile.

The steps are those that steps.py sees. Power cuts: runs are recorded and replayed without what a disk may lose, because
nobody has waited for it; each state that it may leave is looked at, and gone on from. After POSIX, at its least helpful:

- A folder's entries are those at its last sync, and of every change since then each may be there or not: a new name, a
  removed name (a folder's with all that is in it), a rename (one change, both of its names).
- A file's bytes are those at its last sync. If it was written since then they may also be the written ones, in part or
  whole, or zeros of that length, or nothing. A sync of a file says nothing about its name, nor one of a folder about the
  bytes of the files in it, or about the folder's own name.

Here a sample of faults and states is tried; benchmarks/soak_store.py goes on for as long as one likes.
"""

import errno
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from campaign import times
from commands import Fork
from steps import Cut, Fault, Observer, refusal, watched
from toy_store import BAD, ROWS, SCENES, build, dying, hastily, make, read_everything
from trees import everything

from tosca_cache.errors import StoreError
from tosca_cache.store import Part, list_stores, open_store, partial_path, read_unfinished
from tosca_cache.store.disk import sync

ALLOWED = {"whole", "finished", "unfinished", "This store is unfinished", "This feature store does not exist."}


def look(path):
    """What readers see of a store and its neighbours: the store whole, or why not; how each is listed."""
    seen = {found.state for found in list_stores(path.parent)}
    try:
        read_everything(open_store(path))
        return seen | {"whole"}
    except StoreError as error:
        return seen | {error.problem.split(":")[0].split(",")[0]}


def gone_on_with(scene, path, expected, at):
    """The next writer makes of what is left what an uninterrupted run makes, and leaves nothing else."""
    make(scene, path)
    assert everything(path) == expected, at
    assert {file.name for file in path.parent.iterdir() if not file.name.endswith("lock")} == {path.name}, at


def steps_of(scene, root):
    """All steps of an uninterrupted run."""
    root.mkdir(parents=True)
    seen = Fault()
    with watched(root, seen):
        make(scene, root / "s")
    return seen.steps


@pytest.mark.campaign
@pytest.mark.parametrize("fault", ["death", "refusal"])
def test_a_process_that_dies_at_any_step_or_a_disk_that_refuses_it_loses_nothing(fault, whole, tmp_path):
    steps, expected = steps_of("plain", tmp_path / "counted"), everything(whole("plain").path)
    for number in times(sorted(random.Random(0).sample(range(len(steps)), 8)), range(len(steps))):
        root, at = tmp_path / str(number), f"step {number}: {steps[number]}"
        root.mkdir()
        if fault == "death":
            assert Fork(dying, root, number, partial(make, "plain", root / "s")).wait() == -signal.SIGKILL, at
            assert look(root / "s") <= ALLOWED, at
        else:
            code = (errno.ENOSPC, errno.EIO)[number % 2]
            try:
                with watched(root, refusal(number, code)):
                    make("plain", root / "s")
            except StoreError as error:
                assert ("disk is full" if code == errno.ENOSPC else "refuses") in error.problem, at
                assert error.where and "run the same command again" in error.remedy, at
            else:  # a lock's file that stays does no harm
                assert steps[number].path.endswith("lock") and steps[number].kind == "unlink", at
        gone_on_with("plain", root / "s", expected, at)


@pytest.mark.campaign
@pytest.mark.parametrize("scene", ["plain", "skipped", "parts"])
def test_writers_that_are_killed_at_any_moment(scene, whole, tmp_path):
    """A store's writer is killed so many times, then it may finish; whoever looks in between sees no half of a store."""
    generator, path, done = random.Random(scene), tmp_path / "root" / "s", 0
    for left in reversed(range(times(4, 40))):
        writer = Fork(hastily, partial(make, scene, path))
        if left:
            time.sleep(generator.uniform(0, 0.3))
            assert writer.kill() in (0, -signal.SIGKILL)
        assert left or writer.wait() == 0
        assert look(path) <= ALLOWED
        found = sum(store.done_rows for store in list_stores(path.parent))
        assert path.exists() or found >= done, "what was done is done no more"
        done = found
    gone_on_with(scene, path, everything(whole(scene).path), "at the end")


@pytest.mark.campaign
def test_killed_writers_of_all_parts_lose_nothing(whole, tmp_path):
    """They begin the store at the same time and die at random steps; others go on with it."""
    generator, path, ends = random.Random(1), tmp_path / "s", []
    parts = [partial(build, path, part=Part(3, index), bad=BAD) for index in (1, 2, 3)]
    for most in (20, *times([60], [60] * 20)):  # the first 20 steps finish no shard
        writers = [Fork(dying, tmp_path, generator.randrange(most), part) for part in parts]
        ends += [writer.wait() for writer in writers]
    assert ends[:3] == [-signal.SIGKILL] * 3 and set(ends) <= {0, -signal.SIGKILL}
    assert [Fork(hastily, part).wait() for part in parts] == [0, 0, 0]
    (summary,) = list_stores(tmp_path)
    assert summary.done_rows == sum(ROWS.values())
    assert everything(build(path).path) == everything(whole("skipping").path)


def test_a_reader_that_looks_between_any_two_steps_of_finishing(tmp_path):
    """The writer finishes just when a reader has begun to look: it finds the store whole, or says that it is unfinished."""
    seen = set()

    class Reader(Observer):
        def after(self, step):
            seen.update(look(tmp_path / "s"))

    with watched(tmp_path, Reader()):
        make("skipped", tmp_path / "s")
    assert seen == ALLOWED


def lose_power(steps, target, seed):
    """Writes what a disk may have kept of some steps, which began on an empty one."""
    chance, waited = random.Random(seed), set()
    luck = chance.choice((0, 0.5, 1))  # how likely it is that something was not lost
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    kept = []
    for step in reversed(steps):  # waited: what was synced later on
        changed = step.path if step.kind in ("write", "truncate") else step.path.rpartition("/")[0]
        kept.append((step, changed in waited or chance.random() < luck))
        if step.kind == "sync":
            waited.add(step.path)
        elif step.kind in ("create", "mkdir"):
            waited.discard(step.path)
        elif step.kind == "rename" and step.more[0] in waited:
            waited = waited - {step.more[0]} | {step.path}
    for step, whole in reversed(kept):
        with suppress(OSError):  # what it needs was lost
            _happen(step, target / step.path, target, whole, chance)


def _happen(step, path, target, whole, chance):
    if step.kind == "write":
        offset, data = step.more
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data if whole else chance.choice([b"", data[: chance.randint(0, len(data))], bytes(len(data))]))
    elif whole and step.kind == "rename":
        path.rename(target / step.more[0])
    elif whole and step.kind == "truncate":
        os.truncate(path, *step.more)
    elif whole and step.kind != "sync":
        {"mkdir": Path.mkdir, "create": Path.touch, "unlink": Path.unlink, "rmdir": shutil.rmtree}[step.kind](path)


class Trace(Observer):
    """The steps of runs that end, one after the other, when so many have happened; and what they promised in between."""

    def __init__(self, *ends):
        self.steps, self.ends, self.dead = [], list(ends), False
        self.promises = {0: 0}  # by the number of steps until then

    def before(self, step):
        if self.dead or (self.ends and len(self.steps) == self.ends[0]):
            self.dead = True
            raise Cut

    def after(self, step):
        self.steps.append(step)

    def promise(self, what):
        """From here on no loss of power may take this back."""
        self.promises[len(self.steps)] = what


def record(deed, folder, *ends):
    """The steps of a run, killed at each of `ends` and run again."""
    folder.mkdir()
    trace = Trace(*ends)
    with watched(folder, trace):
        while True:
            trace.dead = False
            try:
                deed(folder / "root" / "s", trace.promise)
                return trace
            except Cut:
                trace.ends.pop(0)


def check(scene, trace, chance, seed, target, expected):
    """One state, after some of the steps: what a reader sees, what a writer finds, and what becomes of it."""
    count = chance.randrange(len(trace.steps) + 1)
    lose_power(trace.steps[:count], target, seed)
    path, promised = target / "root" / "s", trace.promises[max(number for number in trace.promises if number <= count)]
    cut = f"after step {count} ({trace.steps[count - 1] if count else 'none'}), seed {seed}"
    assert look(path) <= ALLOWED, cut
    if path.exists():
        assert everything(path) == expected, f"finished, but something else, {cut}"
    else:
        assert promised != "finished", f"finished no more, {cut}"
        found = read_unfinished(partial_path(path))
        assert (found.done_rows if found else 0) >= promised, f"lost what was done, {cut}"
    gone_on_with(scene, path, expected, cut)


@pytest.mark.campaign
@pytest.mark.parametrize("scene", SCENES)
def test_a_power_cut_takes_nothing_back_that_was_promised(scene, whole, tmp_path):
    """Also after kills: what the killed run had named, but not waited for, the next one must wait for."""
    folder, expected, chance = tmp_path / "recorded", everything(whole(scene).path), random.Random(scene)
    trace = record(partial(make, scene), folder)
    for seed in range(times(3, 24)):
        check(scene, trace, chance, seed, tmp_path / "state", expected)
    for _ in range(times(1, 9) if scene in ("plain", "parts") else 0):
        shutil.rmtree(folder)
        killed = record(partial(make, scene), folder, chance.randrange(len(trace.steps)))
        for seed in range(2):
            check(scene, killed, chance, seed, tmp_path / "state", expected)


def test_what_nobody_waited_for_is_lost(tmp_path):
    """The simulation finds what it is for: a name that was not waited for, and bytes that were not."""

    def deed(path, promise):
        path.mkdir(parents=True)
        (path / "careless").write_bytes(b"careless")
        with (path / "careful").open("wb", buffering=0) as file:
            file.write(b"careful")
            os.fsync(file.fileno())
        for folder in (path, path.parent, path.parent.parent):
            sync(folder)

    trace = record(deed, tmp_path / "recorded")

    def left(count):
        """What 40 losses leave after so many steps."""
        for seed in range(40):
            lose_power(trace.steps[:count], tmp_path / "state", seed)
            yield everything(tmp_path / "state")

    assert {found.pop("root/s/careful") for found in left(len(trace.steps))} == {b"careful"}
    assert {found["root/s/careless"] for found in left(len(trace.steps))} >= {b"", bytes(8), b"careless"}
    assert any(not found for found in left(len(trace.steps) - 1))
