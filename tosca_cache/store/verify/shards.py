"""The objects of one shard: their bytes against the manifest and zarr's checksums, and what is in them."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import crc32c
import numpy as np
from numpy.typing import NDArray

from tosca_cache.store.disk import ObjectRecord, regular_size
from tosca_cache.store.layout import ARRAYS, CRC_BYTES, VIEW_PARAMETERS, Shard, SplitLayout, object_key
from tosca_cache.store.manifest import Manifest
from tosca_cache.store.verify import content
from tosca_cache.store.verify.problems import CONTENT, OBJECT_BAD, Problem

MAX_OBJECT = 1 << 30  # bytes; tosca writes objects of at most 32 MiB, or one row
Bytes = NDArray[np.uint8]


@dataclass
class CheckedShard:
    """What was found in one shard. paths: None if they cannot be read. bytes: how many were read."""

    shard: Shard
    problems: list[Problem] = field(default_factory=list)
    paths: list[str] | None = None
    bytes: int = 0


class ShardChecker:
    """Checks the shards of one store; may be called from several threads, each of which has a buffer of its own.

    folder: the store. manifest: what it must be.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._local = threading.local()

    def __call__(self, shard: Shard) -> CheckedShard:
        """Everything that is wrong with the five objects of a shard."""
        checked = CheckedShard(shard)
        for array in ARRAYS:
            checked.problems += self._check(shard, array, checked)
        return checked

    def _check(self, shard: Shard, array: str, checked: CheckedShard) -> Iterator[Problem]:
        key = object_key(shard.split, array, shard.index)
        record = self.manifest.shards[shard.split][shard.index][array]

        def problem(kind: str, what: str, rows: tuple[int, int] | None = None) -> Problem:
            return Problem(kind, key, what, shard, array, rows)

        try:
            data = self._read(self.folder / key, record)
        except (ValueError, OSError) as error:
            yield problem(OBJECT_BAD, str(error) if isinstance(error, ValueError) else f"cannot be read ({error})")
            return
        checked.bytes += data.size
        intact = hashlib.sha256(data.data).hexdigest() == record.sha256
        if not intact:
            yield problem(OBJECT_BAD, "does not have its SHA-256")
        kind = CONTENT if intact else OBJECT_BAD
        layout = self.manifest.plan.layouts[shard.split]
        found = _check_chunks(data, layout, shard) if array == "features" else self._check_small(data, array, checked)
        for start, stop, what in found:
            # What is wrong with the content of bytes that are damaged anyway says nothing.
            if intact or "checksum" in what:
                yield problem(kind, what, (start, stop))

    def _read(self, path: Path, record: ObjectRecord) -> Bytes:
        """The bytes of an object; raises `ValueError` saying what is wrong with the file, `OSError` if the disk does."""
        size = regular_size(path)
        if size is None:
            raise ValueError(
                "is no regular file, but a link, a folder or a device" if _is_there(path) else "is missing"
            )
        if size != record.size:
            raise ValueError(f"has {size} bytes instead of {record.size}")
        if size > MAX_OBJECT:
            raise ValueError(f"has {size} bytes, more than any object that tosca writes; it was not looked at")
        buffer: Bytes | None = getattr(self._local, "buffer", None)
        if buffer is None or buffer.size < size:
            buffer = self._local.buffer = np.empty(size, np.uint8)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            got = 0
            while got < size and (step := os.preadv(descriptor, [buffer[got:size].data], got)):
                got += step
        finally:
            os.close(descriptor)
        if got < size:
            raise ValueError(f"has {got} bytes instead of {size}")
        return buffer[:size]

    def _check_small(self, data: Bytes, array: str, checked: CheckedShard) -> content.Found:
        shard = checked.shard
        layout = self.manifest.plan.layouts[shard.split]
        if not _checksum_holds(data):
            yield shard.start, shard.stop, "zarr's checksum (crc32c) does not hold"
            return
        body = data[:-CRC_BYTES]
        if array == "paths":
            try:
                checked.paths = content.decode_paths(body.tobytes(), layout.shard_rows)[: shard.rows]
            except ValueError as error:
                yield shard.start, shard.stop, f"are no texts ({error})"
                return
            yield from content.check_paths(checked.paths, shard.start)
            return
        numbers = body.view("<i8").astype(np.int64, copy=False)
        if array == "views":
            views = numbers.reshape(-1, layout.views, VIEW_PARAMETERS)[: shard.rows]
            yield from content.check_views(views, shard.start)
            return
        plan = self.manifest.plan
        stop = len(plan.class_names if array == "labels" else plan.domain_names)
        yield from content.check_numbers(numbers[: shard.rows], shard.start, stop, array)


def _check_chunks(data: Bytes, layout: SplitLayout, shard: Shard) -> content.Found:
    """Every chunk of a shard of features, found by the index that zarr's sharding codec writes at its end."""
    index = data[data.size - layout.index_bytes :]
    if not _checksum_holds(index):
        yield shard.start, shard.stop, "the checksum (crc32c) of zarr's index of chunks does not hold"
        return
    places = index[:-CRC_BYTES].view("<u8").reshape(-1, 2).tolist()
    for number in range(-(-shard.rows // layout.chunk_rows)):  # what follows is padding
        start = shard.start + number * layout.chunk_rows
        stop = min(start + layout.chunk_rows, shard.stop)
        offset, length = places[number]
        if length != layout.chunk_bytes or offset + length > data.size - layout.index_bytes:
            yield start, stop, f"chunk {number} is not in the shard; no checksum to look at"
            continue
        chunk = data[offset : offset + length]
        if not _checksum_holds(chunk):
            yield start, stop, f"zarr's checksum (crc32c) of chunk {number} does not hold"
            continue
        features = chunk[:-CRC_BYTES].view(layout.dtype).reshape(layout.chunk_rows, layout.views, layout.dim)
        yield from content.check_features(features[: stop - start], start)


def _checksum_holds(data: Bytes) -> bool:
    """Whether the last four bytes are the crc32c of all before them."""
    found: int = crc32c.crc32c(data[:-CRC_BYTES].data)
    return found == int.from_bytes(data[-CRC_BYTES:].tobytes(), "little")


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True
