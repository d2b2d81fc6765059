"""What processes do that are killed: functions for `commands.Fork`.

Who stays until it is killed says so in the file `ready`: looking at a lock instead could keep it from being taken.
"""

import json
import os
import signal
import time
from pathlib import Path

from scenes import SCENES, without_threads
from steps import death, watched
from toy_store import ARRAYS, BAD, build_part, open_writer, publish, read_everything

from tosca_cache.errors import StoreError
from tosca_cache.store import Part, find_store, list_stores, open_store
from tosca_cache.store.locks import acquiring

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


def hold_with_a_child(path, ready):
    """Takes the lock of a store, and keeps it, in a process whose child outlives it; `ready` has the child's number."""
    with acquiring(Path(path)) as lock:
        pass
    child = os.fork()
    if child == 0:
        signal.pause()
    _stay(ready, lock, child)


def _stay(ready, lock, text=""):
    """Does not return, so that `lock` is held."""
    Path(f"{ready}.new").write_text(str(text))
    Path(f"{ready}.new").replace(ready)
    while True:
        signal.pause()


def write_part(path, part):
    """Makes what is left of a part of the toy store without the rows `BAD`."""
    _without_waiting()
    build_part(path, Part.parse(part), bad=BAD)


def publish_one_and_stay(path, ready):
    """Publishes the first shard of the toy store, and then keeps the store."""
    with open_writer(path) as writer:
        publish(writer, writer.pending()[0], ARRAYS)
        _stay(ready, writer)


def look(root, said, stop):
    """Opens, lists and finds the stores `0` to `2` of a root until the file `stop` is there.

    After each look the file `said` has what was seen, and how often; at last also what must not be, under "problem".
    """
    root, looks = Path(root), {}
    try:
        while not Path(stop).exists():
            _look_once(root, looks)
            _say(said, looks)
            time.sleep(0.01)
    except BaseException as error:
        _say(said, looks | {"problem": repr(error)})
        raise


def _look_once(root, looks):
    for path in (root / "0", root / "1", root / "2"):
        try:
            read_everything(open_store(path))
            seen = "whole"
        except StoreError as error:
            seen = error.problem
        looks[seen] = looks.get(seen, 0) + 1
    for found in list_stores(root):
        assert found.state in ("finished", "unfinished"), f"{found.path.name} looks {found.state}: {found.problem}"
        looks[found.state] = looks.get(found.state, 0) + 1
    try:
        assert find_store(root, "toy").path.parent == root
        looks["found"] = looks.get("found", 0) + 1
    except StoreError as error:
        assert any(text in error.problem for text in NOT_ONE), error.problem


def _say(said, looks):
    Path(f"{said}.new").write_text(json.dumps(looks))
    Path(f"{said}.new").replace(said)
