"""Telling the user that bytes are on their way: a bar on a terminal, elsewhere a line at the beginning."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tosca_cache.terminal import make_console

LEAST = 1 << 20  # bytes; what is less is not worth a line


@contextmanager
def transfer(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that counts bytes, from any thread. what: such as `fetching NAME`. total: bytes."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    console = make_console(stderr=True, quiet=total < LEAST)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=console, transient=True)
    task, turn = bar.add_task(what, total=total), threading.Lock()
    if not console.is_terminal:
        console.print(f"{what}: {total / 1e6:.1f} MB", soft_wrap=True)

    def advance(count: int) -> None:
        with turn:
            bar.advance(task, count)

    if console.is_terminal:
        with bar:
            yield advance
    else:
        yield advance
