"""What the numbers and texts of a shard must be, whatever their checksums say; every check is vectorised over its rows."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError
from tosca_cache.store.layout import PATH_BYTES
from tosca_cache.store.rows import check_path
from tosca_cache.store.verify.problems import name_rows

MAX_SIDE = 1 << 24  # pixels of an image
IntArray = NDArray[np.int64]
Found = Iterator[tuple[int, int, str]]  # first row, one past the last row, what is wrong with rows in between
_BITS: dict[str, tuple[type[np.unsignedinteger[Any]], int, int]] = {
    # by stored dtype: the integer with its bits, all but the sign, and the least pattern that is no finite number
    "float16": (np.uint16, 0x7FFF, 0x7C00),
    "float32": (np.uint32, 0x7FFFFFFF, 0x7F800000),
}


def check_features(features: NDArray[Any], start: int) -> Found:
    """Features [n, 1+V, d] of rows from `start` on: all finite, and no vector of zeros only.

    The bits of floating point numbers without their sign are ordered as the numbers are, infinity and NaN at the end: so
    the largest pattern of a vector answers both questions in one pass over whole numbers.
    """
    kind, unsigned, infinite = _BITS[features.dtype.name]
    largest = (features.view(kind) & kind(unsigned)).max(axis=-1, initial=0)
    yield from _rows((largest >= infinite).any(axis=1), start, "NaN or infinite features in {}")
    yield from _rows((largest == 0).any(axis=1), start, "all features are zero in {}")


def check_numbers(numbers: IntArray, start: int, stop: int, what: str) -> Found:
    """Labels or domains [n] of rows from `start` on: from 0 to `stop` - 1."""
    yield from _rows((numbers < 0) | (numbers >= stop), start, f"{what} outside 0 to {stop - 1} in {{}}")


def check_views(views: IntArray, start: int) -> Found:
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


def check_paths(paths: Sequence[str], start: int) -> Found:
    """Paths of rows from `start` on: relative, staying in the dataset's folder, not too long."""
    bad = np.array([not _is_plain(path) and not _is_good(path) for path in paths], dtype=bool)
    yield from _rows(bad, start, "paths that lead out of the dataset's folder, or are no paths, in {}")


def decode_paths(data: bytes | memoryview, count: int) -> list[str]:
    """The texts of one object of `paths` (zarr's vlen-utf8: their number, then length and UTF-8 of each).

    Raises `ValueError` if there are not exactly `count`.
    """
    try:
        (found,) = struct.unpack_from("<I", data)
        if found != count:
            raise ValueError(f"{found} texts instead of {count}")
        texts, place = [], 4
        for _ in range(count):
            (length,) = struct.unpack_from("<I", data, place)
            place += 4 + length
            if place > len(data):
                raise ValueError("a text goes on after the end")
            texts.append(str(data[place - length : place], "utf-8"))
    except struct.error as error:
        raise ValueError(str(error)) from error
    if place != len(data):
        raise ValueError("bytes after the last text")
    return texts


def _is_plain(path: str) -> bool:
    """Quickly, of almost every path: that `check_path` has nothing against it."""
    return path.isascii() and 0 < len(path) <= PATH_BYTES and path[0] != "/" and ".." not in path and "\0" not in path


def _is_good(path: str) -> bool:
    try:
        check_path(path)
    except StoreError:
        return False
    return True


def _rows(bad: NDArray[np.bool_], start: int, text: str) -> Found:
    if bad.any():
        rows = start + np.flatnonzero(bad)
        yield int(rows[0]), int(rows[-1]) + 1, text.format(name_rows(rows))
