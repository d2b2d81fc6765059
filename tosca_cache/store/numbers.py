"""Reading `labels`, `domains` and `views` straight from their objects, every byte checked by its crc32c.

An object is the int64 numbers of its shard, little-endian, padded to a whole shard, and their checksum. zarr reads the same
(tests/store compares), but takes tens of milliseconds to get going, most of what opening a small store takes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import crc32c
import numpy as np

from tosca_cache.files import Limit, read_limited, strict_json
from tosca_cache.store.arrays import IntArray, damaged, foreign
from tosca_cache.store.disk import regular_size, storage
from tosca_cache.store.layout import CRC_BYTES, VIEW_PARAMETERS, Shard, SplitLayout, object_key


def read_numbers(folder: Path, split: str, array: str, layout: SplitLayout) -> IntArray:
    """All rows of `labels` or `domains`, [N], or of `views`, [N, 1+V, 6].

    Raises `StoreError` naming the shard that is missing or damaged, and for metadata of zarr's that describe another array.
    """
    tail = (layout.views, VIEW_PARAMETERS) if array == "views" else ()
    if not _described(folder / split / array / "zarr.json", (layout.rows, *tail), (layout.shard_rows, *tail)):
        raise foreign(folder, split, array)
    out = np.empty((layout.rows, *tail), np.int64)
    for shard in layout.iterate(split):
        found = _checked(folder, array, shard, layout).view("<i8").reshape(layout.shard_rows, *tail)
        out[shard.start : shard.stop] = found[: shard.rows]
    return out


def _checked(folder: Path, array: str, shard: Shard, layout: SplitLayout) -> Any:
    """The numbers' bytes of one object; its size is known before it is read."""
    path = folder / object_key(shard.split, array, shard.index)
    exact, _ = layout.object_bounds(array, shard)
    size = regular_size(path)
    if size is None:
        raise damaged(folder, shard, array, "is missing")
    if size != exact:
        raise damaged(folder, shard, array, f"has {size} bytes instead of {exact}")
    with storage(path):
        data = path.read_bytes()
    if len(data) != exact or crc32c.crc32c(data[:-CRC_BYTES]) != int.from_bytes(data[-CRC_BYTES:], "little"):
        raise damaged(folder, shard, array, "fails its checksum")
    return np.frombuffer(data[:-CRC_BYTES], np.uint8)


def _described(path: Path, shape: tuple[int, ...], chunk: tuple[int, ...]) -> bool:
    """Whether zarr would read the same: who trusts its metadata must not get other numbers than we do."""
    expected = {
        "shape": list(shape),
        "data_type": "int64",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
    }
    try:
        with storage(path):
            found = strict_json(read_limited(path, Limit.METADATA))
        return all(found[key] == value for key, value in expected.items())
    except (ValueError, KeyError, TypeError):
        return False
