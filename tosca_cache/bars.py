"""Bars of long work: on a terminal, in a notebook, and not at all elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from html import escape
from importlib import import_module
from types import TracebackType
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tosca_cache.text import printable

T = TypeVar("T")
After = Callable[[], None]
STEPS = "▁▂▃▄▅▆▇█"
CURVE = 16  # characters of a curve at most
REFRESH = 0.1  # seconds between two updates of a bar in a notebook


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class Bar(Progress):
    """rich's progress, which also shows in a notebook, with nothing but what every notebook has.

    shown: whether it is to be seen; lines that stand for it are then not needed.
    """

    def __init__(self, *columns: Any, console: Console) -> None:
        super().__init__(*columns, console=console, disable=not console.is_terminal)
        self._notebook = in_notebook() and not console.quiet
        self._handle: Any = None
        self._next = 0.0
        self.shown = console.is_terminal or self._notebook

    def start(self) -> None:
        """Shows it."""
        if self._notebook:
            display = import_module("IPython.display").display
            self._handle = display(self._bundle(), raw=True, display_id=True)
        elif self.shown:
            super().start()

    def stop(self) -> None:
        """Leaves it as it is."""
        self._show(at_once=True)
        if self.shown and not self._notebook:
            super().stop()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Changes the bar; see `rich.progress.Progress.update`."""
        super().update(task_id, **changes)
        self._show()

    def _show(self, *, at_once: bool = False) -> None:
        if self._handle is not None and (at_once or time.monotonic() > self._next):
            self._next = time.monotonic() + REFRESH
            self._handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        """The bar as text and as HTML."""
        lines, bars = [], []
        for task in filter(lambda task: task.visible, self.tasks):
            extra = [str(value) for value in task.fields.values() if isinstance(value, str) and value]
            total = "" if task.total is None else f"/{task.total:g}"
            words = printable(" ".join([f"{task.description} {task.completed:g}{total}", *extra]))
            elapsed = f", {task.elapsed:.0f} s" if task.elapsed else ""
            share = "" if task.total is None else f' value="{task.completed:g}" max="{task.total:g}"'
            lines.append(words + elapsed)
            bars.append(f"<div><progress{share}></progress> {escape(words + elapsed)}</div>")
        return {"text/plain": "\n".join(lines), "text/html": "".join(bars)}


def curve(values: Sequence[float]) -> str:
    """Values as a small curve of characters, evenly chosen if there are many; empty for fewer than two different ones."""
    every = max(1, -(-len(values) // CURVE))
    shown = values[::-1][::every][::-1]  # the last one is always among them
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    if len(shown) < 2 or high <= low:
        return ""
    return "".join(STEPS[round((value - low) / (high - low) * (len(STEPS) - 1))] for value in shown)


class LiveDisplay:
    """A bar that is shown within a `with` block, and lines above it.

    Arguments:
        unit: of what is counted. more: columns at its end.
    """

    def __init__(self, console: Console, unit: str, *more: ProgressColumn) -> None:
        text, unit_text = TextColumn("{task.description}", markup=False), TextColumn(unit, markup=False)
        columns = (text, BarColumn(), MofNCompleteColumn(), unit_text, TimeElapsedColumn())
        self.console = console
        self.progress = Bar(*columns, *more, console=console)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def on_note(self, text: str) -> None:
        """Prints a line above the bar."""
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def counting(
    console: Console, what: str = "", total: int | None = None, *, bytes: bool = False
) -> Iterator[Callable[..., None]]:
    """A bar of bytes, or of other things; yields what changes it, as `rich.progress.Progress.update` takes it."""
    counts: tuple[ProgressColumn, ...] = (MofNCompleteColumn(), TimeElapsedColumn())
    counts = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) if bytes else counts
    bar = Bar(TextColumn("{task.description}", markup=False), BarColumn(), *counts, console=console)
    with bar:
        yield partial(bar.update, bar.add_task(what, total=total))


def given_or_bar(given: T | None, bar: Callable[[], AbstractContextManager[T]]) -> AbstractContextManager[T | None]:
    """The reporter that was given; without one, in a notebook, a bar."""
    return bar() if given is None and in_notebook() else nullcontext(given)
