"""The live display of cells on a terminal; tests/cli has what is left of it where there is none."""

import io
import re

from rich.console import Console

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
