"""The objects of a store: rows as the bytes that zarr 3 reads, and back; every one of them ends with its crc32c.

zarr's metadata follow from the layout alone, so nothing records them: whoever reads compares them with what they must be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import crc32c
import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError
from tosca_cache.store.disk import (
    Bytes,
    ObjectRecord,
    make_folder,
    regular_size,
    repair_hint,
    storage,
    write_durably,
    wrong_size,
)
from tosca_cache.store.layout import ARRAYS, CRC_BYTES, SPLITS, Shard, SplitLayout, object_key

IntArray = NDArray[np.int64]
Rows = Mapping[str, Any]  # of n rows: features [n, 1+V, d], labels and domains [n], views [n, 1+V, 6], n paths
NO_CHUNK = (1 << 64) - 1  # offset and length of a chunk that is not there: one of padding only
_CODECS: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


def write_shard(folder: Path, layout: SplitLayout, shard: Shard, rows: Rows) -> dict[str, ObjectRecord]:
    """Writes the objects of those arrays that are given, and waits until they and their names are on the disk."""
    objects = encode_shard(layout, shard, rows)
    paths = {array: folder / object_key(shard.split, array, shard.index) for array in objects}
    with storage(folder):
        for path in paths.values():
            make_folder(path.parent)  # a damaged store may have lost one
        write_durably({paths[array]: data for array, data in objects.items()})
    return {array: ObjectRecord.of(data) for array, data in objects.items()}


def encode_shard(layout: SplitLayout, shard: Shard, values: Rows) -> dict[str, Bytes]:
    """The objects of a shard, by array; of those arrays that are given, of all the shard's rows."""
    encoded: dict[str, Bytes] = {}
    for array, value in values.items():
        if array == "features":
            encoded[array] = _encode_features(layout, np.asarray(value))
        elif array == "paths":
            data = _texts().encode(np.array([*value, *[""] * (layout.shard_rows - shard.rows)], object))
            encoded[array] = data + checksum(data)
        else:
            padded = np.full((layout.shard_rows, *layout.tail(array)), -1, "<i8")
            padded[: shard.rows] = value
            encoded[array] = padded.tobytes() + checksum(padded)
    return encoded


def _encode_features(layout: SplitLayout, rows: NDArray[Any]) -> Bytes:
    """Chunks of rows behind one another, then the index that zarr's sharding codec looks for: where each of them is."""
    index = np.full((layout.chunks, 2), NO_CHUNK, "<u8")
    data = bytearray()
    for number, start in enumerate(range(0, len(rows), layout.chunk_rows)):
        chunk = np.full((layout.chunk_rows, layout.views, layout.dim), np.nan, layout.dtype)
        chunk[: len(rows) - start] = rows[start : start + layout.chunk_rows]
        index[number] = len(data), layout.chunk_bytes
        data += chunk.tobytes() + checksum(chunk)
    return data + index.tobytes() + checksum(index)


def decode_features(data: Bytes, layout: SplitLayout, shard: Shard) -> Iterator[tuple[int, NDArray[Any]]]:
    """The chunks of an object of features: their first rows and [n, 1+V, d]; raises `ValueError` if it is damaged."""
    index = np.frombuffer(_checked(memoryview(data)[-layout.index_bytes :]), "<u8").reshape(-1, 2).tolist()
    for (offset, length), start in zip(index, range(shard.start, shard.stop, layout.chunk_rows), strict=False):
        if length != layout.chunk_bytes or offset + length > len(data):
            raise ValueError("does not have all its chunks")
        chunk = np.frombuffer(_checked(memoryview(data)[offset : offset + length]), layout.dtype)
        yield start, chunk.reshape(layout.chunk_rows, layout.views, layout.dim)[: shard.stop - start]


def decode_small(data: Bytes, layout: SplitLayout, array: str, shard: Shard) -> Any:
    """Labels or domains [n], views [n, 1+V, 6], or n paths, of an object; raises `ValueError` if it is damaged."""
    if array == "paths":
        body = bytes(_checked(data))
        if int.from_bytes(body[:4], "little") != layout.shard_rows:
            raise ValueError(f"does not hold {layout.shard_rows} texts")
        return _texts().decode(body)[: shard.rows].tolist()
    found = np.frombuffer(_checked(data), "<i8").astype(np.int64, copy=False)
    return found.reshape(layout.shard_rows, *layout.tail(array))[: shard.rows]


def _texts() -> Any:
    from numcodecs.vlen import VLenUTF8

    return VLenUTF8()


def read_small(folder: Path, layout: SplitLayout, shard: Shard, array: str) -> Any:
    """What `decode_small` makes of an object, checked by its crc32c; raises `StoreError` if it is missing or damaged."""
    path = object_path(folder, shard, array)
    with storage(path):
        data = path.read_bytes()
    try:
        return decode_small(data, layout, array, shard)
    except ValueError as error:
        raise damaged(folder, shard, array, str(error)) from error


def wrong_object(folder: Path, shard: Shard, records: Mapping[str, ObjectRecord]) -> tuple[str, str] | None:
    """An array of a shard whose object is no regular file of its size, and what is wrong; None if there is none."""
    for array in ARRAYS:
        if what := wrong_size(folder / object_key(shard.split, array, shard.index), records[array].size):
            return array, what
    return None


def object_path(folder: Path, shard: Shard, array: str) -> Path:
    """Where one object lies; `StoreError` unless a regular file is there."""
    path = folder / object_key(shard.split, array, shard.index)
    if regular_size(path) is None:
        raise damaged(folder, shard, array, "is missing")
    return path


def checksum(data: Any) -> bytes:
    """The crc32c of bytes, as zarr writes it behind them."""
    return int(crc32c.crc32c(memoryview(data).cast("B"))).to_bytes(CRC_BYTES, "little")


def checksum_holds(data: Any) -> bool:
    """Whether bytes end with the crc32c of all before them."""
    view = memoryview(data).cast("B")
    return checksum(view[:-CRC_BYTES]) == view[-CRC_BYTES:]


def _checked(data: Bytes) -> memoryview:
    if not checksum_holds(data):
        raise ValueError("fails its checksum (crc32c)")
    return memoryview(data)[:-CRC_BYTES]


def damaged(folder: Path, shard: Shard, array: str, what: str) -> StoreError:
    """The error for one object of a store that is not as it was written."""
    return StoreError(
        f"The store is damaged: {array} of shard {shard.index} of split {shard.split} "
        f"(rows {shard.start} to {shard.stop - 1}) {what}.",
        where=folder / object_key(shard.split, array, shard.index),
        remedy=repair_hint(folder),
    )


def encode_metadata(layouts: Mapping[str, SplitLayout]) -> dict[str, bytes]:
    """The metadata objects of zarr for a store with these layouts, by key."""
    group = _json({"attributes": {}, "zarr_format": 3, "node_type": "group"})
    found = {"zarr.json": group}
    for split in SPLITS:
        found[f"{split}/zarr.json"] = group
        found |= {f"{split}/{array}/zarr.json": _json(_array_metadata(array, layouts[split])) for array in ARRAYS}
    return found


def wrong_metadata(folder: Path, layouts: Mapping[str, SplitLayout]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of zarr's own objects that do not describe a store with these layouts."""
    for key, data in encode_metadata(layouts).items():
        if regular_size(folder / key) != len(data) or (folder / key).read_bytes() != data:
            missing = regular_size(folder / key) is None
            yield key, "is missing or no regular file" if missing else "does not describe what the manifest promises"


def _array_metadata(array: str, layout: SplitLayout) -> dict[str, Any]:
    tail = list(layout.tail(array))
    codecs = _CODECS
    if array == "paths":
        codecs = [{"name": "vlen-utf8", "configuration": {}}, {"name": "crc32c"}]
    elif array == "features":
        inner = {"chunk_shape": [layout.chunk_rows, *tail], "codecs": _CODECS, "index_codecs": _CODECS}
        codecs = [{"name": "sharding_indexed", "configuration": {**inner, "index_location": "end"}}]
    fill: dict[str, Any] = {"features": "NaN", "paths": ""}
    return {
        "shape": [layout.rows, *tail],
        "data_type": {"features": layout.dtype, "paths": "string"}.get(array, "int64"),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [layout.shard_rows, *tail]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": fill.get(array, -1),
        "codecs": codecs,
        "attributes": {},
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode()
