"""Power cuts: whatever a disk may have lost after any step, nothing wrong looks finished, and what was promised is there.

Runs are recorded and replayed without what a disk may lose, because nobody has waited for it. Each state that it may leave
is looked at, and gone on from. After POSIX, at its least helpful:

- A folder's entries are those at its last sync, and of every change since then each may be there or not: a new name, a
  removed name (a folder's with all that is in it), a rename (one change, both of its names).
- A file's bytes are those at its last sync. If it was written since then they may also be the written ones, in part or
  whole, or zeros of that length, or nothing. A sync of a file says nothing about its name, nor one of a folder about the
  bytes of the files in it, or about the folder's own name.

Here a sample of the states is tried; benchmarks/soak_store.py goes on for as long as one likes.
"""

import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from campaign import times
from scenes import SCENES
from steps import Cut, Observer, watched
from trees import everything

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store, partial_path, read_unfinished
from tosca_cache.store.disk import sync

SAMPLE = times(3, 24)  # states a scene


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


def record(scene, folder, *ends):
    """The steps of a run, killed at each of `ends` and run again."""
    folder.mkdir()
    trace = Trace(*ends)
    with watched(folder, trace):
        while True:
            trace.dead = False
            try:
                scene.make(folder / "root" / "s", trace.promise)
                return trace
            except Cut:
                trace.ends.pop(0)


def check(scene, trace, count, seed, target, expected):
    """One state, after so many steps: what a reader sees, what a writer finds, and what becomes of it."""
    lose_power(trace.steps[:count], target, seed)
    path, promised = target / "root" / "s", trace.promises[max(number for number in trace.promises if number <= count)]
    cut = f"after step {count} ({trace.steps[count - 1] if count else 'none'}), seed {seed}"
    if path.exists():
        assert everything(path) == expected, f"finished, but something else, {cut}"
        open_store(path)
    else:
        assert promised != "finished", f"finished no more, {cut}"
        with pytest.raises(StoreError, match=r"unfinished|does not exist"):
            open_store(path)
        found = read_unfinished(partial_path(path))
        assert (found.done_rows if found else 0) >= promised, f"lost what was done, {cut}"
    assert {found.state for found in list_stores(path.parent)} <= {"finished", "unfinished"}, cut
    scene.make(path)
    assert everything(path) == expected, cut
    assert {file.name for file in path.parent.iterdir() if not file.name.endswith("lock")} == {"s"}, cut


@pytest.mark.campaign
@pytest.mark.parametrize("name", SCENES)
def test_a_power_cut_takes_nothing_back_that_was_promised(name, whole, tmp_path):
    """Also after kills: what the killed run had named, but not waited for, the next one must wait for."""
    trace, generator = record(SCENES[name], tmp_path / "recorded"), random.Random(name)
    assert everything(tmp_path / "recorded" / "root" / "s") == whole(name)
    for seed in range(SAMPLE):
        check(SCENES[name], trace, generator.randrange(len(trace.steps) + 1), seed, tmp_path / "state", whole(name))
    for _ in range(times(1, 9) if name in ("plain", "parts") else 0):
        shutil.rmtree(tmp_path / "recorded")
        killed = record(SCENES[name], tmp_path / "recorded", generator.randrange(len(trace.steps)))
        for seed in range(2):
            check(
                SCENES[name], killed, generator.randrange(len(killed.steps) + 1), seed, tmp_path / "state", whole(name)
            )


def test_what_nobody_waited_for_is_lost(tmp_path):
    """The simulation finds what it is for: a name that was not waited for, and bytes that were not."""

    class Promise:
        def make(self, path, promise):
            path.mkdir(parents=True)
            (path / "careless").write_bytes(b"careless")
            with (path / "careful").open("wb", buffering=0) as file:
                file.write(b"careful")
                os.fsync(file.fileno())
            for folder in (path, path.parent, path.parent.parent):
                sync(folder)

    trace = record(Promise(), tmp_path / "recorded")

    def left(count):
        """What 40 losses leave after so many steps."""
        for seed in range(40):
            lose_power(trace.steps[:count], tmp_path / "state", seed)
            yield everything(tmp_path / "state")

    assert {found.pop("root/s/careful") for found in left(len(trace.steps))} == {b"careful"}
    assert {found["root/s/careless"] for found in left(len(trace.steps))} >= {b"", bytes(8), b"careless"}
    assert any(not found for found in left(len(trace.steps) - 1))
