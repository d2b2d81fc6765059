"""What a user asks about: photos, folders, globs, lists and standard input, as paths one after the other."""

from __future__ import annotations

import csv
import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from tosca_cache.datasets.decoding import Decoding
from tosca_cache.datasets.names import is_visible
from tosca_cache.errors import DatasetError, UsageError

STDIN = "-"
_LISTS = (".csv", ".txt")


def photo_paths(asked: Sequence[str], stdin: IO[str]) -> Iterator[str]:
    """Paths of photos, in order; nothing is opened but lists and folders.

    Arguments:
        asked: files, folders (with all images below them), globs, lists (.csv with a column path, .txt with a path a
            line), and `-` for paths from standard input, a line each.

    Raises `DatasetError` for a list that cannot be read, and `UsageError` for a glob or a folder without images.
    """
    for one in asked:
        path = Path(one)
        if one == STDIN:
            yield from (line for line in (line.rstrip("\r\n") for line in stdin) if line)
        elif path.is_dir():
            yield from _some(_below(path), one, "a folder without images")
        elif not path.exists() and glob.has_magic(one):
            yield from _some(sorted(glob.glob(one, recursive=True)), one, "no file is called so")  # noqa: PTH207
        elif path.suffix.lower() in _LISTS and path.is_file():
            yield from _listed(path)
        else:
            yield one  # one that is not there is answered as one that cannot be read


def _some(paths: Iterable[str], asked: str, problem: str) -> Iterator[str]:
    empty = True
    for path in paths:
        empty = False
        yield path
    if empty:
        raise UsageError(problem, where=asked, remedy="give photos, or a folder of them")


def _below(folder: Path) -> Iterator[str]:
    suffixes = Decoding().suffixes
    for path in sorted(folder.rglob("*")):
        hidden = any(not is_visible(part) for part in path.relative_to(folder).parts)
        if path.suffix.lower() in suffixes and not hidden and path.is_file():
            yield str(path)


def _listed(file: Path) -> Iterator[str]:
    """Paths of a list, relative to its folder."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError("the list cannot be read", where=file, remedy="give a text file in UTF-8") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if file.suffix.lower() == ".txt":
        yield from (str(file.parent / line.strip()) for line in lines)
        return
    rows = csv.DictReader(lines, skipinitialspace=True)
    if "path" not in (rows.fieldnames or ()):
        raise DatasetError("the list has no column path", where=file, remedy="name its columns in the first line")
    yield from (str(file.parent / row["path"]) for row in rows if row["path"])
