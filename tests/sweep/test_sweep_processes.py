"""Sweeps in real processes: killed at any moment, two on one ledger, and over the workers of loky, Dask and Ray."""

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from campaign import times
from commands import Command, cluster_of, hold, loky_worker, process_below, together, warm_loky
from sweep_help import QUICK, Counting, cells_in, sql

from tosca_cache.config import to_toml
from tosca_cache.errors import RunError
from tosca_cache.store import open_store
from tosca_cache.sweep.run import best_path, report_path, run_sweep, workers_of
from tosca_cache.sweep.search import SweepRequest
from tosca_cache.sweep.space import parse_set
from tosca_cache.train.native.library import load_library

# The compiled kernels give every cell the very same numbers beside whatever others it is trained.
BASE = replace(QUICK, dataset="shapes", engine="native")
AXES = ("epochs=20,30,40,50,60,70", "lr=0.005,0.05", "l1=0,0.01")  # a block for each number of epochs, at least
REQUEST = SweepRequest(BASE, parse_set(AXES), (1, 2), report_seeds=(1, 2))
CELLS = 6 * 2 * 2 * 2
LEDGER = "tosca_cache.sweep.ledger:Ledger"


@pytest.fixture
def place(make_store, tmp_path, monkeypatch):
    """A folder with a store and a config file, as the working directory."""
    make_store(tmp_path / "store", noise=2.0)
    (tmp_path / "setting.toml").write_text(to_toml(BASE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(ledger, before=None):
    """The sweep as a command in a process of its own."""
    asked = ["--config", "setting.toml", "--store", "store", "--seeds", "1,2", "--report-seeds", "1,2", "--ledger"]
    return Command("sweep", *(f"--set={axis}" for axis in AXES), *asked, ledger, before=before)


def finish(command):
    assert command.wait() == 0, command.error
    return command.output


@pytest.fixture(scope="module")
def results(make_store, tmp_path_factory):
    """What the sweep gives when nothing happens to it."""
    load_library()
    folder = tmp_path_factory.mktemp("undisturbed")
    run_sweep(REQUEST, make_store(folder / "store", noise=2.0), folder / "ledger")
    return outcome(cells_in(folder / "ledger"))


def outcome(cells):
    """All that a ledger says of its cells that does not depend on when and by whom they were run."""
    return {
        cell.address: (cell.state, {name: value for name, value in (cell.result or {}).items() if name != "seconds"})
        for cell in cells
    }


def recorded(ledger):
    """Cells that are done, as they stand in the ledger; none before it is quite made."""
    with suppress(RunError):
        return {cell.address: cell for cell in cells_in(ledger) if cell.state == "done"}
    return {}


@pytest.mark.campaign
def test_killed_again_and_again_the_same_command_finishes_the_rest(place, results):
    """Once a block more is recorded, and then at any moment."""
    ledger, known, moments = place / "sweep.sqlite", {}, random.Random(1)
    for number in range(times(3, 40)):
        command = start(ledger, partial(hold, LEDGER, "record"))
        if number < 2:
            command.wait_until(lambda before=len(known): len(recorded(ledger)) > before)
        else:
            time.sleep(moments.uniform(0, 0.3))
        command.kill()
        now = recorded(ledger)
        assert {address: now[address] for address in known} == known, "what was recorded stays as it is"
        known = now
        assert number > 1 or 0 < len(known) < CELLS
    output = finish(start(ledger))
    assert f"search: {CELLS}/{CELLS} cells" in output
    cells = {cell.address: cell for cell in cells_in(ledger)}
    assert {address: cells[address] for address in known} == known, "finished cells are never run again"
    assert outcome(cells.values()) == results
    assert sql(ledger, "PRAGMA integrity_check") == [("ok",)]
    assert report_path(ledger).exists() and best_path(ledger).exists()


def test_two_sweeps_on_one_ledger_share_its_cells(place, results):
    """They begin together: neither takes a cell before both are there."""
    ledger, signs = place / "sweep.sqlite", [place / "first", place / "second"]
    pair = [start(ledger, partial(together, LEDGER, "claim", own, signs)) for own in signs]
    reports = [finish(command).partition("best settings")[2].partition(" settings, ")[0] for command in pair]
    assert reports[0] == reports[1] != ""
    cells = cells_in(ledger)
    assert {cell.attempts for cell in cells} == {1}
    assert outcome(cells) == results


@pytest.fixture(params=["loky", *(pytest.param(name, marks=pytest.mark.long) for name in ("dask", "ray"))])
def workers_to_kill(request):
    """Workers of each kind, and what gives the number of one of their processes."""
    if request.param != "loky":
        pytest.importorskip({"dask": "distributed"}.get(request.param, request.param))
        with cluster_of(request.param) as scheduler:
            pattern = "ray::_call" if request.param == "ray" else ".*multiprocessing.spawn"
            yield workers_of(request.param, 2, scheduler), lambda: process_below(pattern)
    else:
        with warm_loky():
            yield workers_of(jobs=2), loky_worker


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds a worker to kill in /proc")
def test_workers_give_what_one_process_gives_and_a_killed_one_loses_no_cell(place, results, workers_to_kill):
    """The store by its relative path, and workers that were started in another folder."""
    started, victim = workers_to_kill

    class Killing(Counting):
        killed = None

        def on_finished(self, finished):
            super().on_finished(finished)
            if self.killed is None:
                self.killed = victim()
                os.kill(self.killed, signal.SIGKILL)

    reporter, ledger = Killing(), place / "ledger"
    report = run_sweep(REQUEST, open_store(Path("store")), ledger, workers=started, reporter=reporter)
    assert reporter.killed is not None and report.lost == 0
    cells = cells_in(ledger)
    assert outcome(cells) == results
    assert {cell.attempts for cell in cells} == {1}
    assert sorted(reporter.finished) == sorted(cell.address for cell in cells)
