"""The live display of a sweep on a terminal, and what is left of it where there is none."""

import io
import re

from rich.console import Console

from tosca_cache.sweep.ledger import DIVERGED, DONE, Finished
from tosca_cache.sweep.progress import SweepProgress


def follow(console):
    with SweepProgress(console) as progress:
        progress.on_stage("search", 4, 1)
        progress.on_task(0, 9)
        progress.on_finished([Finished("a", DONE, {"last_accuracy": 1.0}), Finished("b", DIVERGED, reason="nan")])
        progress.on_best("93.10 ± 0.20: lr 0.1")
        progress.progress.refresh()
        progress.on_stage("report: chosen", 2, 0)
        progress.on_finished([Finished("c", DONE, {}), Finished("d", DONE, {})])
    return console.file.getvalue()


def test_a_terminal_sees_cells_task_best_and_time(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    shown = follow(Console(file=io.StringIO(), force_terminal=True, width=160))
    assert "3/4" in shown
    assert "task 1/9 of a block" in shown
    assert "best 93.10 ± 0.20: lr 0.1" in shown
    assert re.search(r"\d:\d\d:\d\d", shown)
    assert "a cell diverged: nan" in shown


def test_elsewhere_there_is_a_line_a_stage():
    lines = follow(Console(file=io.StringIO(), force_terminal=False, width=160)).splitlines()
    assert lines[0] == "a cell diverged: nan"
    assert lines[1].startswith("search: 3/4 cells in ")
    assert lines[1].endswith("1 diverged or failed; best 93.10 ± 0.20: lr 0.1")
    assert lines[2].startswith("report: chosen: 2/2 cells in ")
    assert len(lines) == 3


def test_the_best_over_time_is_a_small_curve(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    told = []
    with SweepProgress(console, after=lambda: told.append(1)) as progress:
        progress.on_stage("search", 3, 0)
        for best in ("90.00", "95.00 ± 0.10", "97.00"):
            progress.on_finished([Finished("a", DONE, {})])
            progress.on_best(f"{best}: lr 0.1")
        progress.progress.refresh()
    assert "best 97.00: lr 0.1 ▁▆█" in console.file.getvalue()
    assert len(told) == 3
