"""What may become a shard: the check of every row before it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tosca_cache.errors import StoreError
from tosca_cache.store.arrays import ShardRows
from tosca_cache.store.layout import PATH_BYTES, VIEW_PARAMETERS, Shard
from tosca_cache.store.manifest import Plan


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
    _check_range("labels", arrays["labels"], len(plan.class_names))
    _check_range("domains", arrays["domains"], len(plan.domain_names))
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
    with np.errstate(over="ignore"):  # an overflow is found below, with the row it is in
        stored = given.astype(dtype)
    stored[gone] = 0
    bad = np.flatnonzero(~np.isfinite(stored).all(axis=(1, 2)))
    if bad.size:
        overflow = bool(np.isfinite(given[bad[0]]).all())
        raise StoreError(
            f"The features of {bad.size} images "
            + (f"are too large for {dtype}" if overflow else "are not finite numbers")
            + f", the first in row {shard.start + int(bad[0])} of split {shard.split}.",
            where=paths[int(bad[0])],
            remedy="Use --store-dtype float32." if overflow else "Use --precision fp32, or other weights.",
        )
    stored[gone] = np.nan
    return stored


def _check_range(name: str, numbers: NDArray[Any], stop: int) -> None:
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < stop:
        raise ValueError(f"{name} must be from 0 to {stop - 1}, not {numbers.min()} to {numbers.max()}")
