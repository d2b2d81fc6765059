"""Progress of an extraction: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tosca_cache.bars import Bar
from tosca_cache.terminal import make_console
from tosca_cache.text import one_line

INTERVAL = 10.0  # seconds between plain lines


class ExtractionProgress:
    """Counts images; the rate is that of this run, images done by an earlier run play no part in it.

    Arguments:
        total, done: images of both splits, and how many of them an earlier run has finished.
        quiet: show nothing.
    """

    def __init__(self, name: str, total: int, done: int, *, quiet: bool = False) -> None:
        self.console = make_console(stderr=True, quiet=quiet)
        self.name, self.total, self.done, self._before = one_line(name), total, done, done
        self._begun = self._said = time.monotonic()
        rate = TextColumn("{task.fields[rate]:.1f} images/s", markup=False)
        columns = (TextColumn("extract {task.description}", markup=False), BarColumn(), MofNCompleteColumn(), rate)
        self._bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console)
        self._task = self._bar.add_task(self.name, total=total, completed=done, rate=0.0)

    def __enter__(self) -> ExtractionProgress:
        self._begun = self._said = time.monotonic()
        if self._bar.shown:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar.shown:
            self._bar.stop()
        else:
            self._say()

    @property
    def rate(self) -> float:
        """Images a second since this run began."""
        return (self.done - self._before) / max(time.monotonic() - self._begun, 1e-9)

    def advance(self, images: int) -> None:
        """Some more images are through the backbone."""
        self.done += images
        self._bar.update(self._task, completed=self.done, rate=self.rate)
        if not self._bar.shown and time.monotonic() - self._said > INTERVAL:
            self._say()

    def announce(self, text: str) -> None:
        """A line of its own, above the bar; nothing for an empty text."""
        if text:
            self.console.print(text, soft_wrap=True)

    def _say(self) -> None:
        self._said = time.monotonic()
        left = (self.total - self.done) / self.rate if self.rate else 0.0
        ending = f", about {left / 60:.1f} min left" if left else ""
        self.announce(f"extract {self.name}: {self.done}/{self.total} images, {self.rate:.1f} images/s{ending}")
