"""Whose a cell is: dead owners are recognised, living ones left alone, late ones ignored."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time

import pytest
from ledger_help import NAMES, fill, sql

from tosca_cache.sweep.ledger import DIVERGED, DONE, FAILED, OPEN, RUNNING, Finished, Ledger, owners


def test_a_recycled_process_number_is_not_its_old_owner(path):
    """The owner's number belongs to a living process, this one, that started at another time."""
    with Ledger.open(path) as first, Ledger.open(path) as second:
        fill(first)
        first.claim(NAMES)
        assert second.claim(NAMES) == []
        sql(path, "UPDATE owners SET started = started || '1'")
        assert sorted(second.abandoned()) == NAMES
        assert second.claim(NAMES) == NAMES


def test_an_owner_that_died_and_was_not_waited_for_is_dead(path):
    """A killed child stays in the process table until its parent asks for it."""
    code = "import sys, time; from pathlib import Path; from tosca_cache.sweep.ledger import Ledger\n"
    code += "l = Ledger.open(Path(sys.argv[1])); print(len(l.claim(['cell-0'])), flush=True); time.sleep(600)"
    with Ledger.open(path) as ledger:
        fill(ledger)
        child = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"1\n"
        assert ledger.claim(["cell-0"]) == []
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert ledger.claim(["cell-0"]) == ["cell-0"]
        child.communicate()


@pytest.fixture
def elsewhere(monkeypatch):
    """Opens ledgers as if this process were on another host, where no process can be seen from here."""

    def open_there(path, **options):
        with monkeypatch.context() as patch:
            patch.setattr(owners, "this_place", lambda: "another host")
            ledger = Ledger.open(path, **options)
            fill(ledger)
            assert ledger.claim(NAMES) == NAMES
        return ledger

    return open_there


def test_an_owner_on_another_host_lives_as_long_as_it_says_so(path, elsewhere):
    with elsewhere(path) as there, Ledger.open(path) as here:
        assert here.claim(NAMES) == []
        sql(path, "UPDATE owners SET beat = beat - 100")
        assert here.claim(NAMES) == []
        sql(path, "UPDATE owners SET beat = beat - 21")
        assert here.abandoned() == NAMES
        there.heartbeat()
        assert here.abandoned() == here.claim(NAMES) == []
        sql(path, "UPDATE owners SET beat = beat - 121")
        assert here.claim(NAMES[:4]) == NAMES[:4]


def test_a_ledger_speaks_up_by_itself(path, elsewhere):
    others = set(threading.enumerate())
    with elsewhere(path, stale_after=0.2) as there:
        (speaker,) = set(threading.enumerate()) - others
        before = sql(path, "SELECT beat FROM owners")
        deadline = time.monotonic() + 600
        while sql(path, "SELECT beat FROM owners") == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        there.close()
        there.heartbeat()  # after the end there is nothing to say, and no error
        there.close()
    speaker.join(timeout=600)
    assert not speaker.is_alive()


def test_a_ledger_that_is_dropped_falls_silent(path):
    others = set(threading.enumerate())
    ledger = Ledger.open(path)
    fill(ledger)
    ledger.claim(NAMES)
    (speaker,) = set(threading.enumerate()) - others
    del ledger
    gc.collect()
    speaker.join(timeout=600)
    assert not speaker.is_alive()
    with Ledger.open(path) as ledger:
        assert ledger.claim(NAMES) == NAMES


def test_a_late_record_changes_nothing(path, elsewhere):
    with elsewhere(path) as old, Ledger.open(path) as new:
        sql(path, "UPDATE owners SET beat = beat - 1000")
        assert new.claim(NAMES[:3]) == NAMES[:3]
        assert new.done("cell-0", {"score": 1.0})
        assert not old.done("cell-0", {"score": 2.0})  # finished by the new owner
        assert not old.failed("cell-1", "late")  # running there
        assert old.record([Finished(name, DONE, {"score": 3.0}) for name in NAMES]) == 3
        assert old.release() == 0
        assert new.counts() == {OPEN: 0, RUNNING: 2, DONE: 4, DIVERGED: 0, FAILED: 0}
        assert new.done("cell-1", {"score": 1.0})
        assert [cell.result["score"] for cell in new.cells(state=DONE)] == [1.0, 1.0, 3.0, 3.0, 3.0]
        assert [cell.attempts for cell in new.cells()] == [2, 2, 2, 1, 1, 1]
