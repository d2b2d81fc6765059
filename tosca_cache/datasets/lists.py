"""A CSV file that lists images: columns path and label, and optionally split (train or test) and domain."""

from __future__ import annotations

import csv
import io
import stat
from pathlib import Path, PurePosixPath

from tosca_cache.datasets.rows import SPLITS, Row
from tosca_cache.errors import DatasetError
from tosca_cache.files import file_errors, read_limited
from tosca_cache.text import one_line

REQUIRED, OPTIONAL = ("path", "label"), ("split", "domain")
MAX_BYTES = 1 << 28  # some millions of images


def is_list(path: Path) -> bool:
    """Whether a path names a list rather than a folder."""
    return path.suffix.lower() == ".csv" and path.is_file()


def read_list(file: Path, name: str, suffixes: frozenset[str]) -> list[Row]:
    """The rows of a list.

    Paths are relative to the folder that the list lies in, and may not leave it. Labels and domains are texts. Without a
    column domain, `name` is the only one.

    Raises `DatasetError` if the list or a line of it cannot be used; names the line.
    """
    try:
        reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True, skipinitialspace=True)
        rows: list[Row] = []
        header: list[str] | None = None
        seen: dict[str, int] = {}
        for given in reader:
            cells = [cell.strip() for cell in given]
            if not any(cells):
                continue
            if header is None:
                header = [cell.lower() for cell in cells]
                if not set(REQUIRED) <= set(header) <= {*REQUIRED, *OPTIONAL} or len(set(header)) < len(header):
                    raise ValueError(f"it must name {_COLUMNS}, separated by commas, and not {', '.join(header)}")
                continue
            if len(cells) != len(header):
                raise ValueError(f"it has {len(cells)} cells, but the first line has {len(header)}")
            row = _row(file, reader.line_num, dict(zip(header, cells, strict=True)), name, suffixes)
            if (first := seen.setdefault(row.path, reader.line_num)) != reader.line_num:
                raise ValueError(f"it lists {row.path!r}, which line {first} lists, too")
            rows.append(row)
    except (csv.Error, ValueError) as error:
        no_csv = "it is no valid CSV: " if isinstance(error, csv.Error) else ""
        raise _wrong(file, reader.line_num, f"{no_csv}{error}") from error
    if not rows:
        remedy = "list one image a line, below the names of columns"
        raise DatasetError("the list has no images", where=file, remedy=remedy)
    return rows


_COLUMNS = f"the columns {', '.join(REQUIRED)}, and perhaps {', '.join(OPTIONAL)}"


def _text(file: Path) -> str:
    with file_errors(file, DatasetError, option="--dataset"):
        data = read_limited(file, MAX_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _wrong(file, line, "it is not valid UTF-8; save the list as CSV in UTF-8") from error


def _row(file: Path, line: int, cells: dict[str, str], name: str, suffixes: frozenset[str]) -> Row:
    """Raises `ValueError` for a line that cannot be used."""
    for column, cell in cells.items():
        if not cell:
            raise ValueError(f"its {column} is empty")
    if cells.get("split", "train") not in SPLITS:
        raise ValueError(f"its split is {cells['split']!r}, which must be train or test")
    path = PurePosixPath(cells["path"])
    if path.is_absolute() or ".." in path.parts or "\0" in cells["path"] or not path.name:
        raise ValueError(f"its path {cells['path']!r} must lead to a file below the folder of the list")
    try:
        regular = stat.S_ISREG((file.parent / path).stat().st_mode)
    except OSError as error:
        raise ValueError(f"{path.as_posix()!r} cannot be read: {error.strerror}") from error
    if not regular or path.suffix.lower() not in suffixes:
        what = f"files of {path.suffix or 'no suffix'} are no images" if regular else "it is no file"
        raise ValueError(f"{path.as_posix()!r} cannot be read here: {what}")
    return Row(cells["label"], path.as_posix(), cells.get("domain", name), cells.get("split"), f"{file}:{line}")


def _wrong(file: Path, line: int, problem: str) -> DatasetError:
    return DatasetError(
        f"line {line} of the list cannot be used: {one_line(problem)}",
        where=f"{file}:{line}",
        remedy=f"docs/images.md: the first line names {_COLUMNS}",
    )
