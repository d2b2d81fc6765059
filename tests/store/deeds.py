"""What processes do that are killed: functions for `commands.Fork`.

Who stays until it is killed says so in the file `ready`: looking at a lock instead could keep it from being taken.
"""

import os
import signal
from pathlib import Path

from scenes import SCENES, without_threads
from steps import death, watched
from toy_store import ARRAYS, BAD, build_part, open_writer, publish

from tosca_cache.store import Part

NOT_ONE = ("no store of toy yet", "unfinished", "stores of toy fit")


def dying(root, number, deed, *arguments):
    """Another deed, during which the process kills itself before that step below `root`."""
    _without_waiting()
    with watched(root, death(number)):
        deed(*arguments)


FSYNC = os.fsync


def _without_waiting():
    """What a killed process has written stays written; steps that are watched already stay so."""
    if os.fsync is FSYNC:
        os.fsync = lambda descriptor: None
        without_threads()


def make(scene, path):
    """Makes what is left of a scene."""
    _without_waiting()
    SCENES[scene].make(Path(path))


def write_part(path, part):
    """Makes what is left of a part of the toy store without the rows `BAD`."""
    _without_waiting()
    build_part(path, Part.parse(part), bad=BAD)


def publish_one_and_stay(path, ready):
    """Publishes the first shard of the toy store and keeps the store, with a child whose number is in the file `ready`."""
    with open_writer(path) as writer:
        publish(writer, writer.pending()[0], ARRAYS)
        child = os.fork()
        if child == 0:
            signal.pause()
        Path(f"{ready}.new").write_text(str(child))
        Path(f"{ready}.new").replace(ready)
        while True:
            signal.pause()
