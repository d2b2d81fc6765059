"""Power cuts: whatever a disk may have lost after any step, nothing wrong looks finished, and what was promised is there.

Runs are recorded and replayed on a disk in memory (power.py). Each state that it may leave is written to a folder, looked
at, and gone on from. Here a sample of the states is tried; benchmarks/soak_store.py tries them all, and killed runs, too.
"""

import os
import random
import shutil

import pytest
from campaign import times
from power import MODES, Disk, Trace
from scenes import SCENES
from steps import Cut, watched
from trees import everything

from tosca_cache.errors import StoreError
from tosca_cache.store import list_stores, open_store, partial_path, read_unfinished

SAMPLE = times(3, 24)  # states a scene


class Killed(Trace):
    """A trace of runs that end, one after the other, when so many steps have happened."""

    def __init__(self, *ends):
        super().__init__()
        self.ends = list(ends)
        self.dead = False

    def before(self, step):
        if self.dead or (self.ends and len(self.steps) == self.ends[0]):
            self.dead = True
            raise Cut


def record(scene, folder, *ends):
    """The steps of a run, killed at each of `ends` and run again."""
    folder.mkdir()
    trace = Killed(*ends)
    with watched(folder, trace):
        while True:
            trace.dead = False
            try:
                scene.make(folder / "root" / "s", trace.promise)
                return trace
            except Cut:
                trace.ends.pop(0)


def sample(trace, generator, size):
    """Some cuts: (steps until then, mode), of which half have random losses."""
    cuts = [generator.randrange(len(trace.steps) + 1) for _ in range(size)]
    return [(cut, MODES[k // 2 % 3] if k % 2 else generator.randrange(1000)) for k, cut in enumerate(cuts)]


def check(scene, trace, count, mode, target, expected):
    """One state: what a reader sees, what a writer finds, and what becomes of it."""
    Disk(trace.steps[:count]).materialise(target, mode)
    path, promised = target / "root" / "s", trace.promised(count)
    cut = f"after step {count} ({trace.steps[count - 1] if count else 'none'}), {mode}"
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
    for count, mode in sample(trace, generator, SAMPLE):
        check(SCENES[name], trace, count, mode, tmp_path / "state", whole(name))
    for _ in range(times(1, 9) if name in ("plain", "parts") else 0):
        shutil.rmtree(tmp_path / "recorded")
        killed = record(SCENES[name], tmp_path / "recorded", generator.randrange(len(trace.steps)))
        for count, mode in sample(killed, generator, 2):
            check(SCENES[name], killed, count, mode, tmp_path / "state", whole(name))


def test_the_disk_in_memory_loses_what_nobody_waited_for(tmp_path):
    """The simulation finds what it is for: a name that was not waited for, and bytes that were not."""

    class Promise:
        def make(self, path, promise):
            path.parent.mkdir()
            path.mkdir()
            (path / "careless").write_bytes(b"careless")
            with (path / "careful").open("wb", buffering=0) as file:
                file.write(b"careful")
                os.fsync(file.fileno())
            for folder in (path, path.parent, path.parent.parent):
                descriptor = os.open(folder, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)

    trace = record(Promise(), tmp_path / "recorded")
    found = []
    for mode in MODES:
        Disk(trace.steps).materialise(tmp_path / "state", mode)
        found.append({file.name: file.read_bytes() for file in (tmp_path / "state" / "root" / "s").iterdir()})
        assert found[-1]["careful"] == b"careful"
    assert [content["careless"] for content in found] == [b"", b"", bytes(8), b"careless"]
    Disk(trace.steps[:-1]).materialise(tmp_path / "state", "old")
    assert list((tmp_path / "state").iterdir()) == []
