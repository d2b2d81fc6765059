"""What tests of the sweep share: data in memory, a runner over a fresh ledger, and the same cell trained alone."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from reference.gaussian import make_arrays, make_domain_arrays

from tosca_cache.config import TrainConfig
from tosca_cache.learners.options import configured_learner
from tosca_cache.runs.experiment import evaluate_trained, train_stream
from tosca_cache.sweep.cells import LAST, Cell
from tosca_cache.sweep.ledger import Ledger
from tosca_cache.sweep.progress import CellProgress
from tosca_cache.sweep.run import run_sweep
from tosca_cache.sweep.runner import Runner, in_process
from tosca_cache.sweep.scenario import Data, Scenario, make_scenario
from tosca_cache.sweep.search import SweepRequest
from tosca_cache.sweep.space import parse_set
from tosca_cache.train.engines import Engine

QUICK = TrainConfig(increment=2, epochs=2, batch_size=8, mlp_ratio=4, se_ratio=4, device="cpu")
DOMAINS = ("x", "y", "z")


class Counting(CellProgress):
    """Remembers what it is told."""

    def __init__(self):
        super().__init__()
        self.finished, self.stages, self.best, self.notes = [], [], [], []

    def on_stage(self, name, cells, finished):
        self.stages.append((name, cells, finished))

    def on_finished(self, finished):
        self.finished += [cell.address for cell in finished]

    def on_best(self, score, text):
        self.best.append(text)

    def on_note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="session")
def quick():
    """A setting that trains in milliseconds."""
    return QUICK


@pytest.fixture(scope="session")
def counting():
    """Makes a reporter that remembers what it is told."""
    return Counting


@pytest.fixture(scope="session")
def make_data():
    """Gaussian classes in memory: (rows of each class, or of each in each domain, dim, views, seed, noise) -> Data."""

    def make(train=(9,) * 6, test=None, dim=12, views=3, seed=2, noise=0.7):
        generator, counts = np.random.default_rng(seed), np.array(train)
        means = 2 * generator.normal(size=(counts.shape[-1], dim))
        asked = (counts, np.where(counts > 0, 5, 0) if test is None else test)
        names = tuple(f"class {c}" for c in range(counts.shape[-1]))
        if counts.ndim == 1:
            return Data(
                *(make_arrays(generator, n, dim, v, means, noise) for n, v in zip(asked, (1 + views, 1), strict=True)),
                names,
            )
        shifts = generator.normal(size=(len(counts), dim))
        found = (
            make_domain_arrays(generator, n, dim, v, means, shifts, noise)
            for n, v in zip(asked, (1 + views, 1), strict=True)
        )
        return Data(*found, names, DOMAINS[: len(counts)])

    return make


@pytest.fixture(scope="session")
def make_runner():
    """A runner in this process: (data, engine, path of the ledger) -> context manager, a Runner."""

    @contextmanager
    def make(data, *, engine=None, ledger=None):
        engine = engine or Engine("native")
        with TemporaryDirectory() as folder, Ledger.open(ledger or Path(folder) / "ledger") as book:
            yield Runner(data, "a store", in_process(data, engine), engine, torch.device("cpu"), book)

    return make


@pytest.fixture(scope="session")
def cell_of():
    """A cell of a setting: (config, seed, name of the scenario) -> Cell."""
    return lambda config, seed=1993, rows="test", store="a store", curve=True: Cell(
        replace(config, seeds=(seed,)), Scenario(rows, 0.2), store, curve
    )


@pytest.fixture(scope="session")
def alone():
    """What `tosca train` would give for a cell: (cell, data, engine) -> (R, metrics, predictions after every task)."""

    def train(cell, data, engine):
        stream = make_scenario(cell.scenario, cell.config, data, cell.seed)
        trained = train_stream(stream, configured_learner(cell.config, cell.seed, "cpu", engine))
        return trained.outcome.R, evaluate_trained(trained).metrics, trained.outcome

    return train


@pytest.fixture(scope="session")
def assert_as_alone():
    """Compares a cell's result with what `alone` gives; one row predicted otherwise would be a point and more."""

    def check(result, expected):
        R, metrics, _ = expected
        measured = result.keys() - {"R", "seconds", "engine", "sparsity"}
        assert 0 <= result["sparsity"] <= 100
        if "R" in result:
            np.testing.assert_allclose(np.array(result["R"], dtype=float), R, atol=1e-3)
            assert measured == metrics.keys()
        else:
            assert set(LAST) <= measured
        for name in measured:
            assert result[name] == (None if np.isnan(metrics[name]) else pytest.approx(metrics[name], abs=1e-3)), name

    return check


@pytest.fixture(scope="session")
def cells_in():
    """The cells of a ledger: (path, parts of how they were scored) -> list."""

    def read(path, **only):
        with Ledger.open(path, read_only=True) as book:
            return [cell for cell in book.cells() if only.items() <= cell.content["select"].items()]

    return read


@pytest.fixture(scope="session")
def store(make_store, tmp_path_factory):
    """Six classes of nine train rows, which are not quite easy to tell apart; never written to."""
    return make_store(tmp_path_factory.mktemp("store") / "store", noise=2.0)


@pytest.fixture
def sweep(store, tmp_path):
    """Runs a sweep on the store: (what --set takes, what differs in the request) -> (report, what was told)."""

    def run(*assignments, seeds=(1, 2), report_seeds=(1, 2), base=QUICK, ledger="sweep", **request):
        reporter = request.pop("reporter", None) or Counting()
        asked = SweepRequest(base, parse_set(assignments), seeds, report_seeds, **request)
        report = run_sweep(asked, store, tmp_path / f"{ledger}.sqlite", reporter=reporter)
        return report, reporter

    return run


@pytest.fixture
def path(tmp_path):
    """Where a ledger is going to be."""
    return tmp_path / "sweep.ledger"
