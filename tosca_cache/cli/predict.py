"""`tosca predict`: ask a model what is on photos."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.extract import Device
from tosca_cache.cli.learn import ModelPath, Weights
from tosca_cache.cli.options import Plugins
from tosca_cache.errors import UsageError
from tosca_cache.files import asked_file, file_errors
from tosca_cache.terminal import echo, make_console
from tosca_cache.text import csv_text, one_line

if TYPE_CHECKING:
    from tosca_cache.model.answers import Answer

LEAST = 5e-4  # probability of a class that is named besides the likeliest
WIDEST = 48  # characters of a path in the table
COLUMNS = ("path", "label", "probability", "novelty", "error")


def predict(
    model: ModelPath,
    photos: Annotated[
        list[str] | None,
        typer.Argument(help="Photos, folders, globs, lists (.csv); - for paths from standard input."),
    ] = None,
    features: Annotated[Path | None, typer.Option(help="Ask about all rows of a feature store instead.")] = None,
    top: Annotated[int, typer.Option(help="How many classes to name.", min=1)] = 3,
    threshold: Annotated[
        float, typer.Option(help="Answer unknown below this probability.", min=0.0, max=1.0, metavar="P")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a photo.")] = False,
    table: Annotated[Path | None, typer.Option("--csv", help="Write a CSV file as well.", metavar="FILE")] = None,
    link: Annotated[
        Path | None, typer.Option(help="Link the photos into a folder of each class in DIR.", metavar="DIR")
    ] = None,
    move: Annotated[Path | None, typer.Option(help="Move them there.", metavar="DIR")] = None,
    weights: Weights = None,
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Ask a model what is on photos: classes, calibrated probabilities, and whether a photo looks like none of them.

    A photo that cannot be read is one line with its error; the exit code is 1 then.
    """
    from tosca_cache.bars import counting
    from tosca_cache.model.answers import answer_photos, answer_store, check_sortable, photo_paths, sort_photo
    from tosca_cache.model.saved import open_model
    from tosca_cache.model.session import encoder_of
    from tosca_cache.store import open_store

    if bool(photos) == (features is not None):
        raise UsageError("give photos or features", where="tosca predict", remedy="tosca predict MODEL PHOTO.jpg")
    if link is not None and move is not None:
        raise UsageError("photos are linked or moved", where="--link, --move", remedy="leave one of them out")
    if features is not None and (link or move):
        raise UsageError("rows of a store are no files", where="--link, --move", remedy="give photos")
    opened, failed = open_model(model, device=device), 0
    how: dict[str, Any] = {"top": top, "threshold": threshold}
    target = move or link
    if target is not None:
        check_sortable(opened, target)
    with ExitStack() as stack:
        write_row = _csv(stack, table, top)
        if features is not None:
            answers = answer_store(opened, open_store(features), **how)
        else:
            encoder, paths = encoder_of(opened, weights), photo_paths(photos or [], sys.stdin)
            move_bar = stack.enter_context(counting(make_console(stderr=True, quiet=sys.stdout.isatty()), "predict"))
            answers = answer_photos(opened, encoder, paths, on_progress=lambda n: move_bar(advance=n), **how)
        for answer in answers:
            failed += answer.error is not None
            echo(answer.to_json() if as_json else _line(answer))
            write_row(answer)
            if target is not None:
                sort_photo(answer, target, move=move is not None)
    if failed:
        raise typer.Exit(1)


def _csv(stack: ExitStack, table: Path | None, top: int) -> Callable[[Answer], None]:
    """What writes a row; the file takes its place when all are written."""
    if table is None:
        return lambda answer: None
    stack.enter_context(file_errors(table, UsageError, option="--csv"))
    file = stack.enter_context(asked_file(table))
    others = [name for number in range(2, top + 1) for name in (f"label{number}", f"probability{number}")]
    file.write(csv_text([[*COLUMNS, *others]]))

    def write(answer: Answer) -> None:
        """One row."""
        more = [value for pair in answer.top[1:] for value in pair]
        values = [answer.path, answer.label, answer.probability, answer.novelty, answer.error, *more]
        file.write(csv_text([values + [None] * (len(COLUMNS) + len(others) - len(values))]))

    return write


def _line(answer: Answer) -> str:
    path = one_line(answer.path)
    shown = path if len(path) <= WIDEST else f"...{path[3 - WIDEST :]}"
    if answer.error is not None:
        return f"{shown}  cannot be read: {one_line(answer.error)}"
    named = [
        f"{one_line(name)} {100 * p:.1f} %" for place, (name, p) in enumerate(answer.top) if not place or p >= LEAST
    ]
    if answer.label != answer.top[0][0]:
        named[0] = f"{answer.label} ({named[0]})"
    rest = f"  (then {', '.join(named[1:])})" if named[1:] else ""
    return f"{shown}  {named[0]}{rest}" + ("  looks like none of the classes" if answer.is_novel else "")
