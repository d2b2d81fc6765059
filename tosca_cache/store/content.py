"""What the rows of a shard must be: checked before they are written, and again, whatever the checksums say, by `verify`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError
from tosca_cache.store.arrays import IntArray, Rows, decode_features, decode_small
from tosca_cache.store.layout import ARRAYS, PATH_BYTES, Shard
from tosca_cache.store.manifest import Plan

SHOWN = 5  # rows that are named
NOT_FINITE, TOO_LARGE, ZERO = 1, 2, 3  # why a store cannot hold a row's features
_REFUSED = (
    (NOT_FINITE, "are not finite numbers", "Use --precision fp32, or other weights."),
    (TOO_LARGE, "are too large for {}", "Use --store-dtype float32."),
)
Found = Iterator[tuple[int, int, str]]  # first row, one past the last row, what is wrong with rows in between
_BITS: dict[str, tuple[type[np.unsignedinteger[Any]], int, int]] = {
    # by stored dtype: the integer with its bits, all but the sign, and the least pattern that is no finite number
    "float16": (np.uint16, 0x7FFF, 0x7C00),
    "float32": (np.uint32, 0x7FFFFFFF, 0x7F800000),
}


def checked_rows(plan: Plan, shard: Shard, given: Rows, skipped: Mapping[int, str]) -> Rows:
    """The rows of a shard in their stored types, with NaN for the features of skipped rows.

    Raises `ValueError` for wrong shapes and for labels or domains that have no name (a bug of the caller), `StoreError`
    for features that are NaN, infinite or too large for the stored dtype, and for paths that cannot be kept.
    """
    layout, rows, paths = plan.layouts[shard.split], shard.rows, tuple(given["paths"])
    if shard != layout.shard(shard.split, shard.index) or any(not shard.start <= row < shard.stop for row in skipped):
        raise ValueError(f"{shard} must be a shard of this store, and rows {sorted(skipped)} in it")
    arrays = {name: np.asarray(given[name]) for name in ARRAYS if name != "paths"}
    for name, array in arrays.items():
        shape = (rows, *layout.tail(name))
        if array.shape != shape or (array.dtype.kind == "f") != (name == "features"):
            raise ValueError(f"{name} cannot have dtype {array.dtype}, or must have shape {shape}, not {array.shape}")
    if len(paths) != rows:
        raise ValueError(f"there must be {rows} paths, not {len(paths)}")
    for name in ("labels", "domains"):
        for _, _, what in _check_numbers(arrays[name], shard.start, plan, name):
            raise ValueError(f"{what}: they must have a name")
    for path in paths:
        check_path(path)
    gone = [row - shard.start for row in skipped]
    stored, problems = storable(arrays.pop("features"), layout.dtype)
    problems[gone] = 0
    for problem, what, remedy in _REFUSED:
        if (bad := np.flatnonzero(problems == problem)).size:
            raise StoreError(
                f"The features of {bad.size} images {what.format(layout.dtype)}, the first in row "
                f"{shard.start + int(bad[0])} of split {shard.split}.",
                where=paths[int(bad[0])],
                remedy=remedy,
            )
    stored[gone] = np.nan
    numbers = {name: array.astype(np.int64) for name, array in arrays.items()}
    numbers["views"][gone] = 0  # whatever was drawn before an image turned out unreadable
    return {"features": stored, "paths": paths, **numbers}


def check_path(path: str) -> None:
    """Raises `StoreError` unless this is a path that stays within the dataset's folder and can be kept as UTF-8."""
    if not _is_good(path):
        raise StoreError(
            "The path of an image cannot be kept: it must be relative, without `..`, valid Unicode and not too long.",
            where=ascii(path),
            remedy="Rename the file or folder, then extract again.",
        )


def _is_good(path: str) -> bool:
    try:
        size = len(path) if path.isascii() else len(path.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= PATH_BYTES and path[0] != "/" and "\0" not in path and ".." not in path.split("/")


def storable(given: NDArray[Any], dtype: str) -> tuple[NDArray[Any], IntArray]:
    """Features [n, 1+V, d] as they are stored, and for each row why a store cannot hold it; 0 for good ones."""
    with np.errstate(over="ignore", invalid="ignore"):
        stored = given.astype(dtype)
    infinite, zero = _unsound(stored)
    problems = np.select([infinite, zero], [TOO_LARGE, ZERO], default=0)
    rows = np.flatnonzero(infinite)
    problems[rows[~np.isfinite(given[rows]).all(axis=(1, 2))]] = NOT_FINITE
    return stored, problems


def _unsound(features: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of rows of features [n, 1+V, d]: which are not all finite, and which have a vector of zeros only.

    The bits of floating point numbers without their sign are ordered as the numbers are, infinity and NaN at the end: so
    the largest pattern of a vector answers both questions in one pass over whole numbers.
    """
    kind, unsigned, infinite = _BITS[features.dtype.name]
    largest = (features.view(kind) & kind(unsigned)).max(axis=-1, initial=0)
    return (largest >= infinite).any(axis=1), (largest == 0).any(axis=1)


def check_object(data: bytes, array: str, plan: Plan, shard: Shard, skipped: NDArray[np.int64]) -> Found:
    """What is wrong with the content of one object of a shard, whose bytes are as they were written; skipped: its rows."""
    layout = plan.layouts[shard.split]
    try:
        if array == "features":
            for start, features in decode_features(data, layout, shard):
                infinite, zero = _unsound(features)
                infinite[skipped[(skipped >= start) & (skipped < start + len(features))] - start] = False
                yield from _rows(infinite, start, "NaN or infinite features in {}")
                yield from _rows(zero, start, "all features are zero in {}")
            return
        found = decode_small(data, layout, array, shard)
    except ValueError as error:
        yield shard.start, shard.stop, str(error)
        return
    if array == "paths":
        bad = np.array([not _is_good(path) for path in found], dtype=bool)
        yield from _rows(bad, shard.start, "paths that lead out of the dataset's folder, or are no paths, in {}")
    elif array != "views":
        yield from _check_numbers(found, shard.start, plan, array)


def _check_numbers(numbers: IntArray, start: int, plan: Plan, what: str) -> Found:
    """Labels or domains [n] of rows from `start` on: each must have a name."""
    stop = len(plan.class_names if what == "labels" else plan.domain_names)
    yield from _rows((numbers < 0) | (numbers >= stop), start, f"{what} outside 0 to {stop - 1} in {{}}")


def _rows(bad: NDArray[np.bool_], start: int, text: str) -> Found:
    if bad.any():
        rows = (start + np.flatnonzero(bad)).tolist()
        shown = ", ".join(map(str, rows[:SHOWN])) + (", ..." if len(rows) > SHOWN else "")
        yield rows[0], rows[-1] + 1, text.format(f"row {shown}" if len(rows) == 1 else f"{len(rows)} rows ({shown})")
