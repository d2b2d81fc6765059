"""What a sweep chooses and reports: by held-out rows, by other classes, and what an oracle must say."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ledger_help import sql

from tosca_cache.config import resolve
from tosca_cache.errors import RunError
from tosca_cache.sweep.run import best_path, report_path
from tosca_cache.sweep.scenario import read_data
from tosca_cache.sweep.search import ORACLE
from tosca_cache.train.engines import Engine

BAD = {"lr": 1e20, "l1": 1e20}


def test_the_chosen_setting_is_the_best_mean_and_its_report_is_fresh_and_written(
    sweep, store, cells_in, tmp_path, alone, cell_of, quick
):
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
    assert means[best.point["lr"], best.point["l1"]] == max(means.values())
    assert best.spread == pytest.approx(np.std(by_setting[best.point["lr"], best.point["l1"]], ddof=1))
    assert told.best[-1] == best.words() and "±" in best.words()
    sparsity = {cell.content["setting"]["l1"]: cell.result["sparsity"] for cell in held_out}
    assert sparsity[0.05] > sparsity[0.0005], "a stronger penalty leaves sparser modules"
    assert [(f.name, f.seeds, f.lost) for f in report.finals] == [("chosen", 3, 0), ("base setting", 3, 0)]
    data = read_data(store)
    for final, config in zip(report.finals, (best.config, quick), strict=True):
        metrics = [alone(cell_of(config, seed), data, Engine())[1] for seed in (5, 6, 7)]
        for name, (mean, spread) in final.metrics.items():
            assert mean == pytest.approx(np.mean([m[name] for m in metrics]), abs=1e-3)
            assert spread == pytest.approx(np.std([m[name] for m in metrics], ddof=1), abs=1e-3)
    written = json.loads(report_path(tmp_path / "sweep.sqlite").read_text())
    assert written["how"] == "chosen on 20% of each class's train rows held out"
    facts = [written[name] for name in ("settings", "cells", "metric")]
    assert facts == [4, 8, "last_accuracy"] and written["top"][0]["point"] == best.point
    assert written["report"][0]["last_accuracy"]["mean"] == report.finals[0].metrics["last_accuracy"][0]
    chosen = resolve(config=str(best_path(tmp_path / "sweep.sqlite"))).config
    assert chosen == replace(best.config, seeds=(5, 6, 7))


def test_few_shot_metrics_are_reported(sweep, quick):
    report, _ = sweep("lr=0.001,0.02", base=replace(quick, shots=3))
    for final in report.finals:
        assert 0 <= final.metrics["harmonic_mean"][0] <= 100 and "performance_drop" in final.metrics


def test_a_setting_with_a_diverged_seed_is_not_chosen_and_if_all_diverge_it_is_said(sweep, cells_in, tmp_path, quick):
    """Whatever its other seeds reached."""
    ledger = tmp_path / "sweep.sqlite"
    best, other = sweep("lr=0.001,0.02")[0].top
    (lost, _) = [c for c in cells_in(ledger, rows="val") if c.content["setting"]["lr"] == best.point["lr"]]
    sql(ledger, "UPDATE cells SET state='diverged', reason='x' WHERE address=?", lost.address)
    report, _ = sweep("lr=0.001,0.02")
    assert report.top == [other] and report.lost == 1
    assert report.finals[0].point == other.point
    report, _ = sweep("lr=0.001,0.02", "l1=0,0.001", base=replace(quick, **BAD), ledger="base")
    base = report.finals[-1]
    assert (base.name, base.seeds, base.lost) == ("base setting", 0, 2)
    assert all(np.isnan(mean) for mean, _ in base.metrics.values())
    with pytest.raises(RunError, match="not one setting has finished on all its seeds") as raised:
        sweep("lr=1e20", "l1=1e20")
    assert raised.value.where == str(ledger) and "tosca report" in raised.value.remedy


def test_an_oracle_is_called_one_and_leaves_no_setting_to_train_with(sweep, tmp_path):
    sweep("lr=0.0001,0.02")
    assert best_path(tmp_path / "sweep.sqlite").exists()
    report, _ = sweep("lr=0.0001,0.02", select="test-oracle")
    assert report.how == ORACLE and "oracle" in json.loads(report_path(tmp_path / "sweep.sqlite").read_text())["how"]
    assert not best_path(tmp_path / "sweep.sqlite").exists()


def test_two_phases_use_disjoint_classes(sweep, cells_in, tmp_path):
    report, told = sweep("lr=0.001,0.02", select="two-phase", report_seeds=(4, 5))
    assert "first half of the classes" in report.how
    rows = [cell.content["select"] for cell in cells_in(tmp_path / "sweep.sqlite")]
    assert rows.count({"rows": "half-1", "evaluated": "last"}) == 4
    assert rows.count({"rows": "half-2"}) == len(rows) - 4 == len(told.finished) - 4
