"""What tests of the sweep share: data in memory, a runner over a fresh ledger, the same cell trained alone, and ledgers."""

import sqlite3
from contextlib import closing, contextmanager
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
from tosca_cache.sweep.runner import Runner, in_process
from tosca_cache.sweep.scenario import Data, Scenario, make_scenario

# Trains in milliseconds.
QUICK = TrainConfig(increment=2, epochs=2, batch_size=8, mlp_ratio=4, se_ratio=4, device="cpu")
QUICK_DOMAINS = replace(QUICK, incremental="domains", increment=TrainConfig().increment)
SHARED, UNEQUAL = [[9] * 4] * 3, [[9, 9, 9, 0], [9, 0, 9, 0], [20, 9, 9, 9]]  # rows of each class in each domain
BAD = {"lr": 1e20, "l1": 1e20}  # diverges
NAMES = [f"cell-{number}" for number in range(6)]


class Counting(CellProgress):
    """Remembers what it is told."""

    def __init__(self):
        super().__init__()
        self.finished, self.stages, self.best = [], [], []

    def on_stage(self, name, cells, finished):
        self.stages.append((name, cells, finished))

    def on_finished(self, finished):
        self.finished += [cell.address for cell in finished]

    def on_best(self, score, text):
        self.best.append(text)


def make_data(train=(9,) * 6, test=None, *, dim=12, views=3, noise=0.7):
    """Gaussian classes in memory. train, test: rows of each class, or of each class in each domain."""
    generator, counts = np.random.default_rng(2), np.array(train)
    means = 2 * generator.normal(size=(counts.shape[-1], dim))
    splits = ((counts, 1 + views), (np.where(counts > 0, 5, 0) if test is None else test, 1))
    names = tuple(f"class {c}" for c in range(counts.shape[-1]))
    if counts.ndim == 1:
        return Data(*(make_arrays(generator, n, dim, v, means, noise) for n, v in splits), names)
    shifts = generator.normal(size=(len(counts), dim))
    arrays = (make_domain_arrays(generator, n, dim, v, means, shifts, noise) for n, v in splits)
    return Data(*arrays, names, ("x", "y", "z")[: len(counts)])


def cell_of(config, seed=1993, rows="test", curve=True):
    """A cell of a setting."""
    return Cell(replace(config, seeds=(seed,)), Scenario(rows, 0.2), "a store", curve)


@contextmanager
def make_runner(data, *, engine, ledger=None):
    """A runner in this process, over a fresh ledger."""
    with TemporaryDirectory() as folder, Ledger.open(ledger or Path(folder) / "ledger") as book:
        yield Runner(data, "a store", in_process(data, engine), engine, torch.device("cpu"), book)


def alone(cell, data, engine):
    """What `tosca train` would give for a cell: R and the metrics."""
    stream = make_scenario(cell.scenario, cell.config, data, cell.seed)
    trained = train_stream(stream, configured_learner(cell.config, cell.seed, "cpu", engine))
    return trained.outcome.R, evaluate_trained(trained).metrics


def assert_as_alone(result, cell, data, engine):
    """Compares a cell's result with what `alone` gives; one row predicted otherwise would be a point and more."""
    R, metrics = alone(cell, data, engine)
    measured = result.keys() - {"R", "seconds", "engine", "sparsity"}
    assert 0 <= result["sparsity"] <= 100
    if "R" in result:
        np.testing.assert_allclose(np.array(result["R"], dtype=float), R, atol=1e-3)
        assert measured == metrics.keys()
    else:
        assert set(LAST) <= measured
    for name in measured:
        assert result[name] == (None if np.isnan(metrics[name]) else pytest.approx(metrics[name], abs=1e-3)), name


def cells_in(path, **only):
    """The cells of a ledger; only: parts of how they were scored."""
    with Ledger.open(path, read_only=True) as book:
        return [cell for cell in book.cells() if only.items() <= cell.content["select"].items()]


def content(address):
    """What a cell is, made up."""
    setting = {"lr": 0.1, "milestones": [5, 9]}
    return {"setting": setting, "seed": 1, "select": {"rows": "val"}, "store": "s", "arithmetic": 1, "of": address}


def fill(ledger, addresses=NAMES):
    """Adds made-up cells."""
    ledger.add((address, content(address)) for address in addresses)


def sql(path, statement, *values):
    """What another program would do to the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()
