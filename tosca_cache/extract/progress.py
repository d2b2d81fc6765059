"""Progress over images, of an extraction or an adaptation: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.progress import TimeRemainingColumn

from tosca_cache.bars import LiveDisplay
from tosca_cache.terminal import make_console
from tosca_cache.text import one_line

INTERVAL = 10.0  # seconds between plain lines


class ImageProgress(LiveDisplay):
    """Counts images; the rate is that of this run, images done by an earlier run play no part in it.

    Arguments:
        what: is being done, to which dataset. total, done: images, and how many of them an earlier run has finished.
        quiet: show nothing.
    """

    def __init__(self, what: str, total: int, done: int, *, quiet: bool = False) -> None:
        console = make_console(stderr=True, quiet=quiet)
        self.what, self.total, self.done, self._before = one_line(what), total, done, done
        self._begun = self._said = time.monotonic()
        super().__init__(console, "images, {task.fields[rate]:.1f} images/s", TimeRemainingColumn())
        self._task = self.progress.add_task(self.what, total=total, completed=done, rate=0.0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if not self.progress.shown:
            self._say()

    def advance(self, images: int) -> None:
        """Some more images are through the backbone."""
        self.done += images
        self.progress.update(self._task, completed=self.done, rate=self._rate)
        if not self.progress.shown and time.monotonic() - self._said > INTERVAL:
            self._say()

    @property
    def _rate(self) -> float:
        """Images a second since this run began."""
        return (self.done - self._before) / max(time.monotonic() - self._begun, 1e-9)

    def _say(self) -> None:
        self._said = time.monotonic()
        left = (self.total - self.done) / self._rate if self._rate else 0.0
        ending = f", about {left / 60:.1f} min left" if left else ""
        self.on_note(f"{self.what}: {self.done}/{self.total} images, {self._rate:.1f} images/s{ending}")
