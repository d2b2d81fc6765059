"""Which cells a search runs: each gives what `tosca train` gives, none is run twice, and limits hold."""

from dataclasses import replace

import pytest
from campaign import times
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_help import sql

from tosca_cache.config.schema import FLOWS, OPTIMIZERS
from tosca_cache.errors import UsageError
from tosca_cache.sweep import search
from tosca_cache.train.engines import Engine

SETTING = st.fixed_dictionaries(
    {
        "flow": st.sampled_from(FLOWS),
        "optimizer": st.sampled_from(OPTIMIZERS),
        "schedule": st.sampled_from([{}, {"scheduler": "constant"}, {"scheduler": "steplr", "milestones": (1,)}]),
        "lr": st.sampled_from([1e-3, 0.025, 0.1]),
        "l1": st.sampled_from([0.0, 5e-4, 1e-2]),
        "weight_decay": st.sampled_from([0.0, 1e-2]),
        "momentum": st.sampled_from([0.0, 0.9]),
        "epochs": st.sampled_from([1, 3]),
        "mlp_ratio": st.sampled_from([2, 4]),
        "router": st.sampled_from(["sample", "sample", "batch"]),
    }
)
BAD = {"lr": 1e20, "l1": 1e20}


@settings(max_examples=times(12, 150))
@given(
    mixture=st.lists(st.tuples(SETTING, st.integers(0, 3), st.booleans()), min_size=1, max_size=6),
    name=st.sampled_from(["native", "torch"]),
    threads=st.integers(1, 3),
    rows=st.sampled_from(["test", "val", "half-1"]),
    tasks=st.sampled_from([(3, None), (3, 1), (2, 3)]),
    counts=st.lists(st.integers(4, 11), min_size=7, max_size=7),
)
def test_every_cell_gives_what_tosca_train_gives(
    make_data, make_runner, cell_of, alone, quick, mixture, name, threads, rows, tasks, counts, assert_as_alone
):
    """Random mixtures, tasks of unequal rows and classes, several groups."""
    data, engine = make_data(counts, (5,) * 7), Engine(name, threads)
    base = replace(quick, increment=tasks[0], init_cls=tasks[1])
    cells = []
    for setting, seed, curve in mixture:
        values = dict(setting)
        cells.append(cell_of(replace(base, **values.pop("schedule"), **values), seed, rows, curve=curve))
    with make_runner(data, engine=engine) as runner:
        runner.run_stage("", cells)
        results = runner.results(cells)
    assert results.keys() == {cell.address for cell in cells}
    for cell in cells:
        assert_as_alone(results[cell.address], alone(cell, data, Engine(name)))


@pytest.mark.parametrize("name", ["native", "torch"])
def test_a_diverging_cell_is_reported_and_harms_no_other(
    make_data, make_runner, cell_of, alone, quick, name, assert_as_alone
):
    data = make_data()
    configs = [replace(quick, lr=0.01), replace(quick, **BAD), replace(quick, flow="adapter")]
    cells = [cell_of(config, seed) for config in configs for seed in (1, 2)]
    with make_runner(data, engine=Engine(name, 2)) as runner:
        runner.run_stage("", cells)
        known = {cell.address: cell for cell in runner.ledger.cells()}
    for cell in cells:
        found = known[cell.address]
        if cell.config.lr == BAD["lr"]:
            assert found.state == "diverged" and found.result is None
            assert found.reason.startswith(("the loss was", "a parameter was not finite"))
            assert "task 1" in found.reason
        else:
            assert_as_alone(found.result, alone(cell, data, Engine(name)))


def test_nothing_finished_is_run_again_and_a_new_value_runs_only_its_own_cells(sweep):
    first, told = sweep("lr=0.001,0.02", "l1=0,0.001")
    assert len(told.finished) == 4 * 2 + 2 + 2
    again, told = sweep("lr=0.001,0.02", "l1=0,0.001")
    assert told.finished == [] and told.stages[0] == ("search", 8, 8)
    assert again.top == first.top and again.finals == first.finals
    more, told = sweep("lr=0.001,0.02,0.1", "l1=0,0.001")
    assert more.settings == 6 and told.stages[0] == ("search", 12, 8)
    assert len(told.finished) - 2 * 2 in (0, 2), "the report trains another choice, if there is one"
    _, told = sweep("lr=0.001,0.02,0.1", "l1=0,0.001", seeds=(1, 2, 3))
    assert told.stages[0] == ("search", 18, 12)


def test_a_search_measures_what_it_needs(sweep, cells_in, tmp_path):
    """By the last accuracy one evaluation is enough."""
    for metric, curve in (("last_accuracy", False), ("average_accuracy", True)):
        sweep("lr=0.001,0.02", metric=metric, ledger=metric)
        cells = cells_in(tmp_path / f"{metric}.sqlite", rows="val")
        assert [("R" in cell.result, "average_accuracy" in cell.result) for cell in cells] == [(curve, curve)] * 4
        assert all("R" in cell.result for cell in cells_in(tmp_path / f"{metric}.sqlite", rows="test"))


def test_settings_that_differ_in_no_key_that_counts_are_one_and_keys_that_belong_together_stay(
    sweep, cells_in, tmp_path
):
    report, told = sweep("optimizer=sgd,adam", "momentum=0.5,0.9")
    assert report.settings == 3 and told.stages[0] == ("search", 6, 0)
    report, _ = sweep("scheduler=steplr", "milestones=1,2", "epochs=3", ledger="other")
    assert {(s.config.scheduler, s.config.milestones) for s in report.top} == {("steplr", (1,)), ("steplr", (2,))}
    assert not any("epochs" in s.point for s in report.top)
    cells = cells_in(tmp_path / "other.sqlite")
    assert {cell.content["setting"]["epochs"] for cell in cells} == {3}, "one value holds for the base setting, too"


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_where_a_search_ends(sweep, sampler):
    report, told = sweep("lr=0.001,0.002,0.003", "l1=0,0.001", sampler=sampler, trials=2)
    assert (report.settings, report.cells) == (2, 4)
    assert told.stages[0] == ("search", 4, 0)
    if sampler == "grid":
        return
    assert sweep("lr=0.001,0.02", sampler=sampler, ledger="finite")[0].settings == 2
    # Under adam, every momentum gives the same setting: after the first there is nothing new to try.
    idle = {"sampler": sampler, "trials": 6, "seeds": (1,), "ledger": "idle"}
    assert sweep("momentum=lin:0.1:0.9", "optimizer=adam", **idle)[0].settings == 1
    with pytest.raises(UsageError, match="never ends") as raised:
        sweep("lr=log:0.001:0.1", sampler=sampler)
    assert "--trials" in raised.value.remedy


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_rounds_of_a_sampler_are_the_same_again(sweep, sampler, monkeypatch):
    monkeypatch.setattr(search, "ROUND", 6)
    how = {"sampler": sampler, "trials": 14}
    axes = ("lr=log:0.0001:0.1", "flow=tosca,adapter", "optimizer=sgd,adam", "momentum=lin:0.1:0.9")
    first, told = sweep(*axes, **how, seeds=(1,))
    stages = [cells for name, cells, _ in told.stages if name == "search"]
    assert stages == ([14] if sampler == "random" else [6, 6, 2]) and first.settings == 14
    assert all(("momentum" in s.point) == (s.point["optimizer"] == "sgd") for s in first.top)
    again, told = sweep(*axes, **how, seeds=(1,))
    assert told.finished == [] and again.top == first.top
    other, _ = sweep(*axes, **how, seeds=(7,))
    assert [s.point for s in other.top] != [s.point for s in first.top]


def test_what_failed_is_tried_again_and_what_diverged_is_not(sweep, tmp_path, cells_in):
    ledger, axes = tmp_path / "sweep.sqlite", ("lr=0.01,1e20", "l1=0.0005,1e20")
    first, _ = sweep(*axes)
    lost = [cell for cell in cells_in(ledger) if cell.state == "diverged"]
    assert first.lost == len(lost) > 0 and all(cell.reason for cell in lost)
    assert sweep(*axes)[1].finished == []
    sql(ledger, "UPDATE cells SET state='failed', reason='no memory' WHERE address=?", lost[0].address)
    assert sweep(*axes)[1].finished == [lost[0].address]
    attempts = {cell.address: cell.attempts for cell in cells_in(ledger)}
    assert attempts.pop(lost[0].address) == 2 and set(attempts.values()) == {1}
