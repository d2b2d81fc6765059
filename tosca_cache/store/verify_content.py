"""What the numbers and texts of a shard must be, whatever their checksums say; every check is vectorised over its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError
from tosca_cache.store.arrays import checksum_holds, decode_numbers, decode_paths
from tosca_cache.store.layout import CRC_BYTES, PATH_BYTES, Shard, SplitLayout
from tosca_cache.store.manifest import Plan
from tosca_cache.store.rows import check_path

MAX_SIDE = 1 << 24  # pixels of an image
SHOWN = 5  # rows that are named
IntArray = NDArray[np.int64]
Found = Iterator[tuple[int, int, str]]  # first row, one past the last row, what is wrong with rows in between
_BITS: dict[str, tuple[type[np.unsignedinteger[Any]], int, int]] = {
    # by stored dtype: the integer with its bits, all but the sign, and the least pattern that is no finite number
    "float16": (np.uint16, 0x7FFF, 0x7C00),
    "float32": (np.uint32, 0x7FFFFFFF, 0x7F800000),
}


def check_object(data: bytes, array: str, plan: Plan, shard: Shard, paths: list[str]) -> Found:
    """What is wrong with the content of one object, if its checksum holds. paths: gets its paths, if it has some."""
    layout = plan.layouts[shard.split]
    if array == "features":
        yield from _check_chunks(np.frombuffer(data, np.uint8), layout, shard)
        return
    try:
        if array == "paths":
            paths += decode_paths(data, layout, shard)
            yield from _check_paths(paths, shard.start)
            return
        numbers = decode_numbers(data, layout, array, shard)
    except ValueError as error:
        yield shard.start, shard.stop, str(error)
        return
    if array == "views":
        yield from _check_views(numbers, shard.start)
    else:
        stop = len(plan.class_names if array == "labels" else plan.domain_names)
        yield from _check_numbers(numbers, shard.start, stop, array)


def _check_chunks(data: NDArray[np.uint8], layout: SplitLayout, shard: Shard) -> Found:
    """Every chunk of a shard of features, found by the index at its end."""
    index = data[data.size - layout.index_bytes :]
    if not checksum_holds(index):
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
        if not checksum_holds(chunk):
            yield start, stop, f"zarr's checksum (crc32c) of chunk {number} does not hold"
            continue
        features = chunk[:-CRC_BYTES].view(layout.dtype).reshape(layout.chunk_rows, layout.views, layout.dim)
        yield from _check_features(features[: stop - start], start)


def _check_features(features: NDArray[Any], start: int) -> Found:
    """Features [n, 1+V, d] of rows from `start` on: all finite, and no vector of zeros only.

    The bits of floating point numbers without their sign are ordered as the numbers are, infinity and NaN at the end: so
    the largest pattern of a vector answers both questions in one pass over whole numbers.
    """
    kind, unsigned, infinite = _BITS[features.dtype.name]
    largest = (features.view(kind) & kind(unsigned)).max(axis=-1, initial=0)
    yield from _rows((largest >= infinite).any(axis=1), start, "NaN or infinite features in {}")
    yield from _rows((largest == 0).any(axis=1), start, "all features are zero in {}")


def _check_numbers(numbers: IntArray, start: int, stop: int, what: str) -> Found:
    """Labels or domains [n] of rows from `start` on: from 0 to `stop` - 1."""
    yield from _rows((numbers < 0) | (numbers >= stop), start, f"{what} outside 0 to {stop - 1} in {{}}")


def _check_views(views: IntArray, start: int) -> Found:
    """View parameters [n, 1+V, 6] of rows from `start` on: possible crops, inside the image that view 0 says it was.

    A view of zeros only is one whose parameters are not known (features that came from elsewhere).
    """
    known = (views != 0).any(axis=2)
    seed, top, left, height, width, flip = np.moveaxis(views, 2, 0)
    good = (top >= 0) & (left >= 0) & (top <= MAX_SIDE) & (left <= MAX_SIDE)
    good &= (height >= 1) & (width >= 1) & (height <= MAX_SIDE) & (width <= MAX_SIDE) & (flip >= 0) & (flip <= 1)
    good[:, 1:] &= seed[:, 1:] > 0
    good[:, 0] &= (seed[:, 0] == 0) & (flip[:, 0] == 0)
    inside = (top + height <= height[:, :1]) & (left + width <= width[:, :1])
    good &= inside | ~known[:, :1]
    yield from _rows((known & ~good).any(axis=1), start, "view parameters that no crop of an image has in {}")


def _check_paths(paths: Sequence[str], start: int) -> Found:
    """Paths of rows from `start` on: relative, staying in the dataset's folder, not too long."""
    bad = np.array([not _is_good(path) for path in paths], dtype=bool)
    yield from _rows(bad, start, "paths that lead out of the dataset's folder, or are no paths, in {}")


def _is_good(path: str) -> bool:
    if path.isascii() and 0 < len(path) <= PATH_BYTES and path[0] != "/" and ".." not in path and "\0" not in path:
        return True  # almost every path, quickly
    try:
        check_path(path)
    except StoreError:
        return False
    return True


def _rows(bad: NDArray[np.bool_], start: int, text: str) -> Found:
    if bad.any():
        rows = (start + np.flatnonzero(bad)).tolist()
        shown = ", ".join(map(str, rows[:SHOWN])) + (", ..." if len(rows) > SHOWN else "")
        yield rows[0], rows[-1] + 1, text.format(f"row {shown}" if len(rows) == 1 else f"{len(rows)} rows ({shown})")
