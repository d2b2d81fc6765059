"""The side that asks: starts the child, sends it the file, and checks what it says."""

from __future__ import annotations

import json
import math
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from tosca_cache.errors import StoreError
from tosca_cache.untrusted.headers import MAX_ARRAYS, ROW_BYTES, TEXT, Header

PATIENCE = 60.0  # seconds that a child may take, and one more for every RATE bytes that it gives
RATE = 1 << 20
MAX_JSON = 8 << 20
MAX_TEXTS = 256 << 20  # bytes of one reply of texts, as JSON
TEXTS_FLOOR = 128 << 20  # bytes of all texts of an array that are never too many
_START = "import sys; sys.path.insert(0, {root!r}); from tosca_cache.untrusted.serve import main; main({descriptor})"
_QUIET = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "HDF5_PLUGIN_PRELOAD": "::",
    "HDF5_USE_FILE_LOCKING": "0",
}
_DAMAGED = "Use a sound copy of the file, or write it again."


class _Gone(Exception):
    """The child has died, hangs, or says what cannot be: the text says which."""


class Reader:
    """A child process that reads untrusted files, one after another; started when first needed, and again after a crash.

    patience: seconds that reading a file may take, besides a second for every MiB that comes.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._left = patience

    def open(self, path: str | Path) -> UntrustedFile:
        """Opens a file, and closes the one before; raises `StoreError` for what is no sound file of arrays."""
        path = Path(path)
        descriptor = open_regular(path)
        try:
            self._left = self.patience
            content, _ = self._ask(path, {"do": "open"}, [descriptor])
            arrays, attributes = self._checked(path, content)
            return UntrustedFile(path, self, os.fstat(descriptor).st_size, arrays, attributes)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Ends the child."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ask_rows(self, path: Path, header: Header, start: int, stop: int) -> bytes:
        """The bytes of some rows, or JSON of texts."""
        content, data = self._ask(path, {"do": "read", "name": header.name, "start": start, "stop": stop})
        if header.dtype != TEXT and content.get("bytes") != (stop - start) * header.row_bytes:
            self.close()
            raise StoreError(f"Array {header.name!r} is not as long as it says.", where=path, remedy=_DAMAGED)
        return data

    def _ask(self, path: Path, message: dict[str, Any], files: list[int] | None = None) -> tuple[dict[str, Any], bytes]:
        try:
            if self._process is None:
                self._start()
            content, data = self._exchange(message, files or [])
        except (_Gone, OSError) as error:
            how = self._how_it_ended(error)
            self.close()
            raise StoreError(f"This file cannot be read: {how}.", where=path, remedy=_DAMAGED) from error
        except BaseException:  # Ctrl-C between a question and its answer
            self.close()
            raise
        if "refused" in content:
            remedy = content.get("remedy")
            problem = str(content["refused"])
            problem = problem if problem.isprintable() else ascii(problem)  # it may quote the file
            raise StoreError(problem, where=path, remedy=str(remedy) if remedy else _DAMAGED)
        return content, data

    def _exchange(self, message: dict[str, Any], files: list[int]) -> tuple[dict[str, Any], bytes]:
        assert self._connection is not None
        text = json.dumps(message).encode()
        self._connection.settimeout(max(self._left, 0.1))
        socket.send_fds(self._connection, [len(text).to_bytes(4, "little")], files)
        self._connection.sendall(text)
        length = int.from_bytes(self._receive(4), "little")
        if length > MAX_JSON:
            raise _Gone("its reader gives an answer without end")
        try:
            content = json.loads(self._receive(length))
            count = content.get("bytes", 0)
        except (ValueError, AttributeError, RecursionError) as error:
            raise _Gone("its reader gives no answer that makes sense") from error
        if type(count) is not int or not 0 <= count <= max(MAX_TEXTS, ROW_BYTES):
            raise _Gone("its reader gives an answer without end")
        return content, self._receive(count)

    def _receive(self, count: int) -> bytes:
        """Exactly so many bytes, while the clock runs."""
        assert self._connection is not None
        data, place = bytearray(count), 0
        while place < count:
            begun = time.monotonic()
            if self._left <= 0:
                raise TimeoutError
            self._connection.settimeout(self._left)
            got = self._connection.recv_into(memoryview(data)[place:])
            self._left += got / RATE - (time.monotonic() - begun)
            if not got:
                raise _Gone("")
            place += got
        return bytes(data)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).parents[2])
        code = _START.format(root=root, descriptor=theirs.fileno())
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", code],
                env=os.environ | _QUIET,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._connection = ours

    def _how_it_ended(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"its reader was still busy after {self.patience:.0f} seconds"
        if isinstance(error, _Gone) and str(error):
            return str(error)
        assert self._process is not None
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            code = 0
        return f"it crashed its reader (signal {-code})" if code < 0 else f"its reader gave up (exit code {code})"

    def _checked(self, path: Path, content: Mapping[str, Any]) -> tuple[dict[str, Header], dict[str, str | int]]:
        try:
            headers = [Header.from_dict(value) for value in content["arrays"]]
            attributes = {str(k): v for k, v in content["attributes"].items() if type(v) in (str, int)}
            arrays = {header.name: header for header in headers}
            if len(headers) > MAX_ARRAYS or len(arrays) != len(headers):
                raise ValueError("too many arrays, or two of one name")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.close()
            raise StoreError(f"This file cannot be read ({error}).", where=path, remedy=_DAMAGED) from error
        return arrays, attributes


class UntrustedFile:
    """What the headers of a file say, and its values by rows; good until its reader opens another file.

    size: bytes of the file. arrays: by name. attributes: of the root, if it has some that mean something here.
    """

    def __init__(
        self, path: Path, reader: Reader, size: int, arrays: dict[str, Header], attributes: dict[str, str | int]
    ) -> None:
        self.path, self.size, self.arrays, self.attributes = path, size, arrays, attributes
        self._reader = reader

    def read(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray[Any, Any]:
        """Rows of numbers [stop - start, ...], in the order in which the file has them (see `Header.transposed`).

        Asked for in order, no byte is decoded twice. Raises `StoreError` for what cannot be read, and for texts.
        """
        header = self._readable(name, text=False)
        stop = header.rows if stop is None else stop
        if header.row_bytes > ROW_BYTES:
            raise self._refuse(f"One row of array {name!r} has {header.row_bytes} bytes.", "Give shorter rows.")
        parts = [
            np.frombuffer(self._reader.ask_rows(self.path, header, *block), dtype=header.dtype)
            for block in _blocks(start, stop, header.block_rows())
        ]
        values = np.concatenate(parts) if len(parts) != 1 else parts[0]
        return values.reshape(stop - start, *header.shape[1:]) if parts else _empty(header)

    def texts(self, name: str, start: int = 0, stop: int | None = None) -> list[str]:
        """Some texts of an array [n]; raises `StoreError` for what cannot be read, and for numbers."""
        header = self._readable(name, text=True)
        if len(header.shape) != 1:
            raise self._refuse(f"Array {name!r} is no plain list of texts.", "Give an array with one dimension.")
        stop = header.rows if stop is None else stop
        found: list[str] = []
        left = TEXTS_FLOOR + 8 * self.size + 6 * header.bytes  # JSON may take six bytes for a letter
        for first, last in _blocks(start, stop, header.block_rows()):
            data = self._reader.ask_rows(self.path, header, first, last)
            left -= len(data)
            if left < 0:  # every row may point to the same long text
                raise self._refuse(f"The texts of array {name!r} are absurdly long.", _DAMAGED)
            try:
                texts = json.loads(data)
            except (ValueError, RecursionError):
                texts = None
            if type(texts) is not list or len(texts) != last - first or not all(type(t) is str for t in texts):
                raise self._refuse(f"The texts of array {name!r} cannot be read.", _DAMAGED)
            found += texts
        return found

    def _readable(self, name: str, *, text: bool) -> Header:
        header = self.arrays[name]
        if not header.dtype:
            raise self._refuse(f"Array {name!r} cannot be used: {header.why}.", "Save it in another form.")
        if (header.dtype == TEXT) != text:
            needed = "texts, but has numbers" if text else "numbers, but has texts"
            raise self._refuse(f"Array {name!r} should have {needed}.", "Name another array.")
        return header

    def _refuse(self, problem: str, remedy: str) -> StoreError:
        return StoreError(problem, where=self.path, remedy=remedy)


def open_regular(path: Path) -> int:
    """A descriptor of a file; raises `StoreError` if it is missing, a link, a folder, a pipe or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        problem = "This is a link." if path.is_symlink() else f"This file cannot be opened ({error.strerror})."
        raise StoreError(problem, where=path, remedy="Give the path of the file itself.") from error
    except ValueError as error:
        raise StoreError("This is no path.", where=ascii(str(path)), remedy="Give the path of a file.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StoreError("This is no regular file.", where=path, remedy="Give the path of the file itself.")
    return descriptor


@contextmanager
def open_untrusted(path: str | Path, patience: float = PATIENCE) -> Iterator[UntrustedFile]:
    """An open file with a child of its own; see `Reader.open`."""
    with Reader(patience) as reader:
        yield reader.open(path)


def _blocks(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    first = start
    while first < stop:
        last = min(stop, first - first % size + size)
        yield first, last
        first = last


def _empty(header: Header) -> np.ndarray[Any, Any]:
    if math.prod(header.shape[1:]) > 1 << 40:
        return np.empty((0, 0), dtype=header.dtype)
    return np.empty((0, *header.shape[1:]), dtype=header.dtype)
