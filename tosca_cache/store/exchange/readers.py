"""Readers of external files, one for each suffix: which arrays there are, how large they are, and how each is loaded."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from tosca_cache.errors import UsageError
from tosca_cache.text import one_line

NUMBERED = re.compile(r"(.*?)_?(\d+)")  # columns of a table that are one array together


@dataclass(frozen=True)
class ExternalArray:
    """One array of a file. dtype: numpy's or arrow's name. bytes: that it takes in memory, at least. load: reads it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    load: Callable[[], Any]

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], load: Callable[[], Any]) -> ExternalArray:
        """An array of numpy's types; one of Python objects is never loaded."""
        if dtype.hasobject:
            load = _refusing(name, "it holds Python objects", "save numbers or texts")
        return cls(name, shape, dtype.name, prod(shape) * dtype.itemsize, load)

    def __str__(self) -> str:
        return f"{one_line(self.name)} {list(self.shape)} {self.dtype}"


def _refusing(name: str, problem: str, remedy: str) -> Callable[[], Any]:
    def load() -> Any:
        raise UsageError(problem, where=f"array {name!a}", remedy=remedy)

    return load


@contextmanager
def _pyarrow(path: Path) -> Iterator[None]:
    """Says what to install where pyarrow is missing."""
    try:
        yield
    except ImportError as error:
        problem, remedy = (
            f"reading {path.suffix} needs pyarrow, which is not installed",
            "pip install 'tosca-cache[exchange]'",
        )
        raise UsageError(problem, where=path, remedy=remedy) from error


def _npy(path: Path, stack: ExitStack) -> list[ExternalArray]:
    """The one array of a file; where the file is opened for itself, these are the features."""
    with path.open("rb") as file:
        shape, dtype = _header(file)
    return [ExternalArray.of("features", shape, dtype, partial(np.load, path, allow_pickle=False))]


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """What a .npy file says of its array."""
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _npz(path: Path, stack: ExitStack) -> list[ExternalArray]:
    opened, found = stack.enter_context(np.load(path, allow_pickle=False)), []
    for name in opened.files:
        with opened.zip.open(f"{name}.npy") as file:
            shape, dtype = _header(file)
            found.append(ExternalArray.of(name, shape, dtype, partial(opened.__getitem__, name)))
    return found


def _hdf5(path: Path, stack: ExitStack) -> list[ExternalArray]:
    """Every dataset; `visititems` follows no links."""
    import h5py

    found = []

    def add(name: str, dataset: Any) -> None:
        """Adds a dataset, not a group."""
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            return
        shape, dtype = dataset.shape, dataset.dtype
        if dataset.is_virtual or dataset.external:
            load = _refusing(name, "its data lies in other files", "copy the array into the file")
            found.append(ExternalArray(name, shape, dtype.name, 0, load))
        elif h5py.check_string_dtype(dtype) is not None:
            text = partial(dataset.asstr(errors="replace").__getitem__, ())
            found.append(ExternalArray(name, shape, "text", prod(shape) * dtype.itemsize, text))
        else:
            found.append(ExternalArray.of(name, shape, dtype, partial(dataset.__getitem__, ())))

    stack.enter_context(h5py.File(path, "r")).visititems(add)
    return found


def _table(path: Path, stack: ExitStack) -> list[ExternalArray]:
    """Every column; numbered ones (f0, f1, ...) are one array. A table's values are held as long as it is open."""
    with _pyarrow(path):
        from pyarrow import csv
    found = csv.read_csv(path, parse_options=csv.ParseOptions(delimiter="," if path.suffix.lower() == ".csv" else "\t"))
    arrays, numbered = [], dict[str, list[tuple[int, str]]]()
    for name, column in zip(found.column_names, found.columns, strict=True):
        if match := NUMBERED.fullmatch(name):
            numbered.setdefault(match[1], []).append((int(match[2]), name))
        else:
            load = partial(_values, name, column)
            arrays.append(ExternalArray(name, (len(found),), str(column.type), column.nbytes, load))
    for prefix, columns in numbered.items():
        names, numbers = [name for _, name in sorted(columns)], sorted(number for number, _ in columns)
        values: Callable[[], Any] = partial(_together, found, names)
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))) or numbers[0] > 1:
            values = _refusing(prefix, f"its columns are not numbered from 0 or 1: {names[:3]}", "number them in order")
        arrays.append(ExternalArray(prefix, (len(found), len(names)), "numbers", 8 * len(found) * len(names), values))
    return arrays


def _together(table: Any, names: Sequence[str]) -> Any:
    """Columns of numbers side by side, [n, d]."""
    return np.stack([_values(name, table[name]) for name in names], axis=1)


def _parquet(path: Path, stack: ExitStack) -> list[ExternalArray]:
    """Every column; encoded values may be few bytes, but each takes up to 8 when it is read."""
    with _pyarrow(path):
        import pyarrow.parquet
    file = stack.enter_context(pyarrow.parquet.ParquetFile(path))
    about, sizes = file.metadata, Counter[str]()
    for group in map(about.row_group, range(about.num_row_groups)):
        for column in map(group.column, range(about.num_columns)):
            sizes[column.path_in_schema.split(".")[0]] += max(column.total_uncompressed_size, 8 * column.num_values)
    kinds = {field.name: str(field.type) for field in file.schema_arrow}
    return [
        ExternalArray(name, (about.num_rows,), kind, sizes[name], partial(_column, file, name))
        for name, kind in kinds.items()
    ]


def _column(file: Any, name: str) -> Any:
    return _values(name, file.read(columns=[name])[name])


def _values(name: str, column: Any) -> Any:
    """Numbers, texts, or lists of as many numbers in every row."""
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise UsageError(f"row {row} of column {name!a} is empty", where=name, remedy="fill it in, or leave it out")
    if "list" not in str(column.type):
        return column.to_numpy()
    flat = column.combine_chunks()
    if len(set(flat.value_lengths().to_pylist())) != 1:
        raise ValueError("its rows have lists of different lengths")
    return flat.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


READERS: Mapping[str, Callable[[Path, ExitStack], list[ExternalArray]]] = {
    ".npy": _npy,
    ".csv": _table,
    ".tsv": _table,
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".parquet": _parquet,
}
