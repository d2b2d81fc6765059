"""Arrays of external files (.npz, .npy, .h5, .csv, .tsv, .parquet); their sizes are known before any of them is read."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from tosca_cache.errors import UsageError
from tosca_cache.files import strict_json
from tosca_cache.store.exchange.external import FLOOR, TEXT, ExternalArray, ExternalFile, readable, refusing
from tosca_cache.store.exchange.tables import TABLES, read_table

PATIENCE, PACE = 60, 1 << 20  # seconds for reading texts of HDF5, and bytes for which there is one more
MOST_OBJECTS, MOST_DEPTH = 4096, 8  # of an HDF5 file
HDF5 = (".h5", ".hdf5")
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin")
_FILTERS = ("gzip", "lzf", "shuffle", "fletcher32", "deflate")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


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
        with readable(path):
            size = _regular_size(path)
            if kind == ".npy":
                arrays = [_npy(path, size)]
            elif kind in TABLES:
                arrays = read_table(path, size)
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
        load = refusing(name, "it holds Python objects", "save numbers or texts")
    return ExternalArray(name, shape, TEXT if dtype.kind in "US" else dtype.name, prod(shape) * dtype.itemsize, load)


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
                refuse = refusing(name, "it is a link to elsewhere", "copy the array into the file")
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
        load = refusing(name, "its data lies in other files", "copy the array into the file")
    elif any(name not in _FILTERS for name in filters):
        load = refusing(name, f"it is compressed by {', '.join(filters)}", f"use one of {', '.join(_FILTERS)}")
    elif text is None:
        return _array(name, shape, dataset.dtype, partial(dataset.__getitem__, ()))
    else:
        load = partial(_texts, Path(dataset.file.filename), name)
    return ExternalArray(name, shape, TEXT, prod(shape) * dataset.dtype.itemsize, load)


# Reads texts of any length in a process of its own: in a damaged file libhdf5 may follow its heap in circles, for ever, and
# nothing but the end of its process stops it.
_TEXTS = """
import json, sys, h5py
path, name, most, total = sys.argv[1], sys.argv[2], int(sys.argv[3]), 0
with h5py.File(path, "r") as file:
    dataset, found = file[name], []
    for start in range(0, len(dataset), 4096):
        for text in dataset[start : start + 4096]:
            found.append(text.decode(errors="replace") if isinstance(text, bytes) else str(text))
            total += len(found[-1])
        if total > most:
            sys.exit(f"its texts have more than {most} letters")
json.dump(found, sys.stdout)
"""


def _texts(path: Path, name: str) -> list[str]:
    """Texts of any length, whose bytes no header tells."""
    patience = PATIENCE + path.stat().st_size / PACE
    command = [sys.executable, "-c", _TEXTS, str(path), name, str(FLOOR)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"its array {name} could not be read in {patience:.0f} s") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(lines[-1] if lines else f"reading its array {name} ended libhdf5")
    found = strict_json(done.stdout)
    assert isinstance(found, list)
    return found
