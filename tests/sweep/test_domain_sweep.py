"""Sweeps of streams whose tasks are domains: which rows cells see, and stacked seeds of unequal domains are as alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.gaussian import make_domain_arrays

from tosca_cache.config import TrainConfig
from tosca_cache.errors import ConfigError, StoreError, UsageError
from tosca_cache.sweep.plan import plan_groups
from tosca_cache.sweep.request import SweepRequest
from tosca_cache.sweep.scenario import Data, Scenario, make_scenario
from tosca_cache.sweep.search import Search
from tosca_cache.sweep.space import parse_set
from tosca_cache.tasks import domain_order
from tosca_cache.train.engines import Engine

BASE = TrainConfig(incremental="domains", epochs=2, batch_size=8, mlp_ratio=4, se_ratio=4, device="cpu")
CPU = torch.device("cpu")
DOMAINS = ("x", "y", "z")
SHARED = [[9] * 4] * 3
UNEQUAL = [[9, 9, 9, 0], [9, 0, 9, 0], [20, 9, 9, 9]]
# Rows of each class in each domain: none, or enough to hold one out.
COUNTS = st.lists(
    st.lists(st.just(0) | st.integers(2, 9), min_size=5, max_size=5).filter(lambda row: sum(map(bool, row)) > 1),
    min_size=3,
    max_size=3,
)
SEEDS = st.integers(0, 2**32 - 1)


def make_data(train, noise=0.7, seed=2):
    generator = np.random.default_rng(seed)
    C = len(train[0])
    means, shifts = 2 * generator.normal(size=(C, 8)), generator.normal(size=(3, 8))
    test = np.where(np.array(train) > 0, 5, 0)
    splits = [make_domain_arrays(generator, n, 8, v, means, shifts, noise) for n, v in ((train, 4), (test, 1))]
    return Data(*splits, tuple(f"class {c}" for c in range(C)), DOMAINS)


def rows_of(stream, split):
    """{store row: (domain's name, class)} of one split of all tasks."""
    found = {}
    for t, domain in enumerate(stream.domain_names):
        rows = stream.task(t).train if split == "train" else stream.test(t)
        found |= {
            int(row): (domain, int(stream.class_of[label])) for row, label in zip(rows.index, rows.labels, strict=True)
        }
    return found


def truth(arrays, chosen=lambda d, c: True):
    pairs = zip(arrays.domains.tolist(), arrays.labels.tolist(), strict=True)
    return {row: (DOMAINS[d], c) for row, (d, c) in enumerate(pairs) if chosen(d, c)}


@given(counts=COUNTS, fraction=st.sampled_from([0.01, 0.2, 0.5, 0.99]), seed=SEEDS, shuffle=st.booleans())
def test_val_cuts_each_class_of_each_domain_in_two(counts, fraction, seed, shuffle):
    data = make_data(counts)
    data.test.features[:] = np.nan
    stream = make_scenario(Scenario("val", fraction), replace(BASE, shuffle=shuffle), data, seed)
    kept, held = rows_of(stream, "train"), rows_of(stream, "test")
    assert not set(kept) & set(held)
    assert kept | held == truth(data.train)
    for d, row in enumerate(counts):
        for c, n in enumerate(row):
            out = list(held.values()).count((DOMAINS[d], c))
            assert (not n and not out) or (1 <= out <= n - 1 and (abs(out - fraction * n) <= 0.5 or out in (1, n - 1)))


@given(counts=COUNTS, seed=SEEDS, shuffle=st.booleans())
def test_first_task_is_val_on_the_first_domain(counts, seed, shuffle):
    data, config = make_data(counts), replace(BASE, shuffle=shuffle)
    whole, first = (make_scenario(Scenario(rows, 0.25), config, data, seed) for rows in ("val", "first-task"))
    assert len(first) == 1
    assert first.domain_names == whole.domain_names[:1]
    for ours, theirs in ((first.task(0).train, whole.task(0).train), (first.test(0), whole.test(0))):
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.index, theirs.index)
        np.testing.assert_array_equal(ours.features, theirs.features)
    np.testing.assert_array_equal(first.class_of, whole.class_of[: len(first.class_of)])


@given(counts=COUNTS, seed=SEEDS)
def test_halves_are_halves_of_each_domain_and_test_is_all(counts, seed):
    data = make_data(counts)
    own = [[c for c in range(5) if row[c]] for row in counts]
    halves = {
        "half-1": [classes[: len(classes) // 2] for classes in own],
        "half-2": [classes[len(classes) // 2 : len(classes) // 2 * 2] for classes in own],
        "test": own,
    }
    for rows, classes in halves.items():
        stream = make_scenario(Scenario(rows), BASE, data, seed)
        assert stream.domain_names == tuple(DOMAINS[d] for d in domain_order(data.train.domains, seed))
        for split in ("train", "test"):
            assert rows_of(stream, split) == truth(getattr(data, split), lambda d, c, own=classes: c in own[d])


def test_held_out_rows_follow_from_the_seed_domain_and_class():
    data = make_data(SHARED)

    def held(data, seed, **setting):
        found = rows_of(make_scenario(Scenario("val", 0.3), replace(BASE, **setting), data, seed), "test")
        return {row for row, (domain, _) in found.items() if domain == "y"}

    expected = held(data, 1)
    assert expected == held(data, 1, lr=0.1, epochs=9, shuffle=False)
    assert len({tuple(sorted(held(data, seed))) for seed in range(5)}) == 5
    chosen = np.ones((3, 4), dtype=bool)
    chosen[0] = False
    assert expected == held(data.where(chosen), 1), "whatever other domains there are"


def test_what_cannot_be_held_out_or_halved_is_refused():
    with pytest.raises(UsageError, match="class 'class 1' of domain 'y' has 1 train rows"):
        make_scenario(Scenario("val", 0.2), BASE, make_data([[4] * 3, [4, 1, 4], [4] * 3]), 1)
    with pytest.raises(UsageError, match="domain 'y' has one class, which has no half"):
        make_scenario(Scenario("half-1"), BASE, make_data([[4] * 3, [4, 0, 0], [4] * 3]), 1)


@pytest.mark.parametrize("engine", ["torch", "native"])
@pytest.mark.parametrize("counts", [SHARED, UNEQUAL], ids=["shared", "unequal"])
def test_stacked_seeds_give_what_each_gives_alone(make_runner, cell_of, alone, assert_as_alone, counts, engine):
    data, engine = make_data(counts), Engine(engine)
    cells = [
        cell_of(replace(BASE, lr=lr), seed, rows)
        for lr in (0.01, 0.05)
        for seed in range(3)
        for rows in ("val", "test")
    ]
    with make_runner(data, engine=engine) as runner:
        runner.run_cells(cells)
        results = runner.results(cells)
    for cell in cells:
        assert_as_alone(results[cell.address], alone(cell, data, engine))


def test_seeds_whose_domains_come_in_other_sizes_are_other_groups(cell_of):
    cells = [cell_of(BASE, seed) for seed in range(6)]
    (shared,) = plan_groups(cells, make_data(SHARED), Engine(), CPU)
    assert shared.describe()["classes of each domain"] == (4, 4, 4)
    data = make_data(UNEQUAL)
    groups = plan_groups(cells, data, Engine(), CPU)
    sizes = [group.describe()["classes of each domain"] for group in groups]
    assert len(set(sizes)) == len(sizes) > 1
    for group, size in zip(groups, sizes, strict=True):
        assert {tuple(make_scenario(c.scenario, c.config, data, c.seed).sizes) for c in group.cells} == {size}
        assert "increment" not in group.describe()


@pytest.mark.parametrize("select", ["val", "first-task", "two-phase", "test-oracle"])
def test_every_choice_works_and_says_what_it_was_made_on(make_runner, select):
    request = SweepRequest(BASE, parse_set(["lr=0.001,0.05"]), seeds=(1, 2), select=select)
    with make_runner(make_data(UNEQUAL, noise=2.0)) as runner:
        search = Search(request, runner)
        assert search.run()
        assert len(search.scored()) == 2
    said = {
        "val": "chosen on 20% of the train rows of each class of each domain held out",
        "first-task": "chosen on the first domain alone, 20% of the train rows of each class of each domain held out",
        "two-phase": "chosen on the first half of each domain's classes",
        "test-oracle": "chosen on test rows (an oracle: not a result)",
    }
    assert request.how == said[select]


def test_axes_of_task_sizes_are_refused():
    for assignment in ("increment=2,3", "init_cls=2,3", "increment=3"):
        with pytest.raises(ConfigError, match="each domain is a task"):
            SweepRequest(BASE, parse_set([assignment]), seeds=(1,))


def test_a_sweep_on_a_store_of_one_domain_is_refused_before_anything_is_trained(sweep):
    with pytest.raises(StoreError, match="one domain only"):
        sweep("lr=0.01,0.02", base=BASE)


def test_a_ledger_of_both_kinds_keeps_them_apart(make_runner, cell_of, tmp_path):
    from typer.testing import CliRunner

    from tosca_cache.cli.app import app

    data, path = make_data(SHARED), tmp_path / "both.sqlite"
    configs = [replace(BASE, incremental="classes", increment=2), BASE]
    with make_runner(data, ledger=path) as runner:
        runner.run_cells([cell_of(config, seed, "val") for config in configs for seed in (1, 2)])
    shown = CliRunner().invoke(app, ["sweep", "show", str(path)], env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("scored on 20% of the train rows, held out") == 2
    assert shown.output.count("each domain a task, scored on 20%") == 1
    plain = json.loads(CliRunner().invoke(app, ["sweep", "show", str(path), "--json"]).output)
    assert len(json.dumps(plain).split('"incremental": "domains"')) >= 2
