"""Sweeps in real processes: killed at any moment, two on one ledger, and over the workers of loky, Dask and Ray."""

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from campaign import times
from commands import Command, cluster_of, hold, loky_worker, process_below, together, warm_loky

from tosca_cache import workers
from tosca_cache.config import to_toml
from tosca_cache.errors import RunError
from tosca_cache.store import open_store
from tosca_cache.sweep.request import SweepRequest
from tosca_cache.sweep.run import Resources, best_path, report_path, run_sweep
from tosca_cache.sweep.space import parse_set
from tosca_cache.train.native.library import load_library

AXES = ("epochs=20,30,40,50,60,70", "lr=0.005,0.05", "l1=0,0.01")  # a block for each number of epochs, at least
SEEDS = (1, 2)
CELLS = 6 * 2 * 2 * 2
LEDGER = "tosca_cache.sweep.ledger:Ledger"


@pytest.fixture(scope="module")
def base(quick):
    """The compiled kernels give every cell the very same numbers beside whatever others it is trained."""
    load_library()
    return replace(quick, dataset="shapes", engine="native")


@pytest.fixture
def place(make_store, tmp_path, base, monkeypatch):
    """A folder with a store and a config file, as the working directory."""
    make_store(tmp_path / "store", noise=2.0)
    (tmp_path / "setting.toml").write_text(to_toml(base))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request_of(base):
    return SweepRequest(base, parse_set(AXES), SEEDS, report_seeds=SEEDS)


def start(ledger, before=None):
    """The same sweep as a command in a process of its own."""
    axes = [word for axis in AXES for word in ("--set", axis)]
    seeds = ["--seeds", "1,2", "--report-seeds", "1,2"]
    where = ["--config", "setting.toml", "--store", "store", "--ledger", ledger]
    return Command("sweep", *axes, *seeds, *where, before=before)


def finish(command):
    assert command.wait() == 0, command.error
    return command.output


@pytest.fixture(scope="module")
def results(make_data, make_runner, base, tmp_path_factory):
    """What the sweep gives when nothing happens to it, kept by the first test that asks: (base, cells_in) -> results."""
    kept = {}

    def read(cells_in):
        if not kept:
            folder = tmp_path_factory.mktemp("undisturbed")
            run_sweep(request_of(base), open_store(Path("store")), folder / "ledger")
            kept.update(outcome(cells_in(folder / "ledger")))
        return kept

    return read


def outcome(cells):
    """All that a ledger says of its cells that does not depend on when and by whom they were run."""
    return {
        cell.address: (cell.state, {name: value for name, value in (cell.result or {}).items() if name != "seconds"})
        for cell in cells
    }


def recorded(ledger, cells_in):
    """Cells that are done, as they stand in the ledger; none before it is quite made."""
    with suppress(RunError):
        return {cell.address: cell for cell in cells_in(ledger) if cell.state == "done"}
    return {}


@pytest.mark.campaign
def test_killed_again_and_again_the_same_command_finishes_the_rest(place, results, cells_in):
    """Once a block more is recorded, and then at any moment."""
    ledger, known, moments = place / "sweep.sqlite", {}, random.Random(1)
    for number in range(times(3, 23)):
        command = start(ledger, partial(hold, LEDGER, "record"))
        if number < 2:
            command.wait_until(lambda before=len(known): len(recorded(ledger, cells_in)) > before)
        else:
            time.sleep(moments.uniform(0, 0.3))
        command.kill()
        now = recorded(ledger, cells_in)
        assert {address: now[address] for address in known} == known, "what was recorded stays as it is"
        known = now
        assert number > 1 or 0 < len(known) < CELLS
    output = finish(start(ledger))
    assert f"search: {CELLS}/{CELLS} cells" in output
    cells = {cell.address: cell for cell in cells_in(ledger)}
    assert {address: cells[address] for address in known} == known, "finished cells are never run again"
    assert outcome(cells.values()) == results(cells_in)
    assert report_path(ledger).exists() and best_path(ledger).exists()


def test_two_sweeps_on_one_ledger_share_its_cells(place, results, cells_in):
    """They begin together: neither takes a cell before both are there."""
    ledger, signs = place / "sweep.sqlite", [place / "first", place / "second"]
    pair = [start(ledger, partial(together, LEDGER, "claim", own, signs)) for own in signs]
    reports = [finish(command).partition("best settings")[2].partition(" settings, ")[0] for command in pair]
    assert reports[0] == reports[1] != ""
    cells = cells_in(ledger)
    assert {cell.attempts for cell in cells} == {1}
    assert outcome(cells) == results(cells_in)


def run_on_workers(place, base, resources, reporter):
    # The store by its relative path, and workers that were started in another folder.
    return run_sweep(
        request_of(base), open_store(Path("store")), place / "ledger", resources=resources, reporter=reporter
    )


@pytest.fixture
def killing(counting):
    """A reporter that kills a process with -9 as soon as there are results: (what gives its number) -> reporter."""

    def make(victim):
        class Killing(counting):
            killed = None

            def on_finished(self, finished):
                super().on_finished(finished)
                if self.killed is None:
                    self.killed = victim()
                    os.kill(self.killed, signal.SIGKILL)

        return Killing()

    return make


def assert_no_cell_is_lost(place, base, resources, reporter, results, cells_in):
    report = run_on_workers(place, base, resources, reporter)
    assert reporter.killed is not None
    assert report.whole and report.lost == 0
    cells = cells_in(place / "ledger")
    assert outcome(cells) == results(cells_in)
    assert {cell.attempts for cell in cells} == {1}
    assert sorted(reporter.finished) == sorted(cell.address for cell in cells)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds a worker to kill in /proc")


def test_a_killed_process_of_jobs_loses_no_cell(place, results, cells_in, base, killing):
    reporter = killing(loky_worker)
    with warm_loky():
        assert_no_cell_is_lost(place, base, Resources(jobs=2), reporter, results, cells_in)


@pytest.fixture(scope="module")
def cluster():
    """A running Dask cluster of two worker processes, which knows nothing of the project's working directory."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None, memory_limit=0
    ) as running:
        running.wait_for_workers(2)  # on a busy machine one may come late, and its slot would not be counted
        yield running


@pytest.mark.long
def test_a_dask_cluster_gives_exactly_what_one_process_gives(place, results, cells_in, base, cluster, counting):
    run_on_workers(place, base, Resources("dask", None, cluster.scheduler_address), counting())
    assert outcome(cells_in(place / "ledger")) == results(cells_in)


@pytest.mark.long
def test_a_cluster_is_given_as_many_blocks_as_it_has_slots_for(cluster, monkeypatch):
    """However few cores the machine has that the command is run on."""
    monkeypatch.setattr(workers, "cores", lambda: 1)
    with workers.Workers("dask", None, cluster.scheduler_address) as started:
        assert started.n_jobs == 2


@pytest.mark.long
def test_a_killed_worker_of_dask_loses_no_cell(place, results, cells_in, base, cluster, killing):
    reporter = killing(lambda: next(iter(cluster.workers.values())).pid)
    assert_no_cell_is_lost(place, base, Resources("dask", None, cluster.scheduler_address), reporter, results, cells_in)


@needs_proc
@pytest.mark.long
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_ray_gives_exactly_what_one_process_gives_and_a_killed_worker_loses_no_cell(
    place, results, cells_in, base, killing
):
    reporter = killing(lambda: process_below("ray::_call"))
    with cluster_of("ray") as scheduler:
        assert_no_cell_is_lost(place, base, Resources("ray", 2, scheduler), reporter, results, cells_in)
