"""Progress of a sweep: one live display on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.progress import TextColumn, TimeRemainingColumn

from tosca_cache.bars import After, LiveDisplay, curve
from tosca_cache.sweep.ledger import DONE, Finished
from tosca_cache.sweep.runner import SweepReporter


class SweepProgress(LiveDisplay, SweepReporter):
    """Cells done, the best setting so far with its spread over seeds, its curve over time, and the time that is left.

    after: called whenever cells were finished.
    """

    def __init__(self, console: Console, after: After | None = None) -> None:
        best = TextColumn("{task.fields[best]}", markup=False)
        super().__init__(console, "{task.fields[unit]}", TimeRemainingColumn(), best)
        self.bar = self.progress.add_task("sweep", total=None, unit="cells", best="")
        self.stage, self.cells, self.done, self.lost, self.best, self.begun = "", 0, 0, 0, "", monotonic()
        self.after, self.bests = after, list[float]()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_stage()
        super().__exit__(kind, error, trace)

    def on_stage(self, name: str, cells: int, finished: int) -> None:
        """Ends the last stage and starts the bar of this one."""
        self._end_stage()
        self.stage, self.cells, self.done, self.lost, self.begun = name, cells, finished, 0, monotonic()
        self.best = self.best if name == "search" else ""
        self.progress.reset(self.bar, total=cells, completed=finished, description=name)
        self.progress.update(self.bar, best=f"best {self.best}" if self.best else "")

    def on_finished(self, finished: Sequence[Finished]) -> None:
        """Moves the bar on; names the first few cells that came to nothing."""
        self.done += len(finished)
        for cell in finished:
            if cell.state != DONE:
                self.lost += 1
                if self.lost <= 5:  # the ledger has them all
                    self.on_note(f"a cell {cell.state}: {cell.reason}")
        self.progress.update(self.bar, completed=self.done)
        if self.after is not None:
            self.after()

    def on_task(self, done: int, tasks: int) -> None:
        """Shows how far the running block is."""
        self.progress.update(self.bar, description=f"{self.stage}, task {done + 1}/{tasks} of a block")

    def on_best(self, text: str) -> None:
        """Shows the best setting so far."""
        self.best = text
        if mean := re.match(r"[\d.]+", text):
            self.bests.append(float(mean[0]))
        self.progress.update(self.bar, best=f"best {text} {curve(self.bests)}".rstrip())

    def _end_stage(self) -> None:
        if self.stage and not self.progress.shown:
            lost = f", {self.lost} diverged or failed" if self.lost else ""
            best = f"; best {self.best}" if self.best else ""
            seconds = monotonic() - self.begun
            self.console.print(
                f"{self.stage}: {self.done}/{self.cells} cells in {seconds:.1f} s{lost}{best}", soft_wrap=True
            )
        self.stage = ""
