"""External files of arrays (.npz, .h5, .parquet): what they hold, how large it is, which array is what, and reading it.

Sizes are looked at before anything is read, nothing is unpickled, and no link of HDF5 is followed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError, ToscaError, UsageError
from tosca_cache.store.layout import SPLITS
from tosca_cache.text import one_line

Values = NDArray[Any]  # numbers [n, ...], or n texts as Python objects
FLOOR, RATIO = 256 << 20, 32  # bytes that a file may claim to hold: this much, or so many for each of its own
SHOWN = 12  # arrays that a message lists
PER_ROW = ("features", "labels", "domains", "paths")
TEXTS = ("paths", "class_names", "domain_names")
NONE = "none"
USUAL: Mapping[str, tuple[str, ...]] = {
    "features": ("features", "embeddings", "x", "emb"),
    "labels": ("labels", "label", "y", "targets"),
    "split": ("split", "is_test"),
    "domains": ("domains", "domain"),
    "paths": ("paths", "path"),
    "class_names": ("class_names", "classes"),
    "domain_names": ("domain_names",),
}
PAIRS = ("{name}_{split}", "{split}_{name}", "{split}/{name}")  # how arrays of separate splits are called
Name = str | tuple[str, str]  # of one array, or of train's and test's


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


@dataclass(frozen=True)
class ExternalFile:
    """An open file."""

    path: Path
    arrays: Mapping[str, ExternalArray]

    def read(self, name: str) -> Values:
        """Numbers or texts; raises `StoreError` if the file is damaged, `UsageError` for Python objects."""
        with _readable(self.path):
            return as_values(self.arrays[name].load())

    def check_sizes(self, names: Iterable[str], most: int | None) -> None:
        """Raises `StoreError` if arrays claim more bytes than allowed: `most`, or what a file of this size can hold."""
        used, size = [self.arrays[name] for name in names], self.path.stat().st_size
        claimed = sum(array.bytes for array in used)
        allowed = max(FLOOR, RATIO * size) if most is None else most
        if claimed > allowed:
            largest = max(used, key=lambda array: array.bytes)
            raise StoreError(
                f"The file has {size:,} bytes but claims to hold {claimed:,}, most of them in array {largest}; "
                f"{allowed:,} are allowed.",
                where=self.path,
                remedy=f"If you trust it, allow it: --max-bytes {claimed}.",
            )

    def listed(self) -> str:
        """Its arrays in words."""
        shown = list(map(str, self.arrays.values()))
        return "; ".join(shown[:SHOWN]) + (f"; and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "") or "none"


@contextmanager
def open_external(path: Path) -> Iterator[ExternalFile]:
    """The arrays of a file; raises `StoreError` if it cannot be read, `UsageError` for a kind that is never read."""
    with ExitStack() as stack:
        with _readable(path):
            if path.exists() and not path.is_file():
                raise OSError("it is no regular file")
            path.stat()
            if (reader := _READERS.get(path.suffix.lower())) is None:
                raise UsageError(
                    f"{path.suffix or path.name} is no format that is read here; pickled objects never are",
                    where=path,
                    remedy="save its arrays: numpy.savez('features.npz', features=..., labels=...)",
                )
            arrays = reader(path, stack)
        yield ExternalFile(path, {array.name: array for array in arrays})


def as_values(values: Any) -> Values:
    """Numbers, or texts as Python objects; raises `UsageError` for a mixture of things."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "USTO":
        return array
    texts = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in array.tolist()]
    if not all(isinstance(text, str) for text in texts):
        raise UsageError("values are neither numbers nor texts", where=str(array.dtype), remedy="use one of both")
    return np.array(texts, dtype=object)


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
            major, _ = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
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


def _parquet(path: Path, stack: ExitStack) -> list[ExternalArray]:
    """Every column; encoded values may be few bytes, but each takes up to 8 when it is read."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        remedy = "pip install 'tosca-cache[exchange]'"
        raise UsageError("reading .parquet needs pyarrow, which is not installed", where=path, remedy=remedy) from error
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
    """Numbers, texts, or lists of as many numbers in every row."""
    column = file.read(columns=[name])[name]
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise UsageError(f"row {row} of column {name!a} is empty", where=name, remedy="fill it in, or leave it out")
    if "list" not in str(column.type):
        return column.to_numpy()
    flat = column.combine_chunks()
    if len(set(flat.value_lengths().to_pylist())) != 1:
        raise ValueError("its rows have lists of different lengths")
    return flat.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


_READERS: Mapping[str, Callable[[Path, ExitStack], list[ExternalArray]]] = {
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".parquet": _parquet,
}


def each(names: Mapping[str, Name]) -> list[str]:
    """Every name of an array, once."""
    found = [part for name in names.values() for part in (name if isinstance(name, tuple) else (name,))]
    return list(dict.fromkeys(name for name in found if name != NONE))


def parse_name(option: str, text: str) -> Name:
    """`NAME`, or `TRAIN,TEST` for arrays of separate splits."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 2 or not all(parts):
        remedy = "give NAME, or TRAIN,TEST for separate splits"
        raise UsageError(f"{text!r} names no array", where=option, remedy=remedy)
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def find_columns(file: ExternalFile, named: Mapping[str, Name]) -> dict[str, Name]:
    """The array of every role that the file has, or the pair of train's and test's: as named, else of a usual name.

    Arguments:
        named: {role: name, pair of names, or `none`}.

    Raises `UsageError`, listing what there is, for an array that is missing.
    """
    lower = {name.lower(): name for name in reversed(list(file.arrays))}
    pairs = {role: _usual_pair(lower, role) for role in PER_ROW}
    separate = isinstance(named.get("features", pairs["features"]), tuple)
    names: dict[str, Name] = {}
    for role, usual in USUAL.items():
        found: Name | None = next((lower[name] for name in usual if name in lower), None)
        if separate and role in (*PER_ROW, "split"):
            found = pairs.get(role)
        chosen = named.get(role, found)
        if chosen is not None and chosen != NONE:
            names[role] = chosen
    problem, remedy = _problem(names, file, separate=separate)
    if problem:
        raise UsageError(problem, where=file.path, remedy=remedy)
    return names


def _usual_pair(lower: Mapping[str, str], role: str) -> tuple[str, str] | None:
    for name in USUAL[role]:
        for pattern in PAIRS:
            train, test = (lower.get(pattern.format(name=name, split=split)) for split in SPLITS)
            if train and test:
                return train, test
    return None


def _problem(names: Mapping[str, Name], file: ExternalFile, *, separate: bool) -> tuple[str, str]:
    """What is wrong with a choice of arrays, and what to do; nothing if it is good."""
    there = f"there are: {file.listed()}"
    if missing := [name for name in each(names) if name not in file.arrays]:
        return f"there is no array {missing[0]!r}", there
    for role in ("features", "labels"):
        if role not in names:
            return f"which array holds the {role} is not said", f"add --{role} NAME, or --{role} TRAIN,TEST; {there}"
    for role in PER_ROW:
        if role in names and isinstance(names[role], tuple) != separate:
            return "train and test have separate arrays of some kinds only", f"give --{role} as --features, or none"
    if isinstance(names.get("split", ""), tuple) or (separate and "split" in names):
        return f"train and test are not divided by {names['split']!r}", "give one array, or --split none"
    return "", ""
