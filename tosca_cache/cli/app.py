"""The Typer app: gathers the verbs, and prints errors of our vocabulary without a traceback.

A file of this folder is a verb by the function of its name, or by `register(app)` where it has several.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from tosca_cache.cli import (
    adapt,
    cache,
    compare,
    conformance,
    export,
    export_runs,
    extract,
    fetch,
    learn,
    methods,
    predict,
    report,
    reproduce,
    route,
    run,
    serve,
    show,
    sweep,
    train,
)
from tosca_cache.cli.settings import WORDS
from tosca_cache.errors import ToscaError, ToscaWarning, UsageError, short_of_memory
from tosca_cache.terminal import echo, lasting_output
from tosca_cache.text import shortened


class ErrorsWithoutTraceback(TyperGroup):
    """Turns a `ToscaError` into its message on standard error and its exit code, and a `ToscaWarning` into its message."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keeps the words of the command, for messages that say which other command works."""
        WORDS.set(("tosca", *args))
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **options: Any) -> Any:
        """Reads and runs the command line; output that cannot be written is dropped, that of --help as well."""
        with lasting_output():
            return super().main(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command line."""
        try:
            _check_surroundings(WORDS.get()[1:])
            with warnings.catch_warnings():
                warnings.showwarning = _printing(warnings.showwarning)
                return super().invoke(ctx)
        except ToscaError as error:
            raise _ended(str(error), error.exit_code) from error
        except KeyboardInterrupt:
            echo("interrupted", err=True)
            raise typer.Exit(130) from None
        except (MemoryError, RuntimeError) as error:
            if not short_of_memory(error):
                raise
            remedy = "ask for less at a time (a smaller --batch-size, fewer --workers or --jobs)"
            raise _ended(f"memory is not enough\n  do:    {remedy}, or use a larger machine") from error
        except SystemExit as error:
            raise _ended(f"sys.exit({error.code!r}) was called while working, perhaps by a plugin") from error
        except OSError as error:
            if error.filename is None:  # of a file it is the machine's doing, of anything else a mistake of ours
                raise
            raise _ended(f"{error.strerror}\n  where: {shortened(str(error.filename))}") from error


def _ended(problem: str, code: int = 1) -> typer.Exit:
    """Prints what is wrong, and gives what ends the command."""
    echo(problem, err=True, label="error: ", color="red")
    return typer.Exit(code)


def _check_surroundings(words: Sequence[str]) -> None:
    """Raises `UsageError` for what no command can work with."""
    for before, word in pairwise(("tosca", *words)):
        if word == "" or re.fullmatch("--[a-z-]+=", word):
            remedy = "give a value; is a variable of the shell not set?"
            raise UsageError("an argument is empty", where=word.rstrip("=") or before, remedy=remedy)
    try:
        Path.cwd()
    except FileNotFoundError as error:
        problem = "the working directory does not exist any more"
        raise UsageError(problem, remedy="change into another folder") from error


def _printing(others: Callable[..., None]) -> Callable[..., None]:
    """`warnings.showwarning` that prints our own warnings as what they say, and leaves all others as they are."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, ToscaWarning):
            echo(f"warning: {message}", err=True, color="yellow")
        elif category.__name__ != "DecompressionBombWarning":  # Pillow's; the limit is --max-pixels, which says more
            others(message, category, *rest, **named)

    return show


app = typer.Typer(
    name="tosca",
    cls=ErrorsWithoutTraceback,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    help="Class-incremental learning on a frozen backbone: extract features once, then train and route in seconds.",
)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from tosca_cache import __version__

        echo(f"tosca {__version__}")
        raise typer.Exit


for verb in (
    *(run, fetch, extract, adapt, train, sweep, compare),
    *(methods, reproduce, show, report, export_runs, route),
    *(learn, predict, serve, export),
    *(cache, conformance),
):
    if hasattr(verb, "register"):
        verb.register(app)
    else:
        app.command()(getattr(verb, verb.__name__.rpartition(".")[2]))
