"""External files of arrays (.npz, .npy, .h5, .csv, .tsv, .parquet): what they hold, how large it is, and reading it.

Sizes are looked at before anything is read, nothing is unpickled, and no link of HDF5 is followed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError, ToscaError, UsageError
from tosca_cache.text import one_line

Values = NDArray[Any] | Sequence[str]  # numbers [n, ...], or n texts
FLOOR, RATIO = 256 << 20, 32  # bytes that a file may claim to hold: this much, or so many for each of its own
SHOWN = 12  # arrays that a message lists
TEXT = "text"
_NUMBERED = re.compile(r"(.*?)([0-9]+)")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True)
class ExternalArray:
    """One array of a file. dtype: numpy's, or `text`. bytes: that it takes in memory, at least. load: reads it."""

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
        kind = TEXT if dtype.kind in "US" else dtype.name
        return cls(name, shape, kind, prod(shape) * dtype.itemsize, load)

    def describe(self) -> str:
        """In words."""
        return f"{one_line(self.name)} {list(self.shape)} {self.dtype}"


@dataclass(frozen=True)
class ExternalFile:
    """An open file. size: its bytes."""

    path: Path
    size: int
    arrays: Mapping[str, ExternalArray]

    def read(self, name: str) -> Values:
        """Numbers, or a list of texts; raises `StoreError` if the file is damaged, `UsageError` for Python objects."""
        with _readable(self.path):
            return as_values(self.arrays[name].load())

    def check_sizes(self, names: Iterable[str], most: int | None) -> None:
        """Raises `StoreError` if arrays claim more bytes than allowed: `most`, or what a file of this size can hold."""
        used = [self.arrays[name] for name in names]
        claimed = sum(array.bytes for array in used)
        allowed = max(FLOOR, RATIO * self.size) if most is None else most
        if claimed > allowed:
            largest = max(used, key=lambda array: array.bytes)
            raise StoreError(
                f"The file has {self.size:,} bytes but claims to hold {claimed:,}, most of them in array "
                f"{largest.describe()}; {allowed:,} are allowed.",
                where=self.path,
                remedy=f"If you trust it, allow it: --max-bytes {claimed}.",
            )

    def listed(self) -> str:
        """Its arrays in words."""
        shown = [array.describe() for array in self.arrays.values()]
        return "; ".join(shown[:SHOWN]) + (f"; and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "") or "none"


@contextmanager
def open_external(path: Path) -> Iterator[ExternalFile]:
    """The arrays of a file; raises `StoreError` if it cannot be read, `UsageError` for a kind that is never read."""
    kind = path.suffix.lower()
    if kind in (".pt", ".pth", ".pkl", ".pickle", ".bin"):
        raise UsageError(
            f"a {kind} file holds pickled Python objects, which are never loaded",
            where=path,
            remedy="save its arrays instead: numpy.savez('features.npz', features=..., labels=...)",
        )
    with ExitStack() as stack:
        with _readable(path):
            if path.exists() and not path.is_file():
                raise OSError("it is no regular file")
            size = path.stat().st_size
            arrays = _READERS.get(kind, _npz)(path, stack)
        yield ExternalFile(path, size, {array.name: array for array in arrays})


def as_values(values: Any) -> Values:
    """Numbers as an array, texts as a list; raises `UsageError` for a mixture of things."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "USTO":
        return array
    texts = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in array.tolist()]
    if not all(isinstance(text, str) for text in texts):
        raise UsageError("values are neither numbers nor texts", where=str(array.dtype), remedy="use one of both")
    return texts


def parse_bytes(text: str) -> int:
    """Reads a size such as 500MB, 20G or 4000000000 (powers of 1000); raises `UsageError` for anything else."""
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)\s*([kmgt]?)b?", text.strip().lower())
    if found is None:
        raise UsageError(f"{text!r} is no size", where="--max-bytes", remedy="give for example 500MB or 20GB")
    return int(float(found[1]) * _UNITS[found[2]])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever a library raises about a broken file becomes one `StoreError`."""
    try:
        yield
    except ToscaError:
        raise
    except FileNotFoundError as error:
        raise StoreError("There is no such file.", where=path, remedy="Correct its path.") from error
    except Exception as error:  # what these libraries raise has nothing in common
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise StoreError(
            f"This file cannot be read: {reason!a}.", where=path, remedy="Make or fetch it again."
        ) from error


def _refusing(name: str, problem: str, remedy: str) -> Callable[[], Any]:
    def load() -> Any:
        raise UsageError(problem, where=f"array {name!a}", remedy=remedy)

    return load


def _npz(path: Path, stack: ExitStack) -> list[ExternalArray]:
    opened, found = stack.enter_context(np.load(path, allow_pickle=False)), []
    for name in opened.files:
        with opened.zip.open(f"{name}.npy") as file:
            found.append(ExternalArray.of(name, *_header(file), partial(opened.__getitem__, name)))
    return found


def _npy(path: Path, stack: ExitStack) -> list[ExternalArray]:
    with path.open("rb") as file:
        return [ExternalArray.of("features", *_header(file), partial(np.load, path, allow_pickle=False))]


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in numpy's own format."""
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _hdf5(path: Path, stack: ExitStack) -> list[ExternalArray]:
    """Every dataset; `visititems` follows no links."""
    import h5py

    found = []

    def add(name: str, dataset: Any) -> None:
        """Adds a dataset, not a group."""
        if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
            return
        if dataset.is_virtual or dataset.external:
            load = _refusing(name, "its data lies in other files", "copy the array into the file")
            found.append(ExternalArray(name, dataset.shape, dataset.dtype.name, 0, load))
        elif h5py.check_string_dtype(dataset.dtype) is not None:
            size = prod(dataset.shape) * dataset.dtype.itemsize
            text = partial(dataset.asstr(errors="replace").__getitem__, ())
            found.append(ExternalArray(name, dataset.shape, TEXT, size, text))
        else:
            found.append(ExternalArray.of(name, dataset.shape, dataset.dtype, partial(dataset.__getitem__, ())))

    stack.enter_context(h5py.File(path, "r")).visititems(add)
    return found


def _table(path: Path, stack: ExitStack) -> list[ExternalArray]:
    """The columns of a table; numeric ones that are numbered (f0, f1, ...) are one array [n, columns]."""
    try:
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"reading {path.suffix} needs pyarrow, which is not installed",
            where=path,
            remedy="pip install 'tosca-cache[exchange]'",
        ) from error
    if path.suffix.lower() == ".parquet":
        about = pyarrow.parquet.read_metadata(path)
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        claimed = max(sum(group.total_byte_size for group in groups), 8 * about.num_rows * about.num_columns)
        if claimed > max(FLOOR, RATIO * path.stat().st_size):
            raise ValueError(f"it claims to hold {claimed:,} bytes")
        table = pyarrow.parquet.read_table(path)
    else:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        table = pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter))
    found: dict[str, ExternalArray] = {}
    groups_of: dict[str, list[str]] = {}
    for name in table.column_names:
        column = table[name]
        numeric = str(column.type).startswith(("int", "uint", "float", "double", "halffloat", "bool"))
        if numeric and (numbered := _NUMBERED.fullmatch(name)):
            groups_of.setdefault(numbered[1], []).append(name)
        kind = "numbers" if numeric else str(column.type)
        found[name] = ExternalArray(name, (len(column),), kind, column.nbytes, partial(_column, name, column))
    for prefix, names in groups_of.items():
        if len(names) > 1:
            names.sort(key=lambda name: int(name[len(prefix) :]))
            parts = [found.pop(name) for name in names]
            joined, size = prefix.rstrip("_.- ") or "features", sum(part.bytes for part in parts)
            shape = (parts[0].shape[0], len(parts))
            found[joined] = ExternalArray(joined, shape, "numbers", size, partial(_stacked, parts))
    return list(found.values())


def _column(name: str, column: Any) -> Any:
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


def _stacked(parts: Sequence[ExternalArray]) -> NDArray[Any]:
    return np.stack([np.asarray(part.load()) for part in parts], 1)


_READERS: Mapping[str, Callable[[Path, ExitStack], list[ExternalArray]]] = {
    **{".npz": _npz, ".npy": _npy, ".h5": _hdf5, ".hdf5": _hdf5},
    **dict.fromkeys((".csv", ".tsv", ".parquet"), _table),
}
