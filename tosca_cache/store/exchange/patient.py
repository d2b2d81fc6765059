"""A file for libhdf5 to write to, which cannot close a file, or end in peace, once the disk has refused a write."""

from __future__ import annotations

import os
from io import RawIOBase


class PatientFile:
    """What h5py asks of a file object. After the first write that fails, writes go to memory, and `check` says why.

    Whoever writes checks often, so that little is kept; the file is then thrown away.
    """

    def __init__(self, file: RawIOBase) -> None:
        self._file = file
        self._failure: OSError | None = None
        self._kept: list[tuple[int, bytes]] = []
        self._place = 0

    def check(self) -> None:
        """Raises the `OSError` of the first write that failed."""
        if self._failure is not None:
            raise self._failure

    def write(self, data: memoryview) -> int:
        """Writes all of it, here or there."""
        left = memoryview(data).cast("B")
        size, place = left.nbytes, self._place
        try:
            while left.nbytes and self._failure is None:
                done = os.pwrite(self._file.fileno(), left, place)
                left, place = left[done:], place + done
        except OSError as error:
            self._failure = error
        if left.nbytes:
            self._kept.append((place, bytes(left)))
        self._place += size
        return size

    def read(self, size: int) -> bytes:
        """As many bytes of it."""
        found = bytearray(size)
        self.readinto(memoryview(found))
        return bytes(found)

    def readinto(self, buffer: memoryview) -> int:
        """Fills the buffer with what was written, here or there; zeros where nothing was."""
        out = memoryview(buffer).cast("B")
        out[:] = bytes(out.nbytes)
        found = os.pread(self._file.fileno(), out.nbytes, self._place)
        out[: len(found)] = found
        for place, data in self._kept:
            first, last = max(place, self._place), min(place + len(data), self._place + out.nbytes)
            if first < last:
                out[first - self._place : last - self._place] = data[first - place : last - place]
        self._place += out.nbytes
        return out.nbytes

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a place, counted from the beginning, from here or from the end."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place}.get(whence)
        if start is None:
            ends = [place + len(data) for place, data in self._kept]
            start = max(os.fstat(self._file.fileno()).st_size, *ends, 0)
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        """Where it is."""
        return self._place

    def truncate(self, size: int | None = None) -> int:
        """Cuts or lengthens the file."""
        size = self._place if size is None else size
        try:
            os.ftruncate(self._file.fileno(), size)
        except OSError as error:
            self._failure = self._failure or error
        return size

    def flush(self) -> None:
        """Nothing is held back."""
