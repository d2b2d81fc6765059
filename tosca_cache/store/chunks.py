"""Reading features straight from the shards' files into one contiguous array, every byte checked by its crc32c.

zarr's own reading of a sharded array copies each byte several times and hands every chunk through an event loop, which
takes several times as long as numpy.load on 1 GB of warm float16 (benchmarks/store_read.py). Here the kernel reads a
chunk that is wanted whole into its place in the result, and it is checked there; one that is wanted in part goes through
a small scratch. The format stays zarr's: tests/store compares the result with what zarr reads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.store.arrays import IntArray, checksum, checksum_holds, damaged, object_path
from tosca_cache.store.disk import in_threads, storage
from tosca_cache.store.layout import CRC_BYTES, SplitLayout

MAX_THREADS = 4  # page cache and checksum are shared out by a few cores; more wait for each other
PAGE = 4096
Bytes = NDArray[np.uint8]
Selection = slice | NDArray[np.integer[Any]] | NDArray[np.bool_] | Sequence[int] | None
Piece = tuple[int, slice | IntArray, slice | IntArray]  # number of a chunk, its rows, and where these go in the result


def read_features(
    folder: Path, split: str, layout: SplitLayout, rows: Selection = None, views: Selection | int = None
) -> NDArray[Any]:
    """Features [n, v, d] in the stored dtype, C-contiguous, rows and views in the order asked for.

    folder: the store's folder. layout: the geometry of `split`, which the caller has checked.
    rows, views: None for all, a slice, a mask, or whole numbers (negative ones count from the end, repetition is
    allowed); `views` may be one number, which leaves v = 1.

    Raises `IndexError` for rows or views that do not exist, `StoreError` for missing, truncated or damaged shards.
    """
    chosen = positions(rows, layout.rows, "row")
    columns = positions([int(views)] if isinstance(views, int | np.integer) else views, layout.views, "view")
    out = page_aligned((len(chosen), len(columns), layout.dim), layout.dtype)
    if out.size == 0:
        return out
    which = as_run(columns)

    def read_shard(pieces: list[Piece]) -> None:
        with closing(_ShardFile(folder, split, layout, pieces[0][0] // layout.chunks)) as file:
            for piece in pieces:
                file.read(piece, out, which)

    jobs = [list(group) for _, group in groupby(_pieces(chosen, layout.chunk_rows), lambda p: p[0] // layout.chunks)]
    in_threads(read_shard, jobs, min(MAX_THREADS, os.cpu_count() or 1))
    return out


def page_aligned(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Like `numpy.empty`, from the beginning of a page on.

    A chunk lies 4 bytes a chunk before it further into its file than into the array. Some processors copy an eighth as fast
    where the target lies 1 to 15 bytes further into its page than the source, as it does for the first chunks of every
    shard if the array begins 16 bytes into a page, where numpy would have it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + PAGE, np.uint8)
    start = -room.ctypes.data % PAGE
    return room[start : start + size].view(dtype).reshape(shape)


class _ShardFile:
    """One open shard of `features`: its index, (offset, length) of every chunk as zarr writes them, and its chunks."""

    def __init__(self, folder: Path, split: str, layout: SplitLayout, index: int) -> None:
        self.folder, self.layout, self.shard = folder, layout, layout.shard(split, index)
        path = object_path(folder, self.shard, "features")
        with storage(path):
            self.descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        self.scratch = page_aligned((layout.chunk_bytes - CRC_BYTES,), "uint8")
        try:
            self.size, found = os.fstat(self.descriptor).st_size, np.empty(layout.index_bytes, np.uint8)
            self._fill([found], self.size - found.size)
            if not checksum_holds(found):
                raise damaged(folder, self.shard, "features", "is truncated or fails its checksum")
        except BaseException:
            self.close()
            raise
        self.offsets: list[list[int]] = found[:-CRC_BYTES].view("<u8").reshape(-1, 2).tolist()

    def close(self) -> None:
        """Closes the shard's file."""
        os.close(self.descriptor)

    def read(self, piece: Piece, out: NDArray[Any], columns: slice | IntArray) -> None:
        """Puts the rows of a piece and the views `columns` into their places in `out` [n, v, d]."""
        layout, (number, local, target) = self.layout, piece
        shape = layout.chunk_rows, layout.views, layout.dim
        runs = all(isinstance(chosen, slice) for chosen in (local, target, columns))
        if runs and (local, columns) == (slice(0, shape[0]), slice(0, shape[1])):
            self._read_chunk(number % layout.chunks, out[target].reshape(-1).view(np.uint8))
        else:
            self._read_chunk(number % layout.chunks, self.scratch)
            out[target] = self.scratch.view(layout.dtype).reshape(shape)[local][:, columns]

    def _read_chunk(self, chunk: int, into: Bytes) -> None:
        offset, length = self.offsets[chunk]
        if length != into.size + CRC_BYTES or offset + length > self.size:
            raise damaged(self.folder, self.shard, "features", f"has no chunk {chunk}")
        recorded = np.empty(CRC_BYTES, np.uint8)
        self._fill([into, recorded], offset)
        if checksum(into) != recorded.tobytes():
            raise damaged(self.folder, self.shard, "features", f"fails its checksum in chunk {chunk}")

    def _fill(self, buffers: list[Bytes], offset: int) -> None:
        left = [buffer.data for buffer in buffers]
        while left:
            with storage(self.folder):
                got = os.preadv(self.descriptor, left, offset) if offset >= 0 else 0
            if got == 0:
                raise damaged(self.folder, self.shard, "features", "is truncated")
            offset += got
            while left and got >= left[0].nbytes:
                got -= left.pop(0).nbytes
            if got:
                left[0] = left[0][got:]


def positions(chosen: Selection, size: int, what: str) -> IntArray:
    """The chosen numbers below `size`, negative ones counted from the end; raises `IndexError` for others."""
    if chosen is None or isinstance(chosen, slice):
        return np.arange(*(chosen or slice(None)).indices(size), dtype=np.int64)
    given = np.asarray(chosen)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iub"):
        raise IndexError(f"{what}s are chosen by a slice or a list of whole numbers, not by {chosen!r}")
    if given.dtype.kind == "b" and len(given) != size:
        raise IndexError(f"a mask of {what}s must have {size} entries, not {len(given)}")
    numbers = np.flatnonzero(given) if given.dtype.kind == "b" else given.astype(np.int64)
    if numbers.size and not -size <= numbers.min() <= numbers.max() < size:
        raise IndexError(f"there are {size} {what}s, but {numbers.min()} to {numbers.max()} were asked for")
    return np.where(numbers < 0, numbers + size, numbers)


def _pieces(rows: IntArray, size: int) -> list[Piece]:
    """What has to be read of each chunk of `size` rows, in order."""
    order = np.argsort(rows, kind="stable")
    numbers, starts = np.unique(rows[order] // size, return_index=True)
    places = zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)
    return [(number, as_run(rows[place] - number * size), as_run(place)) for number, place in places]


def as_run(numbers: IntArray) -> slice | IntArray:
    """Ascending numbers without gaps as a slice, which numpy copies from and to much faster; others as they are."""
    if numbers[-1] - numbers[0] == numbers.size - 1 and (np.diff(numbers) == 1).all():
        return slice(int(numbers[0]), int(numbers[-1]) + 1)
    return numbers
