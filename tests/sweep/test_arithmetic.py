"""A guard: the numbers of two fixed cells as they were when `ARITHMETIC` was last raised.

Ledgers outlive versions of the code. A change that makes a cell give other numbers must therefore change its address.
"""

from dataclasses import replace

import numpy as np
import pytest

from tosca_cache.config import TrainConfig
from tosca_cache.learners.options import configured_learner
from tosca_cache.runs.experiment import train_stream
from tosca_cache.sweep.block import run_block
from tosca_cache.sweep.cells import ARITHMETIC
from tosca_cache.sweep.scenario import Data, make_scenario
from tosca_cache.tasks import Arrays
from tosca_cache.train.engines import Engine

CLASSES, ROWS, TEST_ROWS, VIEWS, DIM = 6, 8, 5, 3, 16
BASE = TrainConfig(
    increment=2, epochs=4, batch_size=5, mlp_ratio=4, se_ratio=4, device="cpu", seeds=(1993,), router="sample"
)
CONFIGS = {
    "tosca": replace(BASE, lr=0.05, l1=5e-4),
    "adapter": replace(
        BASE, flow="adapter", optimizer="adamw", lr=0.01, weight_decay=0.01, scheduler="steplr", milestones=(2,)
    ),
}
# Loss before the first and the last step of every task; predicted class of every held-out row, in file order; R by rows.
RECORDED = {
    "tosca": (
        [[0.756218, 0.446309], [1.366219, 0.629056], [1.836132, 0.783974]],
        [0, 4, 1, 1, 2, 2, 3, 3, 4, 4, 5, 3],
        [100.0, 100.0, 100.0, 75.0, 100.0, 75.0],
    ),
    "adapter": (
        [[0.673351, 0.576969], [1.270848, 0.720892], [1.777330, 1.098112]],
        [3, 0, 1, 1, 2, 3, 5, 3, 1, 2, 1, 3],
        [100.0, 75.0, 50.0, 75.0, 50.0, 0.0],
    ),
}
CHANGED = (
    f"The arithmetic of training or scoring has changed since ARITHMETIC was raised to {ARITHMETIC}. If that is wanted, "
    "raise ARITHMETIC in tosca_cache/sweep/cells.py, so that finished cells of older versions are not taken for the same, "
    "and record the new numbers here."
)


def waves(rows, dim, offset):
    """Numbers between -1 and 1 without a pattern that a small network could learn; the same on every machine."""
    grid = np.arange(1, rows + 1)[:, None] * np.sqrt(np.arange(2, dim + 2)) + offset
    return np.sin(37.0 * grid)


def arrays(rows, views, offset):
    labels = np.arange(rows * CLASSES) % CLASSES
    means = 1.2 * waves(CLASSES, DIM, 0.0)
    noise = waves(len(labels) * views, DIM, offset).reshape(len(labels), views, DIM)
    return Arrays((means[labels][:, None] + 1.5 * noise).astype(np.float32), labels)


def fixed_data():
    names = tuple(f"class {c}" for c in range(CLASSES))
    return Data(arrays(ROWS, 1 + VIEWS, 1.0), arrays(TEST_ROWS, 1, 2.0), names)


def numbers(config, data, engine, cell_of):
    """Losses, predictions and R of one cell."""
    cell = cell_of(config, 1993, "val")
    stream = make_scenario(cell.scenario, config, data, 1993)
    trained = train_stream(stream, configured_learner(config, 1993, "cpu", engine))
    losses = [[float(task[0]), float(task[-1])] for task in trained.learner.losses]
    (finished,) = run_block([cell], data, engine)
    R = [value for row in finished.result["R"] for value in row if value is not None]
    return losses, trained.outcome.predictions[-1].labels.tolist(), R


@pytest.mark.parametrize("engine", ["torch", "native"])
@pytest.mark.parametrize("name", CONFIGS)
def test_cells_give_the_numbers_that_they_gave(cell_of, name, engine):
    losses, predictions, R = numbers(CONFIGS[name], fixed_data(), Engine(engine), cell_of)
    expected = RECORDED[name]
    assert np.array(losses) == pytest.approx(np.array(expected[0]), abs=1e-4), CHANGED
    assert predictions == expected[1], CHANGED
    assert pytest.approx(expected[2], abs=1e-3) == R, CHANGED
