"""Arrays of external files (.npz, .npy, .h5, .csv, .tsv, .parquet); their sizes are known before any of them is read."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError, ToscaError, UsageError
from tosca_cache.store.exchange.values import Values, as_values
from tosca_cache.text import one_line

FLOOR, RATIO = 256 << 20, 32  # bytes that a file may claim to hold: this much, or so many for each of its own
MOST_OBJECTS, MOST_DEPTH = 4096, 8  # of an HDF5 file
SHOWN = 12  # arrays that a message lists
TEXT = "text"
HDF5, TABLES = (".h5", ".hdf5"), (".csv", ".tsv", ".parquet")
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin")
_FILTERS = ("gzip", "lzf", "shuffle", "fletcher32", "deflate")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_NUMBERED = re.compile(r"(.*?)([0-9]+)")


@dataclass(frozen=True)
class ExternalArray:
    """One array of a file. dtype: numpy's, or `text`. bytes: that it takes in memory, at least. load: reads it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    load: Callable[[], Values]

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
    if kind in PICKLES:
        raise UsageError(
            f"a {kind} file holds pickled Python objects, which are never loaded",
            where=path,
            remedy="save its arrays instead: numpy.savez('features.npz', features=..., labels=...)",
        )
    with ExitStack() as stack:
        with _readable(path):
            size = _regular_size(path)
            if kind == ".npy":
                arrays = [_npy(path, size)]
            elif kind in TABLES:
                arrays = _table(path, size)
            elif kind in HDF5:
                arrays = _hdf5(path, stack)
            else:
                arrays = _npz(path)
        yield ExternalFile(path, size, {array.name: array for array in arrays})


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
    except (OSError, ValueError, LookupError, EOFError, TypeError, ArithmeticError, MemoryError) as error:
        raise _damaged(path, error) from error
    except (RuntimeError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:  # also what has no implementation
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> StoreError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return StoreError(f"This file cannot be read: {reason!a}.", where=path, remedy="Make or fetch it again.")


def _regular_size(path: Path) -> int:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no regular file")
    return found.st_size


def _npz(path: Path) -> list[ExternalArray]:
    found = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            with archive.open(member) as file:
                shape, dtype, start = _header(file)
            size = prod(shape) * dtype.itemsize
            if not dtype.hasobject and start + size != member.file_size:
                raise ValueError(f"{member.filename} has {member.file_size} bytes, and should have {start + size}")
            name = member.filename.removesuffix(".npy")
            found.append(_array(name, shape, dtype, partial(_load, path, name)))
    return found


def _npy(path: Path, size: int) -> ExternalArray:
    with path.open("rb") as file:
        shape, dtype, start = _header(file)
    if not dtype.hasobject and start + prod(shape) * dtype.itemsize > size:
        raise ValueError("it is shorter than its header says")
    return _array("features", shape, dtype, partial(np.load, path, allow_pickle=False))


def _load(path: Path, name: str) -> Any:
    with np.load(path, allow_pickle=False) as archive:
        return archive[name]


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and beginning of the data of numpy's own format."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of numpy's format is not read")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if any(length < 0 for length in shape):
        raise ValueError("a length is negative")
    return shape, dtype, file.tell()


def _array(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], load: Callable[[], Any]) -> ExternalArray:
    if dtype.hasobject:
        load = _refusing(name, "it holds Python objects", "save numbers or texts")
    return ExternalArray(name, shape, TEXT if dtype.kind in "US" else dtype.name, prod(shape) * dtype.itemsize, load)


def _refusing(name: str, problem: str, remedy: str) -> Callable[[], Values]:
    def load() -> Values:
        raise UsageError(problem, where=f"array {name!a}", remedy=remedy)

    return load


def _hdf5(path: Path, stack: ExitStack) -> list[ExternalArray]:
    import h5py

    file = stack.enter_context(h5py.File(path, "r"))
    found: list[ExternalArray] = []
    groups = [(file, "", 0)]
    seen = 0
    while groups:
        group, above, depth = groups.pop()
        for key in group:
            seen += 1
            if seen > MOST_OBJECTS or depth > MOST_DEPTH:
                raise ValueError(f"it has more than {MOST_OBJECTS} objects, or groups {MOST_DEPTH} deep")
            name = f"{above}{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                refuse = _refusing(name, "it is a link to elsewhere", "copy the array into the file")
                found.append(ExternalArray(name, (), "link", 0, refuse))
                continue
            inner = group[key]
            if isinstance(inner, h5py.Group):
                groups.append((inner, f"{name}/", depth + 1))
            elif isinstance(inner, h5py.Dataset):
                found.append(_dataset(name, inner))
    return found


def _dataset(name: str, dataset: Any) -> ExternalArray:
    import h5py

    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[3].decode() for i in range(properties.get_nfilters())]
    text = h5py.check_string_dtype(dataset.dtype)
    shape = dataset.shape or ()
    if dataset.is_virtual or dataset.external:
        load = _refusing(name, "its data lies in other files", "copy the array into the file")
    elif any(name not in _FILTERS for name in filters):
        load = _refusing(name, f"it is compressed by {', '.join(filters)}", f"use one of {', '.join(_FILTERS)}")
    elif text is None:
        return _array(name, shape, dataset.dtype, partial(dataset.__getitem__, ()))
    else:
        load = partial(_texts, dataset)
    return ExternalArray(name, shape, TEXT, prod(shape) * dataset.dtype.itemsize, load)


def _texts(dataset: Any, most: int = FLOOR, step: int = 4096) -> list[str]:
    """Texts of any length, whose bytes no header tells."""
    found: list[str] = []
    total = 0
    for start in range(0, len(dataset), step):
        part = [
            text.decode(errors="replace") if isinstance(text, bytes) else text for text in dataset[start : start + step]
        ]
        total += sum(map(len, part))
        if total > most:
            raise ValueError(f"its texts have more than {most:,} letters")
        found += part
    return found


def _table(path: Path, size: int) -> list[ExternalArray]:
    """The columns of a table; numeric ones that are numbered (f0, f1, ...) are one array [n, columns]."""
    try:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"reading {path.suffix} needs pyarrow, which is not installed",
            where=path,
            remedy="pip install 'tosca-cache[exchange]'",
        ) from error
    try:
        if path.suffix.lower() == ".parquet":
            columns = _parquet(pa, path, size)
        else:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            options = pyarrow.csv.ParseOptions(delimiter=delimiter)
            table = pyarrow.csv.read_csv(path, parse_options=options)
            columns = [
                _column(pa, name, table.schema.field(name).type, table.num_rows, partial(table.__getitem__, name))
                for name in table.column_names
            ]
    except pa.ArrowException as error:
        raise _damaged(path, error) from error
    return _grouped(columns)


def _parquet(pa: Any, path: Path, size: int) -> list[ExternalArray]:
    file = pa.parquet.ParquetFile(path, memory_map=True)
    columns = [
        _column(pa, field.name, field.type, file.metadata.num_rows, partial(_parquet_column, file, field.name))
        for field in file.schema_arrow
    ]
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    values = max((sum(g.column(c).num_values for g in groups) for c in range(file.metadata.num_columns)), default=0)
    claimed = max(8 * values, sum(group.total_byte_size for group in groups))
    if claimed > max(FLOOR, RATIO * size):
        raise ValueError(f"it claims to hold {claimed:,} bytes")
    return columns


def _parquet_column(file: Any, name: str) -> Any:
    return file.read(columns=[name])[name]


def _column(pa: Any, name: str, kind: Any, rows: int, load: Callable[[], Any]) -> ExternalArray:
    """A column: numbers, texts, or lists of as many numbers in every row."""
    types = pa.types
    if types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind):
        width = kind.list_size if types.is_fixed_size_list(kind) else 0
        item = np.dtype(kind.value_type.to_pandas_dtype())
        return ExternalArray(name, (rows, width), item.name, rows * width * item.itemsize, lambda: _rows(load(), rows))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind) or types.is_null(kind):
        return ExternalArray(name, (rows,), TEXT, 8 * rows, lambda: _column_texts(name, load()))
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        dtype = np.dtype(kind.to_pandas_dtype())
        return ExternalArray(name, (rows,), dtype.name, rows * dtype.itemsize, lambda: _column_numbers(load()))
    return ExternalArray(name, (rows,), str(kind), 0, _refusing(name, f"its type is {kind}", "give numbers or texts"))


def _column_texts(name: str, column: Any) -> list[str]:
    found = column.to_pylist()
    if any(text is None for text in found):
        row = found.index(None)
        raise UsageError(f"row {row} of column {name!a} is empty", where=name, remedy="fill it in, or leave it out")
    return list(map(str, found))


def _column_numbers(column: Any) -> NDArray[Any]:
    found: NDArray[Any] = column.to_numpy()
    return found


def _rows(column: Any, rows: int) -> NDArray[Any]:
    flat = column.combine_chunks()
    values: NDArray[Any] = flat.flatten().to_numpy(zero_copy_only=False)
    lengths = set(flat.value_lengths().to_pylist())
    if len(lengths) != 1 or None in lengths or len(values) != rows * next(iter(lengths)):
        raise ValueError("its rows have lists of different lengths")
    return values.reshape(rows, -1)


def _stacked(parts: list[ExternalArray]) -> NDArray[Any]:
    return np.stack([np.asarray(part.load()) for part in parts], 1)


def _grouped(columns: list[ExternalArray]) -> list[ExternalArray]:
    groups: dict[str, dict[int, ExternalArray]] = {}
    for column in columns:
        numbered = _NUMBERED.fullmatch(column.name)
        if numbered is not None and column.dtype != TEXT and len(column.shape) == 1:
            groups.setdefault(numbered[1], {})[int(numbered[2][:9])] = column
    found = {column.name: column for column in columns}
    for prefix, members in groups.items():
        order = sorted(members)
        if len(order) > 1 and order in (list(range(len(order))), list(range(1, len(order) + 1))):
            parts = [members[number] for number in order]
            for part in parts:
                del found[part.name]
            name = prefix.rstrip("_.- ") or "features"
            found[name] = ExternalArray(
                name,
                (parts[0].shape[0], len(parts)),
                np.result_type(*(np.dtype(part.dtype) for part in parts)).name,
                sum(part.bytes for part in parts),
                partial(_stacked, parts),
            )
    return list(found.values())
