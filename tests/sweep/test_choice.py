"""What a sweep chooses and reports: by held-out rows, by the first task, by other classes, and what an oracle must say."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from tosca_cache.config import resolve
from tosca_cache.errors import RunError
from tosca_cache.sweep.cells import Cell
from tosca_cache.sweep.request import ORACLE, SweepRequest
from tosca_cache.sweep.run import best_path, report_path
from tosca_cache.sweep.scenario import Scenario, read_data
from tosca_cache.sweep.search import Search, run_final
from tosca_cache.sweep.space import parse_set
from tosca_cache.tasks import class_order
from tosca_cache.train.engines import Engine

BAD = {"lr": 1e20, "l1": 1e20}


def test_the_chosen_setting_is_the_best_mean_and_its_report_is_fresh(
    sweep, store, cells_in, tmp_path, alone, cell_of, quick
):
    report, told = sweep("lr=0.0001,0.02", "l1=0.0005,0.05", report_seeds=(5, 6, 7))
    assert (report.settings, report.cells, report.lost, report.whole) == (4, 8, 0, True)
    held_out = cells_in(tmp_path / "sweep.sqlite", rows="val")
    by_setting = {}
    for cell in held_out:
        key = (cell.content["setting"]["lr"], cell.content["setting"]["l1"])
        by_setting.setdefault(key, []).append(cell.result["last_accuracy"])
    means = {key: np.mean(values) for key, values in by_setting.items()}
    assert [s.mean for s in report.top] == pytest.approx(sorted(means.values(), reverse=True))
    best = report.top[0]
    assert means[best.point["lr"], best.point["l1"]] == max(means.values())
    assert best.spread == pytest.approx(np.std(by_setting[best.point["lr"], best.point["l1"]], ddof=1))
    assert [(f.name, f.seeds, f.lost) for f in report.finals] == [("chosen", 3, 0), ("base setting", 3, 0)]
    data = read_data(store)
    for final, config in zip(report.finals, (best.config, quick), strict=True):
        metrics = [alone(cell_of(config, seed), data, Engine())[1] for seed in (5, 6, 7)]
        for name, (mean, spread) in final.metrics.items():
            assert mean == pytest.approx(np.mean([m[name] for m in metrics]), abs=1e-3)
            assert spread == pytest.approx(np.std([m[name] for m in metrics], ddof=1), abs=1e-3)
    sparsity = {cell.content["setting"]["l1"]: cell.result["sparsity"] for cell in held_out}
    assert sparsity[0.05] > sparsity[0.0005], "a stronger penalty leaves sparser modules"
    assert told.stages == [("search", 8, 0), ("report: chosen", 3, 0), ("report: base setting", 3, 0)]
    assert told.best[-1] == best.words() and "±" in best.words()


def test_what_a_sweep_leaves_beside_its_ledger(sweep, tmp_path):
    report, _ = sweep("lr=0.001,0.02", report_seeds=(5, 6), metric="average_accuracy")
    ledger = tmp_path / "sweep.sqlite"
    written = json.loads(report_path(ledger).read_text())
    assert written["how"] == "chosen on 20% of each class's train rows held out"
    assert (written["settings"], written["cells"], written["whole"], written["metric"]) == (
        2,
        4,
        True,
        "average_accuracy",
    )
    assert written["top"][0]["point"] == report.top[0].point
    assert written["report"][0]["last_accuracy"]["mean"] == report.finals[0].metrics["last_accuracy"][0]
    assert written["gap_to_the_honest_choice"] is None
    chosen = resolve(config=str(best_path(ledger))).config
    assert chosen == replace(report.top[0].config, seeds=(5, 6))


def test_a_setting_with_a_diverged_seed_is_not_chosen(sweep, cells_in, tmp_path):
    """Whatever its other seeds reached."""
    ledger = tmp_path / "sweep.sqlite"
    best, other = sweep("lr=0.001,0.02")[0].top
    (lost, _) = [c for c in cells_in(ledger, rows="val") if c.content["setting"]["lr"] == best.point["lr"]]
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        connection.execute("UPDATE cells SET state='diverged', reason='x' WHERE address=?", [lost.address])
    report, _ = sweep("lr=0.001,0.02")
    assert report.top == [other] and report.lost == 1
    assert report.finals[0].point == other.point


def test_if_nothing_works_the_sweep_says_so(sweep, tmp_path):
    with pytest.raises(RunError, match="not one setting has finished on all its seeds") as raised:
        sweep("lr=1e20", "l1=1e20")
    assert raised.value.where == str(tmp_path / "sweep.sqlite")
    assert "--retry" in raised.value.remedy


def test_an_oracle_is_called_one_and_shows_its_gap(sweep, tmp_path):
    report, _ = sweep("lr=0.0001,0.001,0.02", "l1=0,0.05", select="test-oracle")
    assert report.how == ORACLE and "oracle" in report.how
    assert [f.name for f in report.finals] == ["chosen", "honest choice", "base setting"]
    assert report.cells == 6 * 2 * 2
    chosen, honest, _ = report.finals
    assert report.gap == pytest.approx(chosen.metrics["last_accuracy"][0] - honest.metrics["last_accuracy"][0])
    assert report.gap >= 0, "over the seeds that it was chosen on"
    written = json.loads(report_path(tmp_path / "sweep.sqlite").read_text())
    assert "oracle" in written["how"] and written["gap_to_the_honest_choice"] == pytest.approx(report.gap)
    honest_alone, _ = sweep("lr=0.0001,0.001,0.02", "l1=0,0.05", ledger="other")
    assert honest_alone.finals[0].point == honest.point
    assert resolve(config=str(best_path(tmp_path / "sweep.sqlite"))).config.lr == honest_alone.top[0].config.lr


def test_two_phases_use_disjoint_classes(sweep, tmp_path, counting, cells_in):
    report, told = sweep("lr=0.001,0.02", select="two-phase", report_seeds=(4, 5))
    assert "first half of the classes" in report.how
    rows = [cell.content["select"] for cell in cells_in(tmp_path / "sweep.sqlite")]
    assert rows.count({"rows": "half-1", "evaluated": "last"}) == 4
    assert rows.count({"rows": "half-2"}) == len(rows) - 4 == len(told.finished) - 4
    assert {"rows": "test"} not in rows


def test_two_phases_on_two_stores(sweep, store, cells_in, make_store, tmp_path, alone, assert_as_alone, quick):
    other = make_store(tmp_path / "other", dataset="others", classes=4, seed=8)
    report, _ = sweep("lr=0.001,0.02", select="two-phase", tune_store=other, other_store=True)
    assert "another store" in report.how
    cells = cells_in(tmp_path / "sweep.sqlite", rows="test")
    assert len(cells) == len(cells_in(tmp_path / "sweep.sqlite"))
    places = {place.spec.digest(): place for place in (store, other)}
    for cell in cells:
        config = replace(quick, lr=cell.content["setting"]["lr"], seeds=(cell.content["seed"],))
        assert_as_alone(
            cell.result, alone(Cell(config, Scenario("test"), ""), read_data(places[cell.content["store"]]), Engine())
        )
    assert sum(cell.content["store"] == other.spec.digest() for cell in cells) == 2 * 2


def test_the_first_task_alone_decides(make_data, make_runner, quick):
    """Rows of later tasks, which for one seed are no numbers, cannot be read without notice."""
    request = SweepRequest(quick, parse_set(["lr=0.001,0.02"]), seeds=(3,), select="first-task")
    tables = []
    for spoiled in (False, True):
        data = make_data(noise=2.0)
        if spoiled:
            later = np.isin(data.train.labels, class_order(6, 3)[2:])
            data.train.features[later] = np.nan
        with make_runner(data) as runner:
            search = Search(request, runner)
            search.run()
            tables.append([(s.point, s.mean) for s in search.scored()])
    assert len(tables[0]) == 2 and tables[0] == tables[1]


def test_a_report_on_seeds_that_all_diverge_says_how_many(make_data, make_runner, quick):
    request = SweepRequest(replace(quick, **BAD), parse_set([]), seeds=(1,), report_seeds=(1, 2))
    with make_runner(make_data()) as runner:
        final = run_final("base setting", request, runner, {}, request.base)
    assert (final.seeds, final.lost) == (0, 2)
    assert all(np.isnan(mean) for mean, _ in final.metrics.values())


@pytest.mark.parametrize("axes", [["router=batch"], ["router=sample,batch"]])
def test_a_sweep_with_batch_routing_says_that_it_leaks(sweep, tmp_path, axes):
    report, told = sweep("lr=0.001,0.02", *axes)
    assert "leaks the task" in report.how
    assert "leaks the task" in told.notes[0]
    assert "leaks the task" in json.loads(report_path(tmp_path / "sweep.sqlite").read_text())["how"]
    honest, told = sweep("lr=0.001,0.02")
    assert "leaks" not in honest.how + str(told.notes)
