"""`tosca extract` over several workers as a user meets it: --part, --jobs, and kill -9."""

import os
import signal
from pathlib import Path

import pytest
from commands import loky_worker, tosca, warm_loky
from trees import tree

from tosca_cache.store import list_stores, open_store
from tosca_cache.workers import Workers


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
    for more in (["--part", "1/2"], ["--jobs", "2"], []):
        again = run(tiny_digits, tmp_path, *more)
        assert again.exit_code == 0 and "finished already" in again.stdout and "store: " in again.stdout
    for more in (["--jobs", "2"], ["--restart"]):
        assert "cannot be combined" in run(tiny_digits, tmp_path, "--part", "1/2", *more, code=2).stderr


def test_no_more_threads_than_the_environment_allows(tiny_digits, tmp_path, monkeypatch):
    monkeypatch.setattr("tosca_cache.workers.cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert " 1 workers" in run(tiny_digits, tmp_path).stderr
    assert " 3 workers" in run(tiny_digits, tmp_path / "other", "--workers", "3").stderr


@pytest.fixture
def killed(monkeypatch):
    """Kills a worker with -9 as soon as one of a command's parts is made; its number is in the list then."""
    numbers, usual = [], Workers.run

    def run(self, function, *jobs):
        for result in usual(self, function, *jobs):
            if not numbers:
                numbers.append(loky_worker())
                os.kill(numbers[0], signal.SIGKILL)
            yield result

    monkeypatch.setattr(Workers, "run", run)
    with warm_loky():
        yield numbers


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds a worker to kill in /proc")
def test_jobs_make_the_same_store_though_a_worker_is_killed(tiny_digits, undisturbed, tmp_path, killed):
    result = run(tiny_digits, tmp_path, "--jobs", "2", code=0)
    assert killed and "2 jobs" in result.stderr
    assert tree(tmp_path) == undisturbed
    (store,) = list_stores(tmp_path)
    last = open_store(store.path).provenance["last_run"]
    assert (last["jobs"], last["images"]) == (2, 1797)
