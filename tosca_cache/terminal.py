"""Everything printed goes through here: text is text, never markup, and output that cannot be written costs no run."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import IO, TYPE_CHECKING, Any

import click

from tosca_cache.text import UNSAFE, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def echo(text: str = "", *, err: bool = False, nl: bool = True, label: str = "", color: str | None = None) -> None:
    """Prints text of any origin.

    Arguments:
        err: to standard error. nl: ends the line.
        label, color: what stands before the text, in that colour on a terminal; without a label all is coloured.
    """
    shown = printable(text)
    shown = click.style(label, fg=color, bold=True) + shown if label else click.style(shown, fg=color)
    click.echo(shown, file=sys.stderr if err else sys.stdout, nl=nl)


def echo_json(value: Any) -> None:
    """Prints plain values as JSON, for programs; text stays as it is where it is safe to print."""
    echo(json.dumps(value, indent=1, allow_nan=False))


@contextmanager
def resumable(how: str) -> Iterator[None]:
    """Within it, Ctrl-C ends the command with a word on how the same command goes on."""
    from typer import Exit

    try:
        yield
    except KeyboardInterrupt:
        echo(f"interrupted: run the same command again, {how}", err=True)
        raise Exit(130) from None


def make_console(*, stderr: bool = False, **options: Any) -> Console:
    """A rich console that takes what it is given as text; `options` are those of `rich.console.Console`."""
    kind: type[Console] = _console_type()
    return kind(stderr=stderr, markup=False, highlight=False, emoji=False, **options)


def print_rows(console: Console, title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of texts, in whose first column are names to be copied: it is printed whole."""
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    print_whole(console, table)


def print_whole(console: Console, table: Table) -> None:
    """Prints a table as wide as it needs, so that nothing is cut, however narrow the console is."""
    needed = console.measure(table, options=console.options.update(max_width=100_000)).maximum
    width = max(needed, console.width)
    make_console(file=console.file, width=width, force_terminal=console.is_terminal).print(table)


@cache
def _console_type() -> Any:
    from rich.console import Console
    from rich.segment import Segment

    class TextConsole(Console):
        """Shows control characters as escapes."""

        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(printable(text), **options)

        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                if segment.control is None and UNSAFE.search(segment.text):
                    yield Segment(printable(segment.text), segment.style)
                else:
                    yield segment

    return TextConsole


@contextmanager
def lasting_output() -> Iterator[None]:
    """Within it, standard output and error may fail or be closed: what is written afterwards is dropped, and work goes on.

    Ends with one line on standard error if something was dropped, and then with exit code 1, unless a reader had enough or
    there was no standard output from the start.
    """
    streams = sys.stdout, sys.stderr
    out, err = (_Lasting(stream) for stream in streams)
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    ended: SystemExit | None = None
    try:
        yield
    except SystemExit as error:
        ended = error
    finally:
        out.flush()
        if out.failure is not None:
            reason = out.failure.strerror or str(out.failure)
            dropped = f"standard output could not be written ({reason}); it is dropped, and the work went on"
            echo(dropped, err=True, label="warning: ")
        err.flush()
        sys.stdout, sys.stderr = streams
    if out.failure is not None and out.failure.errno != errno.EPIPE and (ended is None or not ended.code):
        raise SystemExit(1)
    if ended is not None:
        raise ended


@cache
def _nowhere() -> IO[str]:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 (not a file of the user's)


class _Lasting:
    """A text stream that drops everything once it has failed. failure: why."""

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream or _nowhere()  # Python has none where the descriptor was closed (`>&-`)
        self.failure: OSError | None = None
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Like the stream's own."""
        if self.failure is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Like the stream's own."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        """What is still in the stream's buffer goes nowhere, so that the interpreter's last flush cannot fail."""
        self.failure = error
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        except (OSError, ValueError):
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
