"""Power cuts: whatever a disk may have lost after any step, nothing wrong looks finished, and what was promised is there.

Runs are recorded and replayed on a disk in memory that loses, when its power goes, whatever nobody has waited for. Each
state that it may leave is written to a folder, looked at, and gone on from. After POSIX, at its least helpful:

- A folder's entries are those at its last sync, and of every change since then each may be there or not: a new name, a
  removed name, a rename (one change, both of its names).
- A file's bytes are those at its last sync. If it was written since then they may also be the written ones, in part or
  whole, or zeros of that length, or nothing. A sync of a file says nothing about its name, nor one of a folder about the
  bytes of the files in it, or about the folder's own name.

Here a sample of the states is tried; benchmarks/soak_store.py goes on for as long as one likes.
"""

import os
import random
import shutil
from dataclasses import dataclass, field

import pytest
from campaign import times
from scenes import SCENES
from steps import Cut, Observer, watched
from trees import everything

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store, partial_path, read_unfinished
from tosca_cache.store.disk import sync

SAMPLE = times(3, 24)  # states a scene


@dataclass(eq=False)
class File:
    durable: bytes = b""
    now: bytes = b""

    def left(self, chance, luck):
        """The bytes after a loss; luck: how likely it is that something was not lost."""
        if self.now == self.durable or chance.random() < luck:
            return self.now
        torn = self.now[: chance.choice((0, chance.randint(0, len(self.now))))]
        return chance.choice([self.durable, torn, torn.ljust(len(self.now), b"\0")])


@dataclass(eq=False)
class Folder:
    durable: dict = field(default_factory=dict)
    changes: list = field(default_factory=list)  # {name: what is there now, or None}

    def left(self, chance, luck):
        """The entries after a loss."""
        return self.after(change for change in self.changes if chance.random() < luck)

    def after(self, changes):
        entries = self.durable.copy()
        for change in changes:
            entries |= change
        return {name: node for name, node in entries.items() if node is not None}


class Disk:
    """The disk as a run's steps change it; begins empty."""

    def __init__(self, steps):
        self.root = Folder()
        for step in steps:
            getattr(self, f"_{step.kind}")(step.path, *step.more)

    def materialise(self, target, seed):
        """Writes what may be left after a loss of power now."""
        shutil.rmtree(target, ignore_errors=True)
        chance = random.Random(seed)
        _write(self.root, target, chance, chance.choice((0, 0.5, 1)))

    def _find(self, path):
        node = self.root
        for name in path.split("/") if path else ():
            node = node.after(node.changes)[name]
        return node

    def _change(self, path, node):
        folder, _, name = path.rpartition("/")
        self._find(folder).changes.append({name: node})

    def _mkdir(self, path):
        self._change(path, Folder())

    def _create(self, path):
        self._change(path, File())

    def _unlink(self, path):
        self._change(path, None)

    _rmdir = _unlink

    def _write(self, path, offset, data):
        file = self._find(path)
        file.now = file.now[:offset].ljust(offset, b"\0") + data + file.now[offset + len(data) :]

    def _truncate(self, path, length):
        file = self._find(path)
        file.now = file.now[:length].ljust(length, b"\0")

    def _sync(self, path):
        node = self._find(path)
        if isinstance(node, Folder):
            node.durable, node.changes = node.after(node.changes), []
        else:
            node.durable = node.now

    def _rename(self, source, target):
        node = self._find(source)
        (one, _, old), (other, _, new) = source.rpartition("/"), target.rpartition("/")
        if one == other:
            self._find(one).changes.append({old: None, new: node})
        else:
            self._change(source, None)
            self._change(target, node)


def _write(folder, target, chance, luck):
    target.mkdir()
    for name, node in sorted(folder.left(chance, luck).items()):
        if isinstance(node, Folder):
            _write(node, target / name, chance, luck)
        else:
            (target / name).write_bytes(node.left(chance, luck))


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
    Disk(trace.steps[:count]).materialise(target, seed)
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


def test_the_disk_in_memory_loses_what_nobody_waited_for(tmp_path):
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
            Disk(trace.steps[:count]).materialise(tmp_path / "state", seed)
            yield everything(tmp_path / "state")

    assert {found.pop("root/s/careful") for found in left(len(trace.steps))} == {b"careful"}
    assert {found["root/s/careless"] for found in left(len(trace.steps))} >= {b"", bytes(8), b"careless"}
    assert any(not found for found in left(len(trace.steps) - 1))
