"""A CSV file that lists images: columns path and label, and optionally split (train or test) and domain."""

from __future__ import annotations

import csv
import difflib
import io
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tosca_cache.datasets.rows import SPLITS, Row
from tosca_cache.errors import DatasetError
from tosca_cache.text import one_line

REQUIRED, OPTIONAL = ("path", "label"), ("split", "domain")
COLUMNS = REQUIRED + OPTIONAL
MAX_BYTES = 1 << 28  # some millions of images


def is_list(path: Path) -> bool:
    """Whether a path names a list rather than a folder."""
    return path.suffix.lower() == ".csv" and path.is_file()


def read_list(file: Path, name: str, suffixes: frozenset[str]) -> tuple[list[Row], list[str]]:
    """The rows of a list, and the columns that say nothing here.

    Paths are relative to the folder that the list lies in, and may not leave it. Labels and domains are texts. Without a
    column domain, `name` is the only one.

    Raises `DatasetError` if the list or a line of it cannot be used; names the line.
    """
    try:
        return _read(file, name, suffixes)
    except OSError as error:
        raise DatasetError(
            f"the list cannot be read: {error.strerror or error}",
            where=error.filename or file,
            remedy="check the permissions",
        ) from error


def _read(file: Path, name: str, suffixes: frozenset[str]) -> tuple[list[Row], list[str]]:
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True, skipinitialspace=True)
    numbered = _numbered(file, reader)
    number, header = next(numbered, (1, []))
    places = _columns(file, number, header)
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, cells in numbered:
        if len(cells) != len(header):
            raise _wrong(file, number, f"it has {len(cells)} cells, but the first line has {len(header)}")
        row = _row(file, number, {key: cells[place].strip() for key, place in places.items()}, name, suffixes)
        if row.path in seen:
            raise _wrong(file, number, f"it lists {row.path!r}, which line {seen[row.path]} lists, too")
        seen[row.path] = number
        rows.append(row)
    if not rows:
        raise DatasetError(
            "the list has no images", where=file, remedy="list one image a line, below the names of columns"
        )
    return rows, [one_line(cell.strip()) for place, cell in enumerate(header) if place not in places.values()]


def _numbered(file: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of every row that is not empty."""
    before = 0
    try:
        for cells in reader:
            number, before = before + 1, reader.line_num
            if any(cell.strip() for cell in cells):
                yield number, cells
    except csv.Error as error:
        raise _wrong(file, before + 1, f"it is no valid CSV: {error}") from error


def _text(file: Path) -> str:
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise DatasetError(
            f"the list has {size:,} bytes, more than {MAX_BYTES:,}", where=file, remedy="give folders of images instead"
        )
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _wrong(file, line, "it is not valid UTF-8; save the list as CSV in UTF-8") from error


def _columns(file: Path, number: int, cells: list[str]) -> dict[str, int]:
    """Column -> place; other columns are left alone, unless they look like a slip."""
    names = [cell.strip().lower() for cell in cells]
    for name in names:
        near = [] if name in COLUMNS else difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.75)
        if near:
            raise _wrong(file, number, f"there is no column {name!r}; did you mean {near[0]!r}?")
        if name in COLUMNS and names.count(name) > 1:
            raise _wrong(file, number, f"it has the column {name!r} twice")
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise _wrong(
            file, number, f"the first line lacks the column {' and '.join(missing)}; cells are separated by commas"
        )
    return {name: names.index(name) for name in COLUMNS if name in names}


def _row(file: Path, number: int, cells: Mapping[str, str], name: str, suffixes: frozenset[str]) -> Row:
    for column, cell in cells.items():
        if not cell:
            raise _wrong(file, number, f"its {column} is empty")
    if cells.get("split", "train") not in SPLITS:
        raise _wrong(file, number, f"its split is {cells['split']!r}, which must be train or test")
    path = PurePosixPath(cells["path"])
    if path.is_absolute() or ".." in path.parts or "\0" in cells["path"] or not path.name:
        raise _wrong(file, number, f"its path {cells['path']!r} must lead to a file below the folder of the list")
    try:
        if not stat.S_ISREG((file.parent / path).stat().st_mode):
            raise _wrong(file, number, f"{path.as_posix()!r} is no file")
    except OSError as error:
        raise _wrong(file, number, f"{path.as_posix()!r} cannot be read: {error.strerror}") from error
    if path.suffix.lower() not in suffixes:
        problem = f"{path.as_posix()!r} cannot be read here: files of {path.suffix or 'no suffix'} are no images"
        raise _wrong(file, number, problem)
    return Row(cells["label"], path.as_posix(), cells.get("domain", name), cells.get("split"), f"{file}:{number}")


def _wrong(file: Path, line: int, problem: str) -> DatasetError:
    return DatasetError(
        f"line {line} of the list cannot be used: {one_line(problem)}",
        where=f"{file}:{line}",
        remedy=f"docs/images.md: the first line names the columns ({', '.join(REQUIRED)}, perhaps {', '.join(OPTIONAL)})",
    )
