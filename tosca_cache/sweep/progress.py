"""Progress of cells, of a sweep or a comparison: one live display on a terminal; notes are lines everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import TextColumn, TimeRemainingColumn

from tosca_cache.bars import After, LiveDisplay, curve
from tosca_cache.sweep.ledger import DONE, Finished

MOST_LOST = 5  # lost cells of a stage that are named; the ledger has them all


class CellProgress(LiveDisplay):
    """Cells done, what is running, the best so far and its curve over time, and the time that is left.

    console: nothing is shown if None. after: called whenever cells were finished.
    """

    def __init__(self, console: Console | None = None, after: After | None = None) -> None:
        best = TextColumn("{task.fields[best]}", markup=False)
        super().__init__(console or Console(quiet=True), "cells", TimeRemainingColumn(), best)
        self.bar = self.progress.add_task("cells", total=None, best="")
        self.running, self.who, self.lost = "", "a cell", 0
        self.after, self.bests = after, list[float]()

    def on_stage(self, name: str, cells: int, finished: int) -> None:
        """Starts the bar of a stage."""
        self.running, self.lost = name, 0
        self.progress.reset(self.bar, total=cells, completed=finished, description=name)

    def on_block(self, name: str) -> None:
        """Names who is running."""
        self.running = self.who = name
        self.progress.update(self.bar, description=name)

    def on_task(self, done: int, tasks: int) -> None:
        """Shows how far the running block is."""
        self.progress.update(self.bar, description=f"{self.running}, task {done + 1}/{tasks}")

    def on_finished(self, finished: Sequence[Finished]) -> None:
        """Moves the bar on; names the first few cells that came to nothing."""
        for cell in finished:
            if cell.state != DONE:
                self.lost += 1
                if self.lost <= MOST_LOST:
                    self.on_note(f"{self.who} {cell.state}: {cell.reason}")
        self.progress.update(self.bar, advance=len(finished))
        if self.after is not None:
            self.after()

    def on_best(self, score: float, text: str) -> None:
        """Shows the best so far."""
        self.bests.append(score)
        self.progress.update(self.bar, best=f"best {text} {curve(self.bests)}".rstrip())
