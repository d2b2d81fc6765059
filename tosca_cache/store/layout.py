"""The geometry of a store: which rows make a shard, which objects a shard has, and how many bytes they must have.

    PATH.partial, .PATH.lock                              while it is being built, and never read as a store
    PATH/manifest.json provenance.json zarr.json          what it is; where it came from; the zarr 3 group
    PATH/manifest.copy.json                               the same bytes as manifest.json, to restore it from
    PATH/SPLIT/zarr.json                                  one group a split, `train` and `test`
    PATH/SPLIT/ARRAY/zarr.json  c.0 c.1 ...               one object a shard (features, views: c.0.0.0 ...)

A shard of rows is one object in each of the five arrays. `features` is sharded in zarr's sense: chunks of a few rows with
all their views, each with its own crc32c, so that rows can be read without reading their whole shard, and go straight
from the file into the caller's array. Chunks of single views would make reading view 0 alone cheaper, but cost
reading everything (what training does) its speed: a second copy of every byte; see benchmarks/store_read.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SPLITS = ("train", "test")
ARRAYS = ("features", "labels", "domains", "views", "paths")  # as `ShardRows` has them
VIEW_PARAMETERS = 6  # columns of `views`: seed, top, left, height, width, flip
CRC_BYTES = 4
PATH_BYTES = 16 << 10  # longest path of a row, in UTF-8
SHARD_ROWS = 256  # what an interruption can cost at most
SHARD_BYTES = 32 << 20
CHUNK_BYTES = (
    1 << 20
)  # stays in a core's cache between being read and being checked; smaller ones cost reading its speed
MAX_SHARDS = 512  # a large dataset gets larger shards rather than more files, up to SHARD_BYTES
_LIMITS = {"rows": 1 << 40, "views": 1 << 16, "dim": 1 << 24, "shard_rows": 1 << 24, "chunk_rows": 1 << 24}


@dataclass(frozen=True, order=True)
class Shard:
    """Rows `start` to `stop` (exclusive) of a split: the unit of work, of publishing and of resuming."""

    split: str
    index: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.stop - self.start


@dataclass(frozen=True)
class SplitLayout:
    """How the rows of one split lie in shards and chunks.

    rows, views, dim, dtype: N, 1+V, d and the stored dtype of `features`.
    shard_rows: rows a shard, a multiple of chunk_rows; the last shard has fewer and is padded with the fill value.
    chunk_rows: rows a chunk within a shard, with all their views.

    Raises `ValueError` for sizes that are absurd or do not fit each other.
    """

    rows: int
    views: int
    dim: int
    dtype: str
    shard_rows: int
    chunk_rows: int

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not (0 if name == "rows" else 1) <= value <= limit:
                raise ValueError(f"{name} is {value!r}, not a sensible whole number")
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype is {self.dtype!r}, neither float16 nor float32")
        if self.shard_rows % self.chunk_rows:
            raise ValueError(f"{self.shard_rows} rows a shard are not a multiple of {self.chunk_rows} rows a chunk")

    @classmethod
    def plan(cls, rows: int, views: int, dim: int, dtype: str, shard_rows: int | None = None) -> SplitLayout:
        """Shards of about equal size with at most `shard_rows` rows (default: by the dataset's size) and 32 MiB."""
        row_bytes = max(1, views * dim * np.dtype(dtype).itemsize)
        wanted = max(SHARD_ROWS, -(-rows // MAX_SHARDS)) if shard_rows is None else shard_rows
        most = max(1, min(wanted, SHARD_BYTES // row_bytes))
        chunk_rows = min(most, 1 << max(0, (CHUNK_BYTES // row_bytes).bit_length() - 1))
        most -= most % chunk_rows
        even = max(1, -(-rows // max(1, -(-rows // most))))
        chunk_rows = min(chunk_rows, even)
        return cls(rows, views, dim, dtype, -(-even // chunk_rows) * chunk_rows, chunk_rows)

    @property
    def shards(self) -> int:
        """How many shards the split has."""
        return -(-self.rows // self.shard_rows)

    @property
    def chunks(self) -> int:
        """How many chunks a shard of `features` has, padding included."""
        return self.shard_rows // self.chunk_rows

    def tail(self, array: str) -> tuple[int, ...]:
        """Lengths of an array's axes behind the rows."""
        tails = {"features": (self.views, self.dim), "views": (self.views, VIEW_PARAMETERS)}
        return tails.get(array, ())

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of `features`: all its views."""
        return self.views * self.dim * np.dtype(self.dtype).itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one encoded chunk of `features`: its rows and their checksum."""
        return self.chunk_rows * self.row_bytes + CRC_BYTES

    @property
    def index_bytes(self) -> int:
        """Bytes of zarr's index at the end of a shard of `features`: (offset, length) a chunk, and a checksum."""
        return 16 * self.chunks + CRC_BYTES

    def shard(self, split: str, index: int) -> Shard:
        """One shard of this split."""
        start = index * self.shard_rows
        return Shard(split, index, start, min(start + self.shard_rows, self.rows))

    def iterate(self, split: str) -> Iterator[Shard]:
        """The shards of this split, in order."""
        return (self.shard(split, index) for index in range(self.shards))


def object_key(split: str, array: str, index: int) -> str:
    """Where the object of a shard lies, relative to the store's folder."""
    return f"{split}/{array}/c.{index}" + (".0.0" if array in ("features", "views") else "")


def partial_path(path: Path) -> Path:
    """Where a store is built."""
    return path.parent / f"{path.name}.partial"
