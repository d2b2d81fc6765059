"""The arrays of an .npz file: members of a zip archive, read as a stream and never longer than they said they were."""

from __future__ import annotations

import math
import zipfile
from contextlib import closing
from typing import IO, Any

import numpy as np

from tosca_cache.untrusted.headers import (
    BFLOAT16,
    MAX_ARRAYS,
    MAX_NAME,
    TEXT,
    TEXT_BYTES,
    Header,
    Refused,
    number_dtype,
)

MAX_DIRECTORY = 1 << 20  # bytes of the list of members
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
_END, _END_BYTES = b"PK\x05\x06", 22


class Npz:
    """An open .npz file. Raises `Refused`, or whatever zipfile and numpy make of a broken file."""

    def __init__(self, file: IO[bytes]) -> None:
        _check_directory(file)
        self._file = file
        self._zip = zipfile.ZipFile(file)
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._headers: dict[str, Header] = {}
        self._open: tuple[str, int, IO[bytes]] | None = None
        for member in self._zip.infolist():
            if member.filename.endswith(".npy"):
                self._add(member)

    def headers(self) -> list[Header]:
        """Every array, by its member's name without `.npy`."""
        return list(self._headers.values())

    def attributes(self) -> dict[str, str | int]:
        """There are none in this format."""
        return {}

    def read(self, name: str, start: int, stop: int) -> np.ndarray[Any, Any] | list[str]:
        """Rows; numbers in little-endian order, or texts. Cheap if asked for in order."""
        header, dtype = self._headers[name], self._dtypes[name]
        row_items = math.prod(header.shape[1:])
        stream = self._stream(name, start * row_items * dtype.itemsize)
        data = _exactly(stream, (stop - start) * row_items * dtype.itemsize, name)
        if stop == header.rows and stream.read(1):  # reading on to the end is also what checks the member's CRC
            raise Refused(f"Array {name!r} is longer than it says.")
        self._open = (name, stop * row_items * dtype.itemsize, stream)
        values = np.frombuffer(data, dtype=dtype).reshape(stop - start, *header.shape[1:])
        if header.dtype == TEXT:
            return [_text(value, name) for value in values.reshape(-1).tolist()]
        return values if header.dtype == BFLOAT16 else values.astype(header.dtype, copy=False)

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()
        self._file.close()

    def _stream(self, name: str, place: int) -> IO[bytes]:
        if self._open is not None and self._open[:2] == (name, place):
            return self._open[2]
        stream = self._zip.open(self._members[name])
        _read_header(stream)
        left = place
        while left:
            left -= len(_exactly(stream, min(left, 1 << 20), name))
        return stream

    def _add(self, member: zipfile.ZipInfo) -> None:
        name = member.filename.removesuffix(".npy")
        if name in self._members:
            raise Refused(f"There are two arrays called {name[:MAX_NAME]!r}.")
        if len(self._members) >= MAX_ARRAYS:
            raise Refused(f"There are more than {MAX_ARRAYS} arrays.")
        if member.compress_type not in _KINDS or member.flag_bits & _ENCRYPTED:
            raise Refused(f"Array {name[:MAX_NAME]!r} is encrypted, or compressed by other means than deflate.")
        with closing(self._zip.open(member)) as stream:
            shape, fortran, dtype, begin = _read_header(stream)
        self._members[name], self._dtypes[name] = member, dtype
        text = dtype.kind in "US" and not dtype.hasobject
        kind = TEXT if text else number_dtype(dtype)
        why = "" if kind else _why_not(dtype)
        if kind and begin + math.prod(shape) * dtype.itemsize != member.file_size:
            raise Refused(f"Array {name!r} says that its shape is {shape}, but is longer or shorter.")
        if text and dtype.itemsize > 4 * TEXT_BYTES:
            raise Refused(f"The texts of array {name!r} are absurdly long.")
        turned = fortran and len(shape) > 1
        self._headers[name] = Header(
            name,
            shape[::-1] if turned else shape,
            kind,
            dtype.itemsize,
            transposed=turned,
            plain=member.compress_type == zipfile.ZIP_STORED,
            why=why,
        )


def _check_directory(file: IO[bytes]) -> None:
    """A list of members is read whole by zipfile; one without end must not be begun with."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_BYTES - (1 << 16)))
    tail = file.read()
    place = tail.rfind(_END)
    if place < 0 or place + _END_BYTES > len(tail):
        raise Refused("This is no .npz file, or its end is missing.", "Copy the file again, or write it again.")
    length = int.from_bytes(tail[place + 12 : place + 16], "little")
    if length > MAX_DIRECTORY:  # zip64 says 2**32 - 1 here, and needs it for more than 65,535 members only
        raise Refused("The list of arrays in this file is absurdly long.")
    file.seek(0)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran order, dtype, and where the values begin."""
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise Refused(f"An array is in version {version} of numpy's format, which plain numbers and texts do not need.")
    shape, fortran, dtype = read(stream)
    return tuple(int(n) for n in shape), bool(fortran), dtype, stream.tell()


def _exactly(stream: IO[bytes], count: int, name: str) -> bytearray:
    data = bytearray()
    while len(data) < count:
        part = stream.read(min(count - len(data), 1 << 20))
        if not part:
            raise Refused(f"Array {name!r} is cut short.", "Copy the file again, or write it again.")
        data += part
    return data


def _text(value: str | bytes, name: str) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        raise Refused(f"The bytes of array {name!r} are no UTF-8 text.") from None


def _why_not(dtype: np.dtype[Any]) -> str:
    if dtype.hasobject:
        return "Python objects, which are never unpickled: save it as an array of numbers or of texts"
    return f"numbers or texts are needed, not {str(dtype)[:60]}"
