"""The address of a cell: changes with everything that decides its numbers, and with nothing else.

And the numbers of two fixed cells as they were when `ARITHMETIC` was last raised: ledgers outlive versions of the code, so
that a change that makes a cell give other numbers must change its address.
"""

from dataclasses import replace

import numpy as np
import pytest
from sweep_help import cell_of

from tosca_cache.config import TrainConfig
from tosca_cache.config.schema import KEYS
from tosca_cache.learners.options import configured_learner
from tosca_cache.runs.experiment import train_stream
from tosca_cache.sweep import cells
from tosca_cache.sweep.block import run_block
from tosca_cache.sweep.cells import ARITHMETIC, Cell
from tosca_cache.sweep.scenario import Data, Scenario, make_scenario
from tosca_cache.tasks import Arrays
from tosca_cache.train.engines import Engine

VAL = Scenario("val", 0.2)
STEPS = {"scheduler": "steplr", "milestones": (5, 9)}
# Key: another value, and what must hold for it to count, where something must.
COUNTS = {
    **{"init_cls": (4,), "increment": (5,), "task_sizes": ((2, 8),), "shuffle": (False,), "class_order": ((1, 0),)},
    **{"flow": ("adapter",), "mlp_ratio": (8,), "se_ratio": (8,), "l1": (1e-3,), "lr": (0.03,), "epochs": (21,)},
    **{"batch_size": (32,), "optimizer": ("adam",), "scheduler": ("constant",), "weight_decay": (1e-4,)},
    **{"milestones": ((5, 10), STEPS), "gamma": (0.5, STEPS), "eta_min": (1e-5, {"scheduler": "cosine"})},
    **{"momentum": (0.8, {"optimizer": "sgd"}), "router": ("batch",), "shots": (5,)},
    "routing_batch_size": (16, {"router": "batch"}),
}
# Key, another value, and where it does not count.
IDLE = [
    ("momentum", 0.8, {"optimizer": "adamw"}),
    ("gamma", 0.5, {"scheduler": "constant"}),
    ("milestones", (3,), {"scheduler": "cosine"}),
    ("eta_min", 1e-5, STEPS),
    ("routing_batch_size", 16, {"router": "sample"}),
]
# Key: another value; said by the store's fingerprint, by the cell's seed, or without influence on the numbers.
ELSEWHERE = {
    **{"dataset": "cub", "backbone": "vit_nano", "normalize": "none", "img_size": 32, "views": 8, "seeds": (1, 2)},
    **{"device": "cpu", "engine": "torch", "method": "ranpac", "options": ("lam=1",)},
}


def address(config=None, scenario=VAL, store="0123456789abcdef", seed=1993, **changes):
    return Cell(replace(config or TrainConfig(), **changes | {"seeds": (seed,)}), scenario, store).address


def test_every_key_of_a_configuration_is_decided_on():
    assert set(COUNTS) | set(ELSEWHERE) | {"incremental"} == set(KEYS)


@pytest.mark.parametrize(("key", "value", "where"), [(key, *(*found, {})[:2]) for key, found in COUNTS.items()])
def test_what_counts_changes_the_address(key, value, where):
    assert address(**where | {key: value}) != address(**where)


@pytest.mark.parametrize(("key", "value", "where"), [*IDLE, *((key, value, {}) for key, value in ELSEWHERE.items())])
def test_what_is_not_read_there_or_said_elsewhere_does_not(key, value, where):
    assert address(**where | {key: value}) == address(**where)


def test_seed_store_rows_tasks_and_arithmetic_change_the_address(monkeypatch):
    rows = (Scenario("val", 0.25), Scenario("first-task", 0.2), *map(Scenario, ("half-1", "half-2", "test")))
    found = [address(), address(seed=1994), address(store="f"), address(TrainConfig(incremental="domains"))]
    found += [address(scenario=one) for one in rows]
    assert len(set(found)) == 9
    monkeypatch.setattr(cells, "ARITHMETIC", ARITHMETIC + 1)
    assert address() not in found


def test_one_value_written_in_two_ways_is_one():
    assert address(lr=1) == address(lr=1.0)
    assert address(**STEPS) == address(scheduler="steplr", milestones=[5, 9])
    assert address(increment=5, init_cls=5) == address(increment=5)
    assert address(scenario=Scenario("test", 0.1)) == address(scenario=Scenario("test", 0.3)), "nothing is held out"


def test_addresses_stay_the_same_from_version_to_version():
    """Ledgers are kept for years: if this fails, every finished cell of every user would be run again.

    Wanted only together with a new ARITHMETIC, or a new key of which the old cells cannot have said anything.
    """
    other = TrainConfig(**STEPS, optimizer="adamw", router="batch")
    assert [address(router="auto"), address(router="sample"), address(other, Scenario("test"), seed=1)] == [
        "6aaca56eb3593f46fa17f0316f925ff5ab5953157096cba3f04546f530e98a3c",
        "c47b3b026db67cb1a1fe7a694e3fdb5a1771d01d280ca98167c838be3a14e25d",
        "8690dfd1401f570d9e8e42e060270ef852b51dea02cf7fe73982664df4c43917",
    ]


# The numbers of two cells

CLASSES, ROWS, TEST_ROWS, VIEWS, DIM = 6, 8, 5, 3, 16
BASE = TrainConfig(
    increment=2, epochs=4, batch_size=5, mlp_ratio=4, se_ratio=4, device="cpu", seeds=(1993,), router="sample"
)
ADAPTER = {"flow": "adapter", "optimizer": "adamw", "weight_decay": 0.01, "scheduler": "steplr", "milestones": (2,)}
# Loss before the first and the last step of every task; predicted class of every held-out row, in file order; R by rows.
RECORDED = [
    (
        replace(BASE, lr=0.05, l1=5e-4),
        [[0.756218, 0.446309], [1.366219, 0.629056], [1.836132, 0.783974]],
        [0, 4, 1, 1, 2, 2, 3, 3, 4, 4, 5, 3],
        [100.0, 100.0, 100.0, 75.0, 100.0, 75.0],
    ),
    (
        replace(BASE, lr=0.01, **ADAPTER),
        [[0.673351, 0.576969], [1.270848, 0.720892], [1.777330, 1.098112]],
        [3, 0, 1, 1, 2, 3, 5, 3, 1, 2, 1, 3],
        [100.0, 75.0, 50.0, 75.0, 50.0, 0.0],
    ),
]
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


@pytest.mark.parametrize("engine", ["torch", "native"])
@pytest.mark.parametrize(("config", "losses", "predictions", "R"), RECORDED, ids=["tosca", "adapter"])
def test_cells_give_the_numbers_that_they_gave(config, losses, predictions, R, engine):
    names = tuple(f"class {c}" for c in range(CLASSES))
    data, engine = Data(arrays(ROWS, 1 + VIEWS, 1.0), arrays(TEST_ROWS, 1, 2.0), names), Engine(engine)
    cell = cell_of(config, rows="val")
    stream = make_scenario(cell.scenario, config, data, 1993)
    trained = train_stream(stream, configured_learner(config, 1993, "cpu", engine))
    found = [[float(task[0]), float(task[-1])] for task in trained.learner.losses]
    assert np.array(found) == pytest.approx(np.array(losses), abs=1e-4), CHANGED
    assert trained.outcome.predictions[-1].labels.tolist() == predictions, CHANGED
    (finished,) = run_block([cell], data, engine)
    found = [value for row in finished.result["R"] for value in row if value is not None]
    assert found == pytest.approx(R, abs=1e-3), CHANGED
