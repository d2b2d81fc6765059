"""Searches: each cell gives what `tosca train` gives, none is run twice, limits hold; what is chosen, and what is said."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from campaign import times
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sweep_help import (
    BAD,
    QUICK,
    QUICK_DOMAINS,
    SHARED,
    UNEQUAL,
    alone,
    assert_as_alone,
    cell_of,
    cells_in,
    make_data,
    make_runner,
    sql,
)

from tosca_cache.config import resolve
from tosca_cache.config.schema import FLOWS, OPTIMIZERS
from tosca_cache.errors import RunError, UsageError
from tosca_cache.sweep import search
from tosca_cache.sweep.ledger import DIVERGED, DONE, Finished
from tosca_cache.sweep.progress import CellProgress
from tosca_cache.sweep.run import best_path, report_path
from tosca_cache.sweep.scenario import read_data
from tosca_cache.sweep.space import parse_set
from tosca_cache.train.engines import Engine

VALUES = {
    **{"flow": FLOWS, "optimizer": OPTIMIZERS, "lr": [1e-3, 0.025, 0.1], "l1": [0.0, 5e-4, 1e-2]},
    **{"weight_decay": [0.0, 1e-2], "momentum": [0.0, 0.9], "epochs": [1, 3], "mlp_ratio": [2, 4]},
    **{"router": ["sample", "sample", "batch"]},
    "schedule": [{}, {"scheduler": "constant"}, {"scheduler": "steplr", "milestones": (1,)}],
}
SETTING = st.fixed_dictionaries({key: st.sampled_from(values) for key, values in VALUES.items()})
ENGINES = pytest.mark.parametrize("name", ["native", "torch"])


def assert_each_as_alone(cells, data, engine):
    """Runs cells side by side, and each alone."""
    with make_runner(data, engine=engine) as runner:
        runner.run_stage("", cells)
        results = runner.results(cells)
    assert results.keys() == {cell.address for cell in cells}
    for cell in cells:
        assert_as_alone(results[cell.address], cell, data, Engine(engine.name))


@settings(max_examples=times(12, 150))
@given(
    mixture=st.lists(st.tuples(SETTING, st.integers(0, 3), st.booleans()), min_size=1, max_size=6),
    engine=st.builds(Engine, st.sampled_from(["native", "torch"]), st.integers(1, 3)),
    rows=st.sampled_from(["test", "val", "half-1"]),
    tasks=st.sampled_from([(3, None), (3, 1), (2, 3)]),
    counts=st.lists(st.integers(4, 11), min_size=7, max_size=7),
)
def test_every_cell_gives_what_tosca_train_gives(mixture, engine, rows, tasks, counts):
    """Random mixtures, tasks of unequal rows and classes, several groups."""
    base, cells = replace(QUICK, increment=tasks[0], init_cls=tasks[1]), []
    for setting, seed, curve in mixture:
        values = dict(setting)
        cells.append(cell_of(replace(base, **values.pop("schedule"), **values), seed, rows, curve=curve))
    assert_each_as_alone(cells, make_data(counts, (5,) * 7), engine)


@ENGINES
@pytest.mark.parametrize("counts", [SHARED, UNEQUAL], ids=["shared", "unequal"])
def test_so_does_every_cell_of_domains(counts, name):
    settings = [replace(QUICK_DOMAINS, lr=lr) for lr in (0.01, 0.05)]
    cells = [cell_of(config, seed, rows) for config in settings for seed in range(3) for rows in ("val", "test")]
    assert_each_as_alone(cells, make_data(counts), Engine(name))


@ENGINES
def test_a_diverging_cell_is_reported_and_harms_no_other(name):
    data, engine = make_data(), Engine(name, 2)
    configs = [replace(QUICK, lr=0.01), replace(QUICK, **BAD), replace(QUICK, flow="adapter")]
    cells = [cell_of(config, seed) for config in configs for seed in (1, 2)]
    with make_runner(data, engine=engine) as runner:
        runner.run_stage("", cells)
        known = {cell.address: cell for cell in runner.ledger.cells()}
    for cell in cells:
        found = known[cell.address]
        if cell.config.lr == BAD["lr"]:
            assert found.state == "diverged" and found.result is None and "task 1" in found.reason
            assert found.reason.startswith(("the loss was", "a parameter was not finite"))
        else:
            assert_as_alone(found.result, cell, data, Engine(name))


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


def test_a_search_by_the_last_accuracy_evaluates_once(sweep, tmp_path):
    for metric, curve in (("last_accuracy", False), ("average_accuracy", True)):
        sweep("lr=0.001,0.02", metric=metric, ledger=metric)
        cells = cells_in(tmp_path / f"{metric}.sqlite", rows="val")
        assert [("R" in cell.result, "average_accuracy" in cell.result) for cell in cells] == [(curve, curve)] * 4
        assert all("R" in cell.result for cell in cells_in(tmp_path / f"{metric}.sqlite", rows="test"))


def test_one_value_holds_for_the_base_setting_too_and_keys_that_belong_together_stay(sweep, tmp_path):
    report, _ = sweep("scheduler=steplr", "milestones=1,2", "epochs=3")
    assert {(s.config.scheduler, s.config.milestones) for s in report.top} == {("steplr", (1,)), ("steplr", (2,))}
    assert not any("epochs" in s.point for s in report.top)
    assert {cell.content["setting"]["epochs"] for cell in cells_in(tmp_path / "sweep.sqlite")} == {3}


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_where_a_search_ends(sweep, sampler):
    report, told = sweep("lr=0.001,0.002,0.003", "l1=0,0.001", sampler=sampler, trials=2)
    assert (report.settings, report.cells, told.stages[0]) == (2, 4, ("search", 4, 0))
    # Under adam, every momentum gives the same setting: after the first there is nothing new to try.
    idle = ("momentum=0.1,0.9", "optimizer=adam") if sampler == "grid" else ("momentum=lin:0.1:0.9", "optimizer=adam")
    assert sweep(*idle, sampler=sampler, trials=6, seeds=(1,), ledger="idle")[0].settings == 1
    if sampler != "grid":
        with pytest.raises(UsageError, match=r"never ends(.|\n)*--trials"):
            sweep("lr=log:0.001:0.1", sampler=sampler)


@pytest.mark.parametrize(("sampler", "rounds"), [("random", [14]), ("tpe", [6, 6, 2])])
def test_rounds_of_a_sampler_are_the_same_again(sweep, sampler, rounds, monkeypatch):
    monkeypatch.setattr(search, "ROUND", 6)
    how = {"sampler": sampler, "trials": 14}
    axes = ("lr=log:0.0001:0.1", "flow=tosca,adapter", "optimizer=sgd,adam", "momentum=lin:0.1:0.9")
    first, told = sweep(*axes, **how, seeds=(1,))
    assert [cells for name, cells, _ in told.stages if name == "search"] == rounds and first.settings == 14
    again, told = sweep(*axes, **how, seeds=(1,))
    assert told.finished == [] and again.top == first.top
    other, _ = sweep(*axes, **how, seeds=(7,))
    assert [s.point for s in other.top] != [s.point for s in first.top]


def test_what_failed_is_tried_again_and_what_diverged_is_not(sweep, tmp_path):
    ledger, axes = tmp_path / "sweep.sqlite", ("lr=0.01,1e20", "l1=0.0005,1e20")
    first, _ = sweep(*axes)
    lost = [cell for cell in cells_in(ledger) if cell.state == "diverged"]
    assert first.lost == len(lost) > 0 and all(cell.reason for cell in lost)
    assert sweep(*axes)[1].finished == []
    sql(ledger, "UPDATE cells SET state='failed', reason='no memory' WHERE address=?", lost[0].address)
    assert sweep(*axes)[1].finished == [lost[0].address]
    attempts = {cell.address: cell.attempts for cell in cells_in(ledger)}
    assert attempts.pop(lost[0].address) == 2 and set(attempts.values()) == {1}


def test_the_chosen_setting_is_the_best_mean_and_its_report_is_fresh_and_written(sweep, store, tmp_path):
    report, told = sweep("lr=0.0001,0.02", "l1=0.0005,0.05", report_seeds=(5, 6, 7))
    assert (report.settings, report.cells, report.lost) == (4, 8, 0)
    assert told.stages == [("search", 8, 0), ("report: chosen", 3, 0), ("report: base setting", 3, 0)]
    held_out, by_setting = cells_in(tmp_path / "sweep.sqlite", rows="val"), {}
    for cell in held_out:
        key = (cell.content["setting"]["lr"], cell.content["setting"]["l1"])
        by_setting.setdefault(key, []).append(cell.result["last_accuracy"])
    means = {key: np.mean(values) for key, values in by_setting.items()}
    assert [s.mean for s in report.top] == pytest.approx(sorted(means.values(), reverse=True))
    best = report.top[0]
    chosen = best.point["lr"], best.point["l1"]
    assert (means[chosen], best.spread) == (max(means.values()), pytest.approx(np.std(by_setting[chosen], ddof=1)))
    assert told.best[-1] == best.words() and "±" in best.words()
    sparsity = {cell.content["setting"]["l1"]: cell.result["sparsity"] for cell in held_out}
    assert sparsity[0.05] > sparsity[0.0005], "a stronger penalty leaves sparser modules"
    assert [(f.name, f.seeds, f.lost) for f in report.finals] == [("chosen", 3, 0), ("base setting", 3, 0)]
    data = read_data(store)
    for final, config in zip(report.finals, (best.config, QUICK), strict=True):
        metrics = [alone(cell_of(config, seed), data, Engine())[1] for seed in (5, 6, 7)]
        for name, (mean, spread) in final.metrics.items():
            assert mean == pytest.approx(np.mean([m[name] for m in metrics]), abs=1e-3)
            assert spread == pytest.approx(np.std([m[name] for m in metrics], ddof=1), abs=1e-3)
    written = json.loads(report_path(tmp_path / "sweep.sqlite").read_text())
    assert [written[name] for name in ("settings", "cells", "metric")] == [4, 8, "last_accuracy"]
    assert written["how"] == report.how and written["top"][0]["point"] == best.point
    assert written["report"][0]["last_accuracy"]["mean"] == report.finals[0].metrics["last_accuracy"][0]
    config = resolve(config=str(best_path(tmp_path / "sweep.sqlite"))).config
    assert config == replace(best.config, seeds=(5, 6, 7))


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("val", "20% of the train rows of each class of each domain held out"),
        ("first-task", "the first domain alone, 20% of the train rows of each class of each domain held out"),
        ("test-oracle", "test rows (an oracle: not a result)"),
    ],
)
def test_a_search_over_domains_says_what_it_was_made_on(select, said):
    request = search.SweepRequest(QUICK_DOMAINS, parse_set(["lr=0.001,0.05"]), seeds=(1, 2), select=select)
    assert request.how == f"chosen on {said}"


def test_a_setting_with_a_diverged_seed_is_not_chosen_and_if_all_diverge_it_is_said(sweep, tmp_path):
    """Whatever its other seeds reached."""
    ledger = tmp_path / "sweep.sqlite"
    best, other = sweep("lr=0.001,0.02")[0].top
    (lost, _) = [c for c in cells_in(ledger, rows="val") if c.content["setting"]["lr"] == best.point["lr"]]
    sql(ledger, "UPDATE cells SET state='diverged', reason='x' WHERE address=?", lost.address)
    report, _ = sweep("lr=0.001,0.02")
    assert report.top == [other] and report.lost == 1 and report.finals[0].point == other.point
    report, _ = sweep("lr=0.001,0.02", "l1=0,0.001", base=replace(QUICK, **BAD), ledger="base")
    base = report.finals[-1]
    assert (base.name, base.seeds, base.lost) == ("base setting", 0, 2)
    assert all(np.isnan(mean) for mean, _ in base.metrics.values())
    with pytest.raises(RunError, match=r"not one setting has finished on all its seeds(.|\n)*tosca report") as raised:
        sweep("lr=1e20", "l1=1e20")
    assert raised.value.where == str(ledger)


def test_two_phases_use_disjoint_classes(sweep, tmp_path):
    report, told = sweep("lr=0.001,0.02", select="two-phase", report_seeds=(4, 5))
    assert "first half of the classes" in report.how
    rows = [cell.content["select"] for cell in cells_in(tmp_path / "sweep.sqlite")]
    assert rows.count({"rows": "half-1", "evaluated": "last"}) == 4
    assert rows.count({"rows": "half-2"}) == len(rows) - 4 == len(told.finished) - 4


def test_a_terminal_sees_cells_task_time_the_best_and_its_curve(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    console, told = Console(file=io.StringIO(), force_terminal=True, width=160), []
    with CellProgress(console, after=lambda: told.append(1)) as progress:
        progress.on_stage("search", 4, 1)
        progress.on_task(0, 9)
        for best in (90.0, 95.0, 97.0):
            progress.on_best(best, f"{best:.2f} ± 0.20: lr 0.1")
        progress.on_finished([Finished("a", DONE, {"last_accuracy": 1.0}), Finished("b", DIVERGED, reason="nan")])
        progress.progress.refresh()
    shown = console.file.getvalue()
    assert "3/4" in shown and "search, task 1/9" in shown and re.search(r"\d:\d\d:\d\d", shown)
    assert "best 97.00 ± 0.20: lr 0.1 ▁▆█" in shown
    assert "a cell diverged: nan" in shown and told == [1]
