"""Progress of a comparison: a bar on a terminal, a line a learner elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from rich.console import Console

from tosca_cache.bars import LiveDisplay
from tosca_cache.compare.run import CompareReporter
from tosca_cache.sweep.ledger import DONE, Finished


class CompareProgress(LiveDisplay, CompareReporter):
    """Shows the learner, its seeds and its task, and how many cells are done; see `compare.run.CompareReporter`."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "cells")
        self.bar = self.progress.add_task("compare", total=None)
        self.running, self.done, self.begun = "", 0, monotonic()

    def on_begin(self, cells: int, finished: int) -> None:
        """Sets the bar."""
        self.done = finished
        self.progress.update(self.bar, total=cells, completed=finished)
        if finished:
            self.on_note(f"{finished} of {cells} cells are finished already")

    def on_block(self, method: str, seeds: Sequence[int]) -> None:
        """Names who is running."""
        self.running, self.begun = f"{method}, seed {', '.join(map(str, seeds))}", monotonic()
        self.progress.update(self.bar, description=self.running)

    def on_task(self, number: int, tasks: int) -> None:
        """Shows how far it is."""
        self.progress.update(self.bar, description=f"{self.running}, task {number + 1}/{tasks} learned")

    def on_finished(self, method: str, finished: Sequence[Finished]) -> None:
        """Moves the bar on; prints a line where there is no terminal, and every failure anywhere."""
        self.done += len(finished)
        self.progress.update(self.bar, completed=self.done)
        accuracies = [f"{cell.result['last_accuracy']:.2f}" for cell in finished if cell.result is not None]
        if not self.progress.shown and accuracies:
            self.on_note(f"{self.running}: A_T {' '.join(accuracies)}, {monotonic() - self.begun:.1f} s")
        for cell in finished:
            if cell.state != DONE:
                self.on_note(f"{method} {cell.state}: {cell.reason}")
