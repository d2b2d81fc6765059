"""Progress of a comparison: a bar on a terminal, a line a learner elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from rich.console import Console
from rich.progress import TextColumn, TimeRemainingColumn

from tosca_cache.bars import After, LiveDisplay, curve
from tosca_cache.compare.run import CompareReporter
from tosca_cache.sweep.ledger import DONE, Finished


class CompareProgress(LiveDisplay, CompareReporter):
    """Shows the learner, its seeds and its task, how many cells are done, the best so far and its curve over time.

    after: called whenever cells were finished. See `compare.run.CompareReporter`.
    """

    def __init__(self, console: Console, after: After | None = None) -> None:
        super().__init__(console, "cells", TimeRemainingColumn(), TextColumn("{task.fields[best]}", markup=False))
        self.bar = self.progress.add_task("compare", total=None, best="")
        self.running, self.done, self.begun = "", 0, monotonic()
        self.after, self.best, self.bests = after, "", list[float]()

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
        self._show_best(method, finished)
        if not self.progress.shown and accuracies:
            self.on_note(f"{self.running}: A_T {' '.join(accuracies)}, {monotonic() - self.begun:.1f} s")
        for cell in finished:
            if cell.state != DONE:
                self.on_note(f"{method} {cell.state}: {cell.reason}")
        if self.after is not None:
            self.after()

    def _show_best(self, method: str, finished: Sequence[Finished]) -> None:
        """The best last accuracy of any cell so far."""
        found = [cell.result["last_accuracy"] for cell in finished if cell.result is not None]
        best = max((value for value in found if value is not None), default=None)
        if best is not None and (not self.bests or best > self.bests[-1]):
            self.best = f"best {best:.2f}: {method}"
            self.bests.append(best)
        elif self.bests:
            self.bests.append(self.bests[-1])
        self.progress.update(self.bar, best=f"{self.best} {curve(self.bests)}".rstrip())
