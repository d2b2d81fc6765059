"""The arrays of an HDF5 file, of those features that a file of arrays needs; everything else is refused unread.

Only hard links are followed, so that nothing leads to another file; datasets lie in the file itself (no external storage,
no virtual datasets), and only filters of libhdf5 and h5py are run (no plugins).
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5t, h5z

from tosca_cache.untrusted.headers import MAX_ARRAYS, TEXT, TEXT_BYTES, Header, Refused, number_dtype

MAX_DEPTH = 8
MAX_OBJECTS = 4096
MAX_CHUNK = 128 << 20  # decoded bytes of one chunk
CACHE = 2 * MAX_CHUNK  # so that a chunk is decoded once, however many blocks of rows it is read in
MAX_ATTRIBUTE = 1024
LZF = 32000  # h5py's own
_FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, LZF}
_ATTRIBUTES = ("format", "version", "name", "zarr")


class Hdf:
    """An open HDF5 file. Raises `Refused`, or whatever h5py makes of a broken file."""

    def __init__(self, path: str) -> None:
        self._file = h5py.File(path, "r", rdcc_nbytes=CACHE, locking=False)
        self._sets: dict[str, Any] = {}
        self._headers: dict[str, Header] = {}
        self._seen = 0
        self._walk(self._file["/"], "", 0)

    def headers(self) -> list[Header]:
        """Every dataset, by its path from the root."""
        return list(self._headers.values())

    def attributes(self) -> dict[str, str | int]:
        """The few attributes of the root that say whether this is an exported store."""
        found: dict[str, str | int] = {}
        for name in _ATTRIBUTES:
            if not h5a.exists(self._file.id, name.encode()):
                continue
            attribute = h5a.open(self._file.id, name.encode())
            dtype = attribute.dtype
            if attribute.shape != () or dtype.kind not in "Siu" or not 0 < dtype.itemsize <= MAX_ATTRIBUTE:
                continue
            value = np.empty((), dtype=dtype)
            attribute.read(value)
            found[name] = value.item().decode() if dtype.kind == "S" else int(value)
        return found

    def read(self, name: str, start: int, stop: int) -> np.ndarray[Any, Any] | list[str]:
        """Rows; numbers in little-endian order, or texts."""
        header, dataset = self._headers[name], self._sets[name]
        found = np.asarray(dataset[start:stop] if header.shape else dataset[()].reshape(1))
        if header.dtype == TEXT:
            return [_text(value, name) for value in found.reshape(-1).tolist()]
        return np.ascontiguousarray(found, dtype=header.dtype)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _walk(self, group: Any, prefix: str, depth: int) -> None:
        if depth > MAX_DEPTH or self._seen + group.id.get_num_objs() > MAX_OBJECTS:
            raise Refused("The file has too many objects, or groups within groups without end.")
        for name in group:
            self._seen += 1
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Refused(f"{prefix}{name} is a link, perhaps to another file.", "Copy the data into the file.")
            found = group[name]
            if isinstance(found, h5py.Group):
                self._walk(found, f"{prefix}{name}/", depth + 1)
            elif isinstance(found, h5py.Dataset):
                if len(self._headers) >= MAX_ARRAYS:
                    raise Refused(f"There are more than {MAX_ARRAYS} arrays.")
                self._headers[prefix + name] = _header(prefix + name, found)
                self._sets[prefix + name] = found


def _header(name: str, dataset: Any) -> Header:
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if layout == h5d.VIRTUAL or properties.get_external_count():
        raise Refused(f"{name} keeps its values in another file.", "Copy the data into the file.")
    shape = dataset.id.shape
    if shape is None:
        return Header(name, (), "", 0, why="it is empty")
    try:
        kind, size = _kind(dataset)
    except TypeError as error:  # a type that numpy has no word for
        return Header(name, shape, "", 0, why=str(error)[:200])
    filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
    if filters - _FILTERS:
        return Header(name, shape, "", 0, why="compressed by other means than gzip or lzf")
    chunk = properties.get_chunk() if layout == h5d.CHUNKED else (1, *shape[1:])
    header = Header(
        name,
        tuple(shape),
        kind,
        size,
        chunk_rows=max(1, chunk[0]) if shape else 1,
        plain=filters <= {h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32},
        why="" if kind else f"numbers or texts are needed, not {str(dataset.dtype)[:60]}",
    )
    if layout == h5d.CHUNKED and int(np.prod([float(n) for n in chunk])) * max(size, 1) > MAX_CHUNK:
        raise Refused(f"The chunks of {name} are too large to be read one by one.", "Write it with smaller chunks.")
    return header


def _kind(dataset: Any) -> tuple[str, int]:
    """Header.dtype, and bytes of one value."""
    kind = dataset.id.get_type()
    if kind.get_class() == h5t.STRING:
        if kind.is_variable_str():
            return TEXT, 16  # in place of the text, which is bounded when it is read
        if kind.get_size() > TEXT_BYTES:
            raise Refused("The texts of a dataset are absurdly long.")
        return TEXT, kind.get_size()
    if kind.get_class() not in (h5t.INTEGER, h5t.FLOAT, h5t.ENUM):
        return "", 0
    dtype = dataset.dtype
    return number_dtype(dtype), dtype.itemsize


def _text(value: Any, name: str) -> str:
    if not isinstance(value, bytes | str) or len(value) > TEXT_BYTES:
        raise Refused(f"The texts of {name} are absurdly long.")
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise Refused(f"The bytes of {name} are no UTF-8 text.") from None
