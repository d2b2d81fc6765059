"""External files of arrays: what they hold, how large that is, and reading it.

Sizes are looked at before anything is read, nothing is unpickled, and no link of HDF5 is followed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError, ToscaError, UsageError
from tosca_cache.store.layout import SPLITS

Values = NDArray[Any]  # numbers [n, ...], or texts as Python objects
FLOOR, RATIO = 256 << 20, 32  # bytes that a file may claim to hold: this much, or so many for each of its own
PER_ROW = ("features", "labels", "domains", "paths")
USUAL: Mapping[str, tuple[str, ...]] = {  # names that arrays have where none are given
    "features": ("features", "embeddings", "x", "emb", "f"),
    "labels": ("labels", "label", "y", "targets"),
    "split": ("split", "is_test"),
    "domains": ("domains", "domain"),
    "paths": ("paths", "path"),
    "class_names": ("class_names", "classes"),
    "domain_names": ("domain_names",),
}
_PAIRS = ("{name}_{split}", "{split}_{name}", "{split}/{name}")  # how arrays of separate splits are called
_NUMBER = re.compile(r"_?\d+$")  # at the end of the names of columns that are one array together


class ExternalArray(NamedTuple):
    """One array of a file. bytes: that it takes in memory, at least. load: reads it."""

    bytes: int
    load: Callable[[], Any]


def read_arrays(
    path: Path, choose: Callable[[list[str]], Iterable[str]], beside: Iterable[str] = ()
) -> dict[str, Values]:
    """Some arrays of a file, and of the .npy files among the names `beside`, whose arrays are called as they are.

    choose: which of the names that there are.

    Raises `StoreError` for a file that cannot be read, or claims to hold far more than it has; `UsageError` for a kind that
    is never read.
    """
    with _readable(path), ExitStack() as stack:
        arrays = _opened(path, stack)
        paths = [path, *map(Path, beside)]
        for other in paths[1:]:
            arrays[str(other)] = _opened(other, stack)["features"]
        used = {name: arrays[name] for name in choose(list(arrays))}
        claimed, size = sum(array.bytes for array in used.values()), sum(path.stat().st_size for path in paths)
        if claimed > (allowed := max(FLOOR, RATIO * size)):
            raise StoreError(
                f"The file has {size:,} bytes but claims to hold {claimed:,}; {allowed:,} are allowed.",
                where=path,
                remedy="If you trust it, save its arrays again, uncompressed.",
            )
        return {name: as_values(array.load()) for name, array in used.items()}


def _opened(path: Path, stack: ExitStack) -> dict[str, ExternalArray]:
    if path.exists() and not path.is_file():
        raise OSError("it is no regular file")
    path.stat()
    if (reader := _READERS.get(path.suffix.lower())) is None:
        raise UsageError(
            f"{path.suffix or path.name} is no format that is read here; pickled objects never are",
            where=path,
            remedy="save its arrays: numpy.savez('features.npz', features=..., labels=...)",
        )
    return reader(path, stack)


def find_columns(there: Sequence[str], path: Path, named: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The array of every role among those there are, or the pair of train's and test's: as named, else of a usual name.

    Arguments:
        named: {role: name}; where train and test have arrays of their own, it is `_PAIRS` that make two names of it.
        path: the file that holds them.

    Raises `UsageError`, listing what there is, for an array that is missing.
    """
    lower = {name.lower(): name for name in reversed(there)}
    found: dict[str, tuple[str, ...]] = {}
    for role, usual in USUAL.items():
        pairs = role == "features" or (role in PER_ROW and len(found["features"]) == 2)
        patterns = (*(_PAIRS if pairs else ()), *(("{name}",) if role == "features" or not pairs else ()))
        for name in (named[role],) if role in named else usual:
            for pattern in patterns:
                names = dict.fromkeys(pattern.format(name=name.lower(), split=split) for split in SPLITS)
                if role not in found and all(name in lower for name in names):
                    found[role] = tuple(lower[name] for name in names)
        if role not in found and (role in named or role in PER_ROW[:2]):
            problem = f"which array holds the {role} is not said"
            if role in named:
                problem = f"there is no array {named[role]!r}" + " of each split" * (role != "features" and pairs)
            shown = ", ".join(ascii(name)[1:-1][:60] for name in there[:12]) or "none"
            raise UsageError(problem, where=path, remedy=f"add --{role} NAME; there are: {shown}")
    return found


def as_values(values: Any) -> Values:
    """Numbers, or texts as Python objects; raises `UsageError` for other things."""
    array = np.asarray(values)
    if array.dtype.kind in "biuf":
        return array
    texts = [text.decode(errors="replace") if isinstance(text, bytes) else text for text in array.ravel().tolist()]
    if not all(isinstance(text, str) for text in texts):
        raise UsageError("values are neither numbers nor texts", where=str(array.dtype), remedy="use one of both")
    return np.array(texts, dtype=object).reshape(array.shape)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever a library raises about a broken file becomes one `StoreError`."""
    try:
        yield
    except ToscaError:
        raise
    except FileNotFoundError as error:
        raise StoreError("There is no such file.", where=path, remedy="Correct its path.") from error
    except ImportError as error:
        remedy = "pip install 'tosca-cache[exchange]'"
        raise UsageError(f"{path.suffix} needs pyarrow: {error}", where=path, remedy=remedy) from error
    except Exception as error:  # what these libraries raise has nothing in common
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise StoreError(
            f"This file cannot be read: {reason!a}.", where=path, remedy="Make or fetch it again."
        ) from error


def _npy(path: Path, stack: ExitStack) -> dict[str, ExternalArray]:
    with path.open("rb") as file:
        return {"features": ExternalArray(_claimed(file), partial(np.load, path, allow_pickle=False))}


def _claimed(file: IO[bytes]) -> int:
    """Bytes of the array of a .npy file, by its header."""
    major, _ = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return prod(shape) * dtype.itemsize


def _npz(path: Path, stack: ExitStack) -> dict[str, ExternalArray]:
    opened, found = stack.enter_context(np.load(path, allow_pickle=False)), {}
    for name in opened.files:
        with opened.zip.open(f"{name}.npy") as file:
            found[name] = ExternalArray(_claimed(file), partial(opened.__getitem__, name))
    return found


def _hdf5(path: Path, stack: ExitStack) -> dict[str, ExternalArray]:
    """Every dataset whose data lies in this file; `visititems` follows no links."""
    import h5py

    found = {}

    def add(name: str, item: Any) -> None:
        """Adds a dataset, not a group."""
        if isinstance(item, h5py.Dataset) and item.shape is not None and not (item.is_virtual or item.external):
            values = item.asstr(errors="replace") if h5py.check_string_dtype(item.dtype) else item
            found[name] = ExternalArray(item.nbytes, partial(values.__getitem__, ()))

    stack.enter_context(h5py.File(path, "r")).visititems(add)
    return found


def _csv(path: Path, stack: ExitStack) -> dict[str, ExternalArray]:
    """Every column; those whose names differ in a number at the end (f0, f1, ...) are one array [n, d], as they stand."""
    from pyarrow import csv

    table, groups = csv.read_csv(path), dict[str, list[str]]()
    for name in table.column_names:
        groups.setdefault(_NUMBER.sub("", name) or name, []).append(name)

    def load(name: str, columns: list[str]) -> Any:
        """One column, or several side by side."""
        values = [table[column].to_numpy() for column in columns]
        return values[0] if columns == [name] else np.stack(values, axis=1)

    return {name: ExternalArray(0, partial(load, name, columns)) for name, columns in groups.items()}  # read already


def _parquet(path: Path, stack: ExitStack) -> dict[str, ExternalArray]:
    """Every column; encoded values may be few bytes, but each takes up to 8 when it is read."""
    import pyarrow.parquet

    file = stack.enter_context(pyarrow.parquet.ParquetFile(path))
    about, sizes = file.metadata, Counter[str]()
    for group in map(about.row_group, range(about.num_row_groups)):
        for column in map(group.column, range(about.num_columns)):
            sizes[column.path_in_schema.split(".")[0]] += max(column.total_uncompressed_size, 8 * column.num_values)
    return {name: ExternalArray(sizes[name], partial(_column, file, name)) for name in file.schema_arrow.names}


def _column(file: Any, name: str) -> Any:
    """Numbers, texts, or lists of as many numbers in every row."""
    column = file.read(columns=[name])[name]
    if "list" not in str(column.type):
        return column.to_numpy()
    flat = column.combine_chunks()
    if len(flat.value_lengths().unique()) != 1:
        raise ValueError("its rows have lists of different lengths")
    return flat.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


_READERS: Mapping[str, Callable[[Path, ExitStack], dict[str, ExternalArray]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".csv": _csv,
    ".parquet": _parquet,
}
