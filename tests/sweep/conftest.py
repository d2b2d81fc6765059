"""A store to sweep on, sweeps on it, and where a ledger is going to be."""

import pytest
from sweep_help import QUICK, Counting

from tosca_cache.sweep.run import run_sweep
from tosca_cache.sweep.search import SweepRequest
from tosca_cache.sweep.space import parse_set


@pytest.fixture(scope="session")
def store(make_store, tmp_path_factory):
    """Six classes of nine train rows, which are not quite easy to tell apart; never written to."""
    return make_store(tmp_path_factory.mktemp("store") / "store", noise=2.0)


@pytest.fixture
def sweep(store, tmp_path):
    """Runs a sweep on the store: (what --set takes, what differs in the request) -> (report, what was told)."""

    def run(*assignments, seeds=(1, 2), report_seeds=(1, 2), base=QUICK, ledger="sweep", **request):
        asked, reporter = SweepRequest(base, parse_set(assignments), seeds, report_seeds, **request), Counting()
        return run_sweep(asked, store, tmp_path / f"{ledger}.sqlite", reporter=reporter), reporter

    return run


@pytest.fixture
def path(tmp_path):
    """Where a ledger is going to be."""
    return tmp_path / "sweep.ledger"
