"""The address of a cell: changes with everything that decides its numbers, and with nothing else."""

from dataclasses import replace

import pytest

from tosca_cache.config import TrainConfig
from tosca_cache.config.schema import KEYS
from tosca_cache.sweep import cells
from tosca_cache.sweep.cells import Cell, setting_of
from tosca_cache.sweep.scenario import Scenario

STORE = "0123456789abcdef"
VAL = Scenario("val", 0.2)
STEPS = {"scheduler": "steplr", "milestones": (5, 9)}
BATCH = {"router": "batch"}

# Key: another value, and what must hold for the key to count, where something must.
COUNTS = {
    **{"init_cls": (4,), "increment": (5,), "task_sizes": ((2, 8),), "shuffle": (False,), "class_order": ((1, 0),)},
    **{"flow": ("adapter",), "mlp_ratio": (8,), "se_ratio": (8,), "l1": (1e-3,), "lr": (0.03,), "epochs": (21,)},
    **{"batch_size": (32,), "optimizer": ("adam",), "scheduler": ("constant",), "weight_decay": (1e-4,)},
    **{"milestones": ((5, 10), STEPS), "gamma": (0.5, STEPS), "eta_min": (1e-5, {"scheduler": "cosine"})},
    **{"momentum": (0.8, {"optimizer": "sgd"}), "router": ("batch",), "routing_batch_size": (16, BATCH)},
}
# Key, another value, and where it does not count.
IDLE = [
    ("momentum", 0.8, {"optimizer": "adam"}),
    ("momentum", 0.8, {"optimizer": "adamw"}),
    ("gamma", 0.5, {"scheduler": "cosine"}),
    ("gamma", 0.5, {"scheduler": "constant"}),
    ("milestones", (3,), {"scheduler": "cosine"}),
    ("eta_min", 1e-5, {"scheduler": "constant"}),
    ("eta_min", 1e-5, STEPS),
    ("routing_batch_size", 16, {"router": "sample"}),
    ("task_sizes", None, {}),
    ("class_order", None, {}),
]
# Key: another value; said by the store's fingerprint, by the cell's seed, or without influence on the numbers.
ELSEWHERE = {
    **{"dataset": "cub", "backbone": "vit_nano", "normalize": "none", "img_size": 32, "views": 8, "seeds": (1, 2)},
    **{"device": "cpu", "engine": "torch", "method": "ranpac", "options": ("lam=1",)},
}


def address(config=None, scenario=VAL, store=STORE, seed=1993):
    return Cell(replace(config or TrainConfig(), seeds=(seed,)), scenario, store).address


def test_every_key_of_a_configuration_is_decided_on():
    assert set(COUNTS) | set(ELSEWHERE) | {"incremental", "shots"} == set(KEYS)
    assert set(cells.SETTING_KEYS) == set(COUNTS)


@pytest.mark.parametrize(("key", "value", "where"), [(key, *(*found, {})[:2]) for key, found in COUNTS.items()])
def test_what_counts_changes_the_address(key, value, where):
    base = TrainConfig(**where)
    changed = replace(base, **{key: value})
    assert address(changed) != address(base) and key in setting_of(changed)


@pytest.mark.parametrize(("key", "value", "where"), [*IDLE, *((key, value, {}) for key, value in ELSEWHERE.items())])
def test_what_is_not_read_there_or_said_elsewhere_does_not(key, value, where):
    base = TrainConfig(**where)
    assert address(replace(base, **{key: value})) == address(base) and key not in setting_of(base)


def test_seed_store_rows_and_arithmetic_change_the_address(monkeypatch):
    found = {
        *(address(), address(seed=1994), address(store="f" * 16), address(TrainConfig(shots=5))),
        *(address(scenario=Scenario("val", 0.25)), address(scenario=Scenario("first-task", 0.2))),
        *(address(scenario=Scenario(rows)) for rows in ("half-1", "half-2", "test")),
    }
    assert len(found) == 9
    monkeypatch.setattr(cells, "ARITHMETIC", cells.ARITHMETIC + 1)
    assert address() not in found


def test_domains_are_another_way_of_scoring_and_class_streams_are_not_named():
    classes, domains = (Cell(TrainConfig(incremental=kind), VAL, STORE) for kind in ("classes", "domains"))
    assert classes.address != domains.address
    assert domains.content["select"] == classes.content["select"] | {"incremental": "domains"}
    assert "incremental" not in classes.content["select"]
    assert set(classes.content["setting"]) - set(domains.content["setting"]) == {"increment", "init_cls"}


def test_one_value_written_in_two_ways_is_one():
    assert address(TrainConfig(lr=1)) == address(TrainConfig(lr=1.0))
    assert address(TrainConfig(**STEPS)) == address(TrainConfig(scheduler="steplr", milestones=[5, 9]))
    assert address(TrainConfig(increment=5, init_cls=5)) == address(TrainConfig(increment=5))
    assert address(scenario=Scenario("test", 0.1)) == address(scenario=Scenario("test", 0.3)), "nothing is held out"


def test_addresses_stay_the_same_from_version_to_version():
    """Ledgers are kept for years: if this fails, every finished cell of every user would be run again.

    Wanted only together with a new ARITHMETIC, or a new key of which the old cells cannot have said anything.
    """
    other = TrainConfig(**STEPS, optimizer="adamw", **BATCH)
    assert [
        address(TrainConfig(router="auto")),
        address(TrainConfig(router="sample")),
        address(other, Scenario("test"), seed=1),
    ] == [
        "6aaca56eb3593f46fa17f0316f925ff5ab5953157096cba3f04546f530e98a3c",
        "c47b3b026db67cb1a1fe7a694e3fdb5a1771d01d280ca98167c838be3a14e25d",
        "8690dfd1401f570d9e8e42e060270ef852b51dea02cf7fe73982664df4c43917",
    ]
