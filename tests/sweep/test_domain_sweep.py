"""Sweeps of streams whose tasks are domains: stacked seeds of unequal domains are as alone, and what is said of them."""

from dataclasses import replace

import pytest
import torch

from tosca_cache.config import TrainConfig
from tosca_cache.errors import ConfigError, StoreError
from tosca_cache.sweep.plan import plan_groups
from tosca_cache.sweep.report_facts import sweep_facts
from tosca_cache.sweep.scenario import make_scenario
from tosca_cache.sweep.search import Search, SweepRequest
from tosca_cache.sweep.space import parse_set
from tosca_cache.train.engines import Engine

BASE = TrainConfig(incremental="domains", epochs=2, batch_size=8, mlp_ratio=4, se_ratio=4, device="cpu")
SHARED = [[9] * 4] * 3
UNEQUAL = [[9, 9, 9, 0], [9, 0, 9, 0], [20, 9, 9, 9]]


@pytest.mark.parametrize("engine", ["torch", "native"])
@pytest.mark.parametrize("counts", [SHARED, UNEQUAL], ids=["shared", "unequal"])
def test_stacked_seeds_give_what_each_gives_alone(
    make_data, make_runner, cell_of, alone, assert_as_alone, counts, engine
):
    data, engine = make_data(counts), Engine(engine)
    settings = [replace(BASE, lr=lr) for lr in (0.01, 0.05)]
    cells = [cell_of(config, seed, rows) for config in settings for seed in range(3) for rows in ("val", "test")]
    with make_runner(data, engine=engine) as runner:
        runner.run_stage("", cells)
        results = runner.results(cells)
    for cell in cells:
        assert_as_alone(results[cell.address], alone(cell, data, engine))


def test_seeds_whose_domains_come_in_other_sizes_are_other_groups(make_data, cell_of):
    cells = [cell_of(BASE, seed) for seed in range(6)]
    (shared,) = plan_groups(cells, make_data(SHARED), Engine(), torch.device("cpu"))
    assert shared.describe()["classes of each domain"] == (4, 4, 4)
    data = make_data(UNEQUAL)
    groups = plan_groups(cells, data, Engine(), torch.device("cpu"))
    sizes = [group.describe()["classes of each domain"] for group in groups]
    assert len(set(sizes)) == len(sizes) > 1
    for group, size in zip(groups, sizes, strict=True):
        assert {tuple(make_scenario(c.scenario, c.config, data, c.seed).sizes) for c in group.cells} == {size}
        assert "increment" not in group.describe()


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("val", "20% of the train rows of each class of each domain held out"),
        ("first-task", "the first domain alone, 20% of the train rows of each class of each domain held out"),
        ("test-oracle", "test rows (an oracle: not a result)"),
    ],
)
def test_every_choice_works_and_says_what_it_was_made_on(make_data, make_runner, select, said):
    request = SweepRequest(BASE, parse_set(["lr=0.001,0.05"]), seeds=(1, 2), select=select)
    with make_runner(make_data(UNEQUAL, noise=2.0)) as runner:
        search = Search(request, runner)
        search.run()
        assert len(search.scored()) == 2
    assert request.how == f"chosen on {said}"


def test_axes_of_task_sizes_and_stores_of_one_domain_are_refused_before_anything_is_trained(sweep):
    for assignment in ("increment=2,3", "init_cls=2,3", "increment=3"):
        with pytest.raises(ConfigError, match="each domain is a task"):
            sweep(assignment, base=BASE)
    with pytest.raises(StoreError, match="one domain only"):
        sweep("lr=0.01,0.02", base=BASE)


def test_a_ledger_of_both_kinds_keeps_them_apart(make_data, make_runner, cell_of, path):
    configs = [replace(BASE, incremental="classes", increment=2), BASE]
    with make_runner(make_data(SHARED), ledger=path) as runner:
        runner.run_stage("", [cell_of(config, seed, "val") for config in configs for seed in (1, 2)])
    said = [group["how"] for group in sweep_facts(path)["groups"]]
    assert sorted("each domain a task" in how for how in said) == [False, True]
    assert all("scored on 20% of the train rows, held out" in how for how in said)
