"""`tosca extract` over several workers as a user meets it: --part, --jobs, and kill -9."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import loky_worker, tosca, warm_loky
from trees import tree

from tosca_cache.processes import MEMORY
from tosca_cache.store import list_stores, open_store
from tosca_cache.store.locks import Part, StoreBusy, exclusive
from tosca_cache.workers import Workers

LAUNCHER = str(Path(__file__).parents[2] / "cli.py")


def run(arguments, root, *more, **how):
    return tosca(*arguments, "--root", root, *more, **how)


def test_parts_say_what_is_done_and_what_to_do_next(tiny_digits, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    first = run(tiny_digits, tmp_path, "--part", "2/2")
    assert "part 2/2 is done; of the whole store 4 of 8 shards" in first.stdout
    assert "unfinished: " in run(["cache", "ls"], tmp_path).stdout
    last = run(tiny_digits, tmp_path, "--part", "1/2")
    assert "8 of 8 shards\nfinish it: the same command without --part" in last.stdout
    assert run(tiny_digits, tmp_path, code=0).stdout.startswith("store: ")
    assert tree(tmp_path) == undisturbed
    for more in (["--part", "1/2"], ["--jobs", "2"]):
        again = run(tiny_digits, tmp_path, *more, code=0).stdout
        assert "finished already" in again and "store: " in again
    for more in (["--jobs", "2"], ["--restart"]):
        assert "cannot be combined" in run(tiny_digits, tmp_path, "--part", "1/2", *more, code=2).stderr


def test_no_more_threads_than_the_environment_allows(tiny_digits, tmp_path, monkeypatch):
    monkeypatch.setattr("tosca_cache.workers.cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert " 1 workers" in run(tiny_digits, tmp_path).stderr
    assert " 3 workers" in run(tiny_digits, tmp_path / "other", "--workers", "3").stderr


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds a worker to kill in /proc")
def test_jobs_make_the_same_store_though_a_worker_is_killed(tiny_digits, undisturbed, tmp_path, monkeypatch):
    killed, usual = [], Workers.run

    def kill_once_a_part_is_made(self, function, *jobs):
        for result in usual(self, function, *jobs):
            if not killed:
                killed.append(loky_worker())
                os.kill(killed[0], signal.SIGKILL)
            yield result

    monkeypatch.setattr(Workers, "run", kill_once_a_part_is_made)
    with warm_loky():
        result = run(tiny_digits, tmp_path, "--jobs", "2", code=0)
    assert killed and "2 jobs" in result.stderr
    assert tree(tmp_path) == undisturbed
    (store,) = list_stores(tmp_path)
    last = open_store(store.path).provenance["last_run"]
    assert (last["jobs"], last["images"]) == (2, 1797)


# Every process of Python that is started reads this: a worker stands still once it has published a shard of its part.
STANDING_STILL = """
import os, pathlib, time
if "TOSCA_TEST_HOLD" in os.environ:
    from tosca_cache.store import StoreWriter
    plain = StoreWriter.publish
    def publish(self, *arguments, **more):
        plain(self, *arguments, **more)
        pathlib.Path(os.environ["TOSCA_TEST_HOLD"], str(os.getpid())).touch()
        time.sleep(1800)
    StoreWriter.publish = publish
"""


def wait_for(condition, seconds=500):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def refused(store, part=None):
    with pytest.raises(StoreBusy) as busy, exclusive(store, part):
        pass
    return str(busy.value)


@pytest.mark.skipif(not MEMORY.is_dir(), reason="looks at processes and named semaphores as Linux has them")
@pytest.mark.parametrize("kill", [os.kill, pytest.param(os.killpg, marks=pytest.mark.long)])
def test_workers_end_with_their_command_in_the_middle_of_a_part(tiny_digits, undisturbed, tmp_path, kill):
    """The command is killed alone, or all its processes are."""
    held, root = tmp_path / "held", tmp_path / "root"
    held.mkdir()
    (tmp_path / "sitecustomize.py").write_text(STANDING_STILL)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    asked = [sys.executable, LAUNCHER, *tiny_digits, "--root", root, "--jobs", "2"]
    command = subprocess.Popen(  # loky starts no workers below a process of `commands`
        asked, env=os.environ | {"PYTHONPATH": path, "TOSCA_TEST_HOLD": str(held)}, start_new_session=True
    )
    wait_for(lambda: len(list(held.iterdir())) == 2 or command.poll() is not None)
    workers = [path.name for path in held.iterdir()]
    partial = next(path for path in root.iterdir() if path.name.endswith(".partial"))
    store = partial.with_name(partial.name.removesuffix(".partial"))
    count = int(re.search(rf"([0-9]+) parts of this store: process {command.pid} on", refused(store))[1])
    holder = re.search(r"part 1/. of this store: process ([0-9]+) on", refused(store, Part(count, 1)))
    assert holder[1] in workers
    kill(command.pid, signal.SIGKILL)
    command.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    with exclusive(store):  # every part is free
        pass
    with warm_loky():
        run(tiny_digits, root, "--jobs", "2", code=0)
    assert tree(root) == undisturbed
    assert not [path.name for path in MEMORY.iterdir() if re.search(f"[-_]{command.pid}([-_]|$)", path.name)]
