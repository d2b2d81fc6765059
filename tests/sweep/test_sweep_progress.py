"""The live display of cells on a terminal, and what is left of it where there is none."""

import io
import re

import pytest
from rich.console import Console

import tosca_cache as tosca
from tosca_cache.sweep.ledger import DIVERGED, DONE, Finished
from tosca_cache.sweep.progress import CellProgress


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


@pytest.mark.parametrize("kind", ["sweep", "compare"])
def test_elsewhere_there_is_a_line_a_stage_or_a_learner(make_store, tmp_path, kind):
    console, store = Console(file=io.StringIO(), width=160), make_store(tmp_path / "store", noise=2.0)
    quick = {"increment": 2, "epochs": 2, "mlp_ratio": 4, "se_ratio": 4, "ledger": tmp_path / "ledger"}
    with CellProgress(console) as progress:
        if kind == "sweep":
            axes = {"lr": [0.01, 1e20], "l1": [0.0, 1e20]}
            tosca.sweep(store, axes, reporter=progress, seeds=[1], report_seeds=[1], **quick)
        else:
            tosca.compare(store, ["nmc", "lda"], reporter=progress, seeds=[1, 2], **quick)
    lines = [line for line in console.file.getvalue().splitlines() if "compiled" not in line]
    if kind == "compare":
        assert {re.sub(r"[\d.]+", "0", line) for line in lines} == {f"{m}, seed 0: A_T 0, 0 s" for m in ("nmc", "lda")}
        return
    stages = [line for line in lines if " cells in " in line]
    assert stages[0].startswith("search: 4/4 cells in ") and "diverged or failed; best " in stages[0]
    assert [line[:23] for line in stages[1:]] == ["report: chosen: 1/1 cel", "report: base setting: 1"]
    assert any(line.startswith("a cell diverged: ") for line in lines)
