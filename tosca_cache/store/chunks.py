"""Reading features straight from the shards' files into one contiguous array, every byte checked by its crc32c.

zarr's own reading of a sharded array copies each byte several times and hands every chunk through an event loop, which
takes several times as long as numpy.load on 1 GB of warm float16 (benchmarks/store_read.py). Here the kernel reads a
chunk that is wanted whole into its place in the result, and it is checked there; one that is wanted in part goes through
a small scratch. The format stays zarr's: tests/store compares the result with what zarr reads.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
from numpy.typing import NDArray

from tosca_cache.store.arrays import damaged
from tosca_cache.store.disk import storage
from tosca_cache.store.layout import CRC_BYTES, SplitLayout, object_key
from tosca_cache.store.selection import Piece, Positions, Selection, count, is_all, pieces_by_shard, positions

MAX_THREADS = 4  # page cache and checksum are shared out by a few cores; more wait for each other
PAGE = 4096
Bytes = NDArray[np.uint8]


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
        if crc32c.crc32c(found[:-CRC_BYTES].data) != int.from_bytes(found[-CRC_BYTES:].tobytes(), "little"):
            raise damaged(self.folder, self.shard, "features", "is truncated or fails its checksum")
        index: list[list[int]] = found[:-CRC_BYTES].view("<u8").reshape(-1, 2).tolist()
        return index

    def _read_chunk(self, chunk: int, into: Bytes) -> None:
        offset, length = self.offsets[chunk]
        if length != into.size + CRC_BYTES or offset + length > self.size:
            raise damaged(self.folder, self.shard, "features", f"has no chunk {chunk}")
        checksum = np.empty(CRC_BYTES, np.uint8)
        self._fill([into, checksum], offset)
        if crc32c.crc32c(into.data) != int.from_bytes(checksum.tobytes(), "little"):
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
