"""Progress of training: bars on a terminal, a line a task elsewhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import TimeRemainingColumn

from tosca_cache.bars import LiveDisplay

MOST_NUMBERS = 10  # of a line: of a row with more, the average, the last and the lowest are printed


class TrainingProgress(LiveDisplay):
    """Shows epochs done over all tasks of a seed; see `runs.experiment.Reporter`.

    leaks: accuracies come from routing that leaks the task, and are labelled so.
    """

    def __init__(self, console: Console, *, leaks: bool = False) -> None:
        super().__init__(console, "epochs", TimeRemainingColumn())
        self.leaks, self.seed, self.tasks, self.epochs = leaks, 0, 0, 0
        self.bar = self.progress.add_task("train", total=None, visible=False)

    def on_seed(self, seed: int, tasks: int, epochs: int) -> None:
        """Starts the bar of a seed anew."""
        self.seed, self.tasks, self.epochs = seed, tasks, epochs
        words = f"train seed {seed}, task 1/{tasks}"
        self.progress.reset(self.bar, total=tasks * epochs, description=words, visible=True)

    def on_epoch(self, task: int, epoch: int) -> None:
        """Moves the bar on."""
        self._move(task, task * self.epochs + epoch + 1)

    def on_task(self, task: int, row: NDArray[np.float64]) -> None:
        """Moves the bar on, for learners without epochs, too; where it is not to be seen, prints the row of R."""
        self._move(task, (task + 1) * self.epochs)
        if not self.progress.shown:
            done = f"seed {self.seed}: task {task + 1}/{self.tasks} learned"
            label = " (routing leaks the task)" if self.leaks else ""
            self.console.print(f"{done}, accuracy by task{label} {row_words(row)}", soft_wrap=True)

    def _move(self, task: int, epochs: int) -> None:
        words = f"train seed {self.seed}, task {task + 1}/{self.tasks}"
        self.progress.update(self.bar, completed=epochs, description=words)


def row_words(row: NDArray[np.float64]) -> str:
    """A row of R, [tasks]: every number, or of many tasks what matters. The run's log has all of them."""
    if len(row) <= MOST_NUMBERS:
        return " ".join(f"{a:.1f}" for a in row)
    lowest = int(row.argmin())
    return f"{row.mean():.1f} on average, {row[-1]:.1f} the last, {row[lowest]:.1f} the lowest (task {lowest + 1})"
