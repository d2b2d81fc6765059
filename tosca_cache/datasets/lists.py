"""A CSV file that lists images: columns path and label, and optionally split (train or test) and domain."""

from __future__ import annotations

import csv
import difflib
import io
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from tosca_cache.datasets.base import ImageDataset
from tosca_cache.datasets.decoding import Decoding
from tosca_cache.datasets.folder_dataset import Row, build_dataset, check_fraction, choose_test
from tosca_cache.datasets.folders import SPLITS
from tosca_cache.datasets.names import check_twins, counted, listed
from tosca_cache.errors import DatasetError, UsageError
from tosca_cache.text import one_line

REQUIRED, OPTIONAL = ("path", "label"), ("split", "domain")
COLUMNS = REQUIRED + OPTIONAL
MAX_BYTES = 1 << 28  # some millions of images


class Listed(NamedTuple):
    """One line. line: its number in the file, from 1. split: None if the list has no such column."""

    line: int
    path: str
    label: str
    split: str | None
    domain: str


def is_list(path: Path) -> bool:
    """Whether a path names a list rather than a folder."""
    return path.suffix.lower() == ".csv" and path.is_file()


def load_list(
    file: Path,
    *,
    name: str | None = None,
    test_fraction: float | None = None,
    seed: int = 1993,
    decoding: Decoding | None = None,
    only: str | None = None,
) -> ImageDataset:
    """The dataset in a list; paths are relative to the folder that the list lies in, and may not leave it.

    Labels and domains are texts, and numbered in the order of their names, as folders are. Rows are sorted by class, then
    by path, so that the order of lines plays no part.

    Arguments:
        name: what to call it; the file's own name by default.
        test_fraction, seed: as in `load_folder`, for lists without a column split; of each class in each domain.
        only: the rows of this split, or all if there is no column split, become train rows; then no fraction.

    Raises:
        UsageError: `test_fraction` is missing, or given though there is a column split.
        DatasetError: the list or a line of it cannot be used; names the line.
    """
    check_fraction(test_fraction)
    decoding, name = decoding or Decoding(), name or file.name
    try:
        lines, others = _read(file, name, decoding.suffixes)
    except OSError as error:
        raise DatasetError(
            f"the list cannot be read: {error.strerror or error}",
            where=error.filename or file,
            remedy="check the permissions",
        ) from error
    if only is not None:
        chosen = [_row(line) for line in lines if line.split in (None, only)]
        rows = {"train": chosen, "test": []}
    elif lines[0].split is None:
        rows = _divided(file, lines, test_fraction, seed)
    elif test_fraction is not None:
        raise UsageError(
            "--test-fraction is for lists without a column split", where=file, remedy="leave --test-fraction out"
        )
    else:
        rows = {split: [_row(line) for line in lines if line.split == split] for split in SPLITS}
    if only is None:
        _check_classes(file, lines, rows)
    dataset = build_dataset(file.parent, name, rows, decoding)
    left_out = {"columns of the list": [one_line(column) for column in others]} if others else {}
    return replace(dataset, listed_in=str(file), left_out=left_out, unchecked=True)


def _read(file: Path, name: str, suffixes: frozenset[str]) -> tuple[list[Listed], list[str]]:
    """Every line, checked by itself and against the others; and the columns that say nothing here."""
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True, skipinitialspace=True)
    numbered = _numbered(file, reader)
    number, header = next(numbered, (1, []))
    places = _columns(file, number, header)
    lines: list[Listed] = []
    seen: dict[str, int] = {}
    for number, cells in numbered:
        if len(cells) != len(header):
            raise _wrong(file, number, f"it has {len(cells)} cells, but the first line has {len(header)}")
        line = _line(file, number, {key: cells[place].strip() for key, place in places.items()}, name)
        _check_file(file, line, suffixes)
        if line.path in seen:
            raise _wrong(file, number, f"it lists {line.path!r}, which line {seen[line.path]} lists, too")
        seen[line.path] = number
        lines.append(line)
    if not lines:
        raise DatasetError(
            "the list has no images", where=file, remedy="list one image a line, below the names of columns"
        )
    return lines, [cell.strip() for place, cell in enumerate(header) if place not in places.values()]


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
    for name in COLUMNS:
        if names.count(name) > 1:
            raise _wrong(file, number, f"it has the column {name!r} twice")
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        hint = "; cells are separated by commas" if len(names) == 1 and any(c in names[0] for c in ";\t") else ""
        raise _wrong(file, number, f"the first line lacks the column {' and '.join(missing)}{hint}")
    return {name: names.index(name) for name in COLUMNS if name in names}


def _line(file: Path, number: int, cells: Mapping[str, str], name: str) -> Listed:
    for column, cell in cells.items():
        if not cell:
            raise _wrong(file, number, f"its {column} is empty")
    if cells.get("split", "train") not in SPLITS:
        raise _wrong(file, number, f"its split is {cells['split']!r}, which must be train or test")
    path = PurePosixPath(cells["path"])
    if path.is_absolute() or ".." in path.parts or "\0" in cells["path"] or not path.name:
        raise _wrong(file, number, f"its path {cells['path']!r} must lead to a file below the folder of the list")
    return Listed(number, path.as_posix(), cells["label"], cells.get("split"), cells.get("domain", name))


def _check_file(file: Path, line: Listed, suffixes: frozenset[str]) -> None:
    path = file.parent / line.path
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _wrong(file, line.line, f"{line.path!r} is no file")
    except OSError as error:
        raise _wrong(file, line.line, f"{line.path!r} cannot be read: {error.strerror}") from error
    if path.suffix.lower() not in suffixes:
        raise _wrong(
            file, line.line, f"{line.path!r} cannot be read here: files of {path.suffix or 'no suffix'} are no images"
        )


def _divided(file: Path, lines: list[Listed], test_fraction: float | None, seed: int) -> dict[str, list[Row]]:
    if test_fraction is None:
        raise UsageError("this list has no column split", where=file, remedy="add the column, or --test-fraction 0.2")
    domains = {line.domain for line in lines}
    groups: dict[tuple[str, ...], list[Listed]] = defaultdict(list)
    for line in lines:
        groups[(line.label, line.domain) if len(domains) > 1 else (line.label,)].append(line)
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for names, members in sorted(groups.items()):
        if len(members) < 2:
            said = " of domain ".join(repr(name) for name in names)
            raise _wrong(
                file, members[0].line, f"class {said} has this image only, which cannot be in both train and test"
            )
        chosen = choose_test(sorted(member.path for member in members), test_fraction, seed, *names)
        for member in members:
            rows["test" if member.path in chosen else "train"].append(_row(member))
    return rows


def _row(line: Listed) -> Row:
    return Row(line.label, tuple(line.path.split("/")), line.domain)


def _check_classes(file: Path, lines: list[Listed], rows: Mapping[str, list[Row]]) -> None:
    """Raises `DatasetError` unless every class of a domain is in both its splits."""
    check_twins("classes", (line.label for line in lines), file)
    for domain, only, other, names in _alone(rows):
        first = next(line for line in lines if line.domain == domain and line.label in names)
        of = f" of domain {domain!r}" if len({line.domain for line in lines}) > 1 else ""
        raise _wrong(
            file,
            first.line,
            f"{counted(names, 'class', 'classes')}{of} only in {only}: {listed(names)}; list some in {other}",
        )


def _alone(rows: Mapping[str, list[Row]]) -> Iterator[tuple[str, str, str, set[str]]]:
    """(domain, split that has them, split that lacks them, classes) wherever classes are in one split only."""
    classes: dict[str, dict[str, set[str]]] = defaultdict(lambda: {split: set() for split in SPLITS})
    for split in SPLITS:
        for row in rows[split]:
            classes[row.domain][split].add(row.class_name)
    for domain, found in sorted(classes.items()):
        for only, other in (("test", "train"), ("train", "test")):
            if found[only] - found[other]:
                yield domain, only, other, found[only] - found[other]


def _wrong(file: Path, line: int, problem: str) -> DatasetError:
    return DatasetError(
        f"line {line} of the list cannot be used: {one_line(problem)}",
        where=f"{file}:{line}",
        remedy=f"docs/images.md: the first line names the columns ({', '.join(REQUIRED)}, perhaps {', '.join(OPTIONAL)})",
    )
