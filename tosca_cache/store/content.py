"""What the rows of a shard must be: checked before they are written, and again, whatever the checksums say, by `verify`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tosca_cache.errors import StoreError
from tosca_cache.store.arrays import IntArray, ShardRows, checksum_holds, decode_numbers, decode_paths
from tosca_cache.store.layout import CRC_BYTES, PATH_BYTES, VIEW_PARAMETERS, Shard, SplitLayout
from tosca_cache.store.manifest import Plan

MAX_SIDE = 1 << 24  # pixels of an image
SHOWN = 5  # rows that are named
NOT_FINITE, TOO_LARGE, ZERO = 1, 2, 3  # why a store cannot hold a row's features
Found = Iterator[tuple[int, int, str]]  # first row, one past the last row, what is wrong with rows in between
_BITS: dict[str, tuple[type[np.unsignedinteger[Any]], int, int]] = {
    # by stored dtype: the integer with its bits, all but the sign, and the least pattern that is no finite number
    "float16": (np.uint16, 0x7FFF, 0x7C00),
    "float32": (np.uint32, 0x7FFFFFFF, 0x7F800000),
}


def checked_rows(
    plan: Plan,
    shard: Shard,
    *,
    features: ArrayLike,
    labels: ArrayLike,
    domains: ArrayLike,
    views: ArrayLike,
    paths: Sequence[str],
    skipped: Mapping[int, str],
) -> ShardRows:
    """The rows of a shard in their stored types, with NaN for the features of skipped rows.

    Raises `ValueError` for wrong shapes and for labels or domains that have no name (a bug of the caller), `StoreError`
    for features that are NaN, infinite or too large for the stored dtype, and for paths that cannot be kept.
    """
    layout = plan.layouts[shard.split]
    if shard != layout.shard(shard.split, shard.index):
        raise ValueError(f"{shard} is not a shard of this store")
    if any(not shard.start <= row < shard.stop for row in skipped):
        raise ValueError(
            f"skipped rows {sorted(skipped)} must be rows of the split from {shard.start} to {shard.stop - 1}"
        )
    shapes = {
        "features": (layout.views, layout.dim),
        "views": (layout.views, VIEW_PARAMETERS),
        "labels": (),
        "domains": (),
    }
    given = {"features": features, "labels": labels, "domains": domains, "views": views}
    arrays = {name: np.asarray(value) for name, value in given.items()}
    for name, tail in shapes.items():
        if arrays[name].shape != (shard.rows, *tail):
            raise ValueError(f"{name} must have shape {(shard.rows, *tail)}, not {arrays[name].shape}")
        if (arrays[name].dtype.kind == "f") != (name == "features"):
            raise ValueError(f"{name} cannot have dtype {arrays[name].dtype}")
    if len(paths) != shard.rows:
        raise ValueError(f"there must be {shard.rows} paths, not {len(paths)}")
    for name, names in (("labels", plan.class_names), ("domains", plan.domain_names)):
        for _, _, what in _check_numbers(arrays[name], shard.start, len(names), name):
            raise ValueError(f"{what}: they must have a name")
    for path in paths:
        check_path(path)
    stored = _stored_features(arrays["features"], layout.dtype, shard, paths, skipped)
    integers = {name: arrays[name].astype(np.int64) for name in ("labels", "domains", "views")}
    return ShardRows(features=stored, paths=tuple(paths), **integers)


def check_path(path: str) -> None:
    """Raises `StoreError` unless this is a path that stays within the dataset's folder and can be kept as UTF-8."""
    pure = PurePosixPath(path)
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= PATH_BYTES or pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise StoreError(
            "The path of an image cannot be kept: it must be relative, without `..`, valid Unicode and not too long.",
            where=ascii(path),
            remedy="Rename the file or folder, then extract again.",
        )


def _stored_features(
    given: NDArray[Any], dtype: str, shard: Shard, paths: Sequence[str], skipped: Mapping[int, str]
) -> NDArray[Any]:
    gone = [row - shard.start for row in skipped]
    stored, problems = storable(given, dtype)
    problems[gone] = 0
    bad = np.flatnonzero((problems == NOT_FINITE) | (problems == TOO_LARGE))
    if bad.size:
        overflow = problems[bad[0]] == TOO_LARGE
        raise StoreError(
            f"The features of {bad.size} images "
            + (f"are too large for {dtype}" if overflow else "are not finite numbers")
            + f", the first in row {shard.start + int(bad[0])} of split {shard.split}.",
            where=paths[int(bad[0])],
            remedy="Use --store-dtype float32." if overflow else "Use --precision fp32, or other weights.",
        )
    stored[gone] = np.nan
    return stored


def storable(given: NDArray[Any], dtype: str) -> tuple[NDArray[Any], IntArray]:
    """Features [n, 1+V, d] as they are stored, and for each row why a store cannot hold it; 0 for good ones."""
    with np.errstate(over="ignore", invalid="ignore"):
        stored = given.astype(dtype)
    not_finite, too_large = (~np.isfinite(values).all(axis=(1, 2)) for values in (given, stored))
    zero = (stored == 0).all(axis=2).any(axis=1)
    return stored, np.select([not_finite, too_large, zero], [NOT_FINITE, TOO_LARGE, ZERO], default=0)


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
