"""Ways in which one small store comes to be, and what processes do that are killed: functions for `commands.Fork`."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from disk_waits import in_turn
from steps import death, watched
from toy_store import ARRAYS as TOY
from toy_store import BAD, build_part, open_writer, publish, toy_arrays

from tosca_cache.store import Part, disk, partial_path, read_unfinished

ROWS = {"train": 5, "test": 2}
ARRAYS = {split: toy_arrays(split, ROWS) for split in ROWS}
FSYNC = os.fsync


@dataclass(frozen=True)
class Scene:
    """A way that can be called again until it gets through.

    bad: rows that cannot be read. parts: 0 for one writer. restart: an unfinished store of other numerics is thrown away
    first.
    """

    bad: tuple = ()
    parts: int = 0
    restart: bool = False

    def make(self, path, promise=lambda done: None):
        """Begins or goes on, and finishes; promise: told the rows that are done, then "finished"."""
        if Path(path).exists():
            return
        if self.restart:
            begun = read_unfinished(partial_path(path))
            if begun is None or begun.plan.numerics == {"batch_size": 9}:
                with _open(path, 9) as writer:
                    for shard in writer.pending()[:1]:
                        publish(writer, shard, ARRAYS)
                _open(path, restart=True).close()
        for index in range(1, self.parts + 1):
            with _open(path, part=Part(self.parts, index)) as writer:
                for shard in writer.pending():
                    publish(writer, shard, ARRAYS, self.bad)
        with _open(path) as writer:
            promise(writer.done_rows)
            for shard in writer.pending():
                publish(writer, shard, ARRAYS, self.bad)
                promise(writer.done_rows)
            writer.finish({"machine": "toy"})
            promise("finished")


def _open(path, batch_size=4, **how):
    return open_writer(path, rows=ROWS, shard_rows=3, numerics={"batch_size": batch_size}, **how)


SCENES = {
    "plain": Scene(),
    "skipped": Scene(bad=(("train", 1),)),
    "parts": Scene(bad=(("train", 1),), parts=2),
    "restart": Scene(restart=True),
}


def without_waiting():
    """What a killed process has written stays written; steps that are watched already stay so."""
    if os.fsync is FSYNC:
        os.fsync = lambda descriptor: None
        disk.in_threads = in_turn


def make(scene, path):
    """Makes what is left of a scene."""
    without_waiting()
    SCENES[scene].make(Path(path))


def dying(root, number, deed, *arguments):
    """One of these functions, during which the process kills itself before that step below `root`."""
    without_waiting()
    with watched(root, death(number)):
        deed(*arguments)


def write_part(path, part):
    """Makes what is left of a part of the toy store without the rows `BAD`."""
    without_waiting()
    build_part(path, Part.parse(part), bad=BAD)


def publish_one_and_stay(path, ready):
    """Publishes the first shard of the toy store and keeps the store, with a child whose number is in the file `ready`."""
    with open_writer(path) as writer:
        publish(writer, writer.pending()[0], TOY)
        child = os.fork()
        if child == 0:
            signal.pause()
        Path(f"{ready}.new").write_text(str(child))
        Path(f"{ready}.new").replace(ready)
        while True:
            signal.pause()
