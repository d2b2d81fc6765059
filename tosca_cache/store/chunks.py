"""Reading features straight from the shards' files into one contiguous array, every byte checked by its crc32c.

zarr's own reading of a sharded array copies each byte several times and hands every chunk through an event loop, which
takes several times as long as numpy.load on 1 GB of warm float16 (benchmarks/store_read.py). Here the kernel reads a
chunk that is wanted whole into its place in the result, and it is checked there; one that is wanted in part goes through
a small scratch. The format stays zarr's: tests/store compares the result with what zarr reads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.store.arrays import checksum, checksum_holds, damaged
from tosca_cache.store.disk import storage
from tosca_cache.store.layout import CRC_BYTES, SplitLayout, object_key

MAX_THREADS = 4  # page cache and checksum are shared out by a few cores; more wait for each other
PAGE = 4096
Bytes = NDArray[np.uint8]
Selection = slice | NDArray[np.integer[Any]] | NDArray[np.bool_] | Sequence[int] | None
Positions = slice | NDArray[np.int64]  # a slice is ascending, without gaps, with both ends given


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
    out = page_aligned((count(chosen), count(columns), layout.dim), layout.dtype)
    if out.size == 0:
        return out

    def read_shard(pieces: list[Piece]) -> None:
        with closing(_ShardFile(folder, split, layout, pieces[0].shard)) as file:
            for piece in pieces:
                file.read(piece, out, columns)

    jobs = pieces_by_shard(chosen, layout)
    with ThreadPoolExecutor(max(1, min(MAX_THREADS, os.cpu_count() or 1, len(jobs)))) as pool:
        for _ in pool.map(read_shard, jobs):  # raises what a thread raised
            pass
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
    """One open shard of `features`: its index, and its chunks."""

    def __init__(self, folder: Path, split: str, layout: SplitLayout, index: int) -> None:
        self.folder, self.layout, self.shard = folder, layout, layout.shard(split, index)
        path = folder / object_key(split, "features", index)
        if not path.is_file():
            raise damaged(folder, self.shard, "features", "is missing")
        with storage(path):
            self.descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            self.size = os.fstat(self.descriptor).st_size
        self.scratch: Bytes | None = None
        try:
            self.offsets = self._read_index()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the shard's file."""
        os.close(self.descriptor)

    def read(self, piece: Piece, out: NDArray[Any], columns: Positions) -> None:
        """Puts the rows of a piece and the views `columns` into their places in `out` [n, v, d]."""
        layout = self.layout
        if piece.whole and is_all(columns, layout.views):
            self._read_chunk(piece.chunk, out[piece.target].reshape(-1).view(np.uint8))
            return
        if self.scratch is None:
            self.scratch = page_aligned((layout.chunk_bytes - CRC_BYTES,), "uint8")
        self._read_chunk(piece.chunk, self.scratch)
        chunk = self.scratch.view(layout.dtype).reshape(layout.chunk_rows, layout.views, layout.dim)
        out[piece.target] = chunk[piece.local][:, columns]

    def _read_index(self) -> list[list[int]]:
        """(offset, length) of every chunk, as zarr's sharding codec writes them at the end of a shard."""
        found = np.empty(self.layout.index_bytes, np.uint8)
        self._fill([found], self.size - found.size)
        if not checksum_holds(found):
            raise damaged(self.folder, self.shard, "features", "is truncated or fails its checksum")
        index: list[list[int]] = found[:-CRC_BYTES].view("<u8").reshape(-1, 2).tolist()
        return index

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


@dataclass(frozen=True)
class Piece:
    """Rows `local` of one chunk of one shard, which go to rows `target` of the result.

    whole: both are the full chunk in order, so that it can be read into its place.
    """

    shard: int
    chunk: int
    local: Positions
    target: Positions
    whole: bool


def positions(chosen: Selection, size: int, what: str) -> Positions:
    """The chosen numbers below `size`, negative ones counted from the end; raises `IndexError` for others."""
    if chosen is None:
        return slice(0, size)
    if isinstance(chosen, slice):
        numbers = np.arange(size, dtype=np.int64)[chosen]
    else:
        given = np.asarray(chosen)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iub"):
            raise IndexError(f"{what}s are chosen by a slice or a list of whole numbers, not by {chosen!r}")
        if given.dtype.kind == "b" and len(given) != size:
            raise IndexError(f"a mask of {what}s must have {size} entries, not {len(given)}")
        numbers = np.flatnonzero(given) if given.dtype.kind == "b" else given.astype(np.int64)
        if numbers.size and not -size <= numbers.min() <= numbers.max() < size:
            raise IndexError(f"there are {size} {what}s, but {numbers.min()} to {numbers.max()} were asked for")
        numbers = np.where(numbers < 0, numbers + size, numbers)
    return _as_run(numbers)


def count(chosen: Positions) -> int:
    """How many numbers were chosen."""
    return chosen.stop - chosen.start if isinstance(chosen, slice) else len(chosen)


def is_all(chosen: Positions, size: int) -> bool:
    """Whether these are all numbers below `size`, in order."""
    return isinstance(chosen, slice) and (chosen.start, chosen.stop) == (0, size)


def pieces_by_shard(rows: Positions, layout: SplitLayout) -> list[list[Piece]]:
    """What has to be read, one list a shard."""
    pieces = _run_pieces(rows, layout) if isinstance(rows, slice) else _scattered_pieces(rows, layout)
    return [list(group) for _, group in groupby(pieces, key=lambda piece: piece.shard)]


def _run_pieces(rows: slice, layout: SplitLayout) -> Iterator[Piece]:
    size = layout.chunk_rows
    for number in range(rows.start // size, -(-rows.stop // size)):
        first = number * size
        start, stop = max(rows.start, first), min(rows.stop, first + size)
        local, target = slice(start - first, stop - first), slice(start - rows.start, stop - rows.start)
        shard, chunk = divmod(number, layout.chunks)
        yield Piece(shard, chunk, local, target, whole=stop - start == size)


def _scattered_pieces(rows: NDArray[np.int64], layout: SplitLayout) -> Iterator[Piece]:
    size = layout.chunk_rows
    order = np.argsort(rows, kind="stable")
    numbers, starts = np.unique(rows[order] // size, return_index=True)
    for number, places in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        local, target = _as_run(rows[places] - number * size), _as_run(places)
        whole = is_all(local, size) and isinstance(target, slice)
        shard, chunk = divmod(number, layout.chunks)
        yield Piece(shard, chunk, local, target, whole)


def _as_run(numbers: NDArray[np.int64]) -> Positions:
    if numbers.size == 0:
        return slice(0, 0)
    if numbers[-1] - numbers[0] == numbers.size - 1 and (np.diff(numbers) == 1).all():
        return slice(int(numbers[0]), int(numbers[-1]) + 1)
    return numbers.astype(np.int64, copy=False)
