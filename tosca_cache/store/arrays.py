"""The zarr 3 side of a store: its groups and arrays, writing one shard of rows, reading the small arrays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore, MemoryStore

from tosca_cache.errors import StoreError
from tosca_cache.store.disk import (
    Bytes,
    ObjectRecord,
    regular_size,
    repair_hint,
    storage,
    sync_all,
    temporary_path,
    write_whole,
)
from tosca_cache.store.layout import ARRAYS, SPLITS, VIEW_PARAMETERS, Shard, SplitLayout, object_key

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class ShardRows:
    """The content of one shard of n rows.

    features: [n, 1+V, d], all NaN in rows that were skipped. labels, domains: [n]. views: [n, 1+V, 6].
    paths: n texts, relative to the dataset's folder.
    """

    features: NDArray[np.floating[Any]]
    labels: IntArray
    domains: IntArray
    views: IntArray
    paths: tuple[str, ...]


class StagingStore(LocalStore):
    """zarr's local store, whose objects get their names when `commit` is called and all of them are on the disk.

    zarr 3.1's own writes each object to a temporary name and renames it, too, but does not wait for the disk, and the
    names are random, so that a killed writer leaves litter.
    """

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self.records: dict[str, ObjectRecord] = {}

    async def set(self, key: str, value: Buffer) -> None:
        """Writes one object under its temporary name, as zarr asks for it."""
        await asyncio.to_thread(self.set_sync, key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        """Writes one object under its temporary name."""
        self.put(key, np.ascontiguousarray(value.as_numpy_array()).view(np.uint8).data)

    def put(self, key: str, data: Bytes) -> None:
        """Writes one object under its temporary name."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(temporary_path(path), data)
        self.records[key] = ObjectRecord.of(data)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Writes one object unless it has been written: zarr does so for the groups above one that it makes."""
        if key not in self.records and not (self.root / key).exists():
            await self.set(key, value)

    def commit(self) -> None:
        """Names everything that was written, and returns when the names, too, are on the disk."""
        paths = [self.root / key for key in self.records]
        sync_all([temporary_path(path) for path in paths])
        for path in paths:
            temporary_path(path).replace(path)
        sync_all({path.parent for path in paths})


def create_arrays(folder: Path, layouts: Mapping[str, SplitLayout]) -> None:
    """Writes the metadata of all groups and arrays of a new store into an empty folder."""
    store = StagingStore(folder)
    with storage(folder):
        for key, data in encode_metadata(layouts).items():
            store.put(key, data)
        store.commit()


def write_shard(folder: Path, shard: Shard, rows: ShardRows) -> dict[str, ObjectRecord]:
    """Writes the five objects of a shard, each whole, and waits until they and their names are on the disk."""
    store = StagingStore(folder)
    with storage(folder):
        for array in ARRAYS:
            # An object that nobody listed may be anything: zarr must not read it to fill in what we do not write.
            (folder / object_key(shard.split, array, shard.index)).unlink(missing_ok=True)
            target = zarr.open_array(store=store, path=f"{shard.split}/{array}", mode="r+")
            target = target.with_config({"write_empty_chunks": True})
            values = getattr(rows, array)
            target[shard.start : shard.stop] = np.array(values, dtype=object) if array == "paths" else values
        store.commit()
    return {array: store.records[object_key(shard.split, array, shard.index)] for array in ARRAYS}


def encode_metadata(layouts: Mapping[str, SplitLayout]) -> dict[str, bytes]:
    """The metadata objects of a store with these layouts, by key, as this version of zarr writes them."""
    return dict(_metadata(*(layouts[split] for split in SPLITS)))


@lru_cache
def _metadata(*layouts: SplitLayout) -> dict[str, bytes]:
    store = MemoryStore()
    root = zarr.create_group(store=store, zarr_format=3)
    for split, layout in zip(SPLITS, layouts, strict=True):
        group = root.create_group(split)
        for array in ARRAYS:
            _create_array(group, array, layout)
    return _objects_in(store)


def encode_shard(layout: SplitLayout, shard: Shard, values: Mapping[str, Any]) -> dict[str, bytes]:
    """The objects of a shard, by array, as `write_shard` writes them.

    values: what `ShardRows` has under these names, of all the shard's rows; only the arrays that are given are encoded.
    """
    encoded = {}
    for array, value in values.items():
        store = MemoryStore()
        group = zarr.create_group(store=store, zarr_format=3)
        _create_array(group, array, layout)
        target = zarr.open_array(store=store, path=array, mode="r+").with_config({"write_empty_chunks": True})
        target[shard.start : shard.stop] = np.array(value, dtype=object) if array == "paths" else value
        key = object_key("", array, shard.index).removeprefix("/")
        encoded[array] = _objects_in(store)[key]
    return encoded


def _objects_in(store: MemoryStore) -> dict[str, bytes]:
    return {key: value.to_bytes() for key, value in store._store_dict.items()}


def read_small(
    folder: Path, split: str, array: str, layout: SplitLayout, start: int = 0, stop: int | None = None
) -> NDArray[Any]:
    """Rows `start` to `stop` of `labels`, `domains`, `views` or `paths`, checked by their crc32c.

    Raises `StoreError` naming the shard that is missing or damaged. zarr takes a missing object for one full of fill
    values, so each is looked for first; and its metadata are not believed, because they could ask for anything.
    """
    stop = layout.rows if stop is None else stop
    shards = list(layout.iterate(split))[start // layout.shard_rows : -(-stop // layout.shard_rows)]
    for shard in shards:
        if regular_size(folder / object_key(split, array, shard.index)) is None:
            raise damaged(folder, shard, array, "is missing")
    with storage(folder):
        source = _open_checked(folder, split, array, layout)
        try:
            return np.asarray(source[start:stop])
        except ValueError as error:
            raise _first_damaged(folder, source, array, shards, error) from error


def damaged(folder: Path, shard: Shard, array: str, what: str) -> StoreError:
    """The error for one object of a store that is not as it was written."""
    return StoreError(
        f"The store is damaged: {array} of shard {shard.index} of split {shard.split} "
        f"(rows {shard.start} to {shard.stop - 1}) {what}.",
        where=folder / object_key(shard.split, array, shard.index),
        remedy=repair_hint(folder),
    )


def _create_array(group: zarr.Group, array: str, layout: SplitLayout) -> None:
    shape, chunks, shards = _shapes(array, layout)
    fill: Any = {"features": float("nan"), "paths": ""}.get(array, -1)
    group.create_array(
        array,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype={"features": layout.dtype, "paths": "str"}.get(array, "int64"),
        fill_value=fill,
        compressors=Crc32cCodec(),
        filters=None,
        chunk_key_encoding={"name": "default", "separator": "."},
    )


def _shapes(array: str, layout: SplitLayout) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None]:
    tail = {"features": (layout.views, layout.dim), "views": (layout.views, VIEW_PARAMETERS)}.get(array, ())
    shard = (layout.shard_rows, *tail)
    if array == "features":
        return (layout.rows, *tail), (layout.chunk_rows, *tail), shard
    return (layout.rows, *tail), shard, None


def check_metadata(folder: Path, split: str, array: str, layout: SplitLayout) -> None:
    """Raises `StoreError` unless zarr's metadata of an array say what the layout says."""
    _open_checked(folder, split, array, layout)


def _open_checked(folder: Path, split: str, array: str, layout: SplitLayout) -> Any:
    """The array, if zarr's metadata say what the layout says: no other shape, type, chunks or codecs."""
    try:
        found = zarr.open_array(store=LocalStore(folder, read_only=True), path=f"{split}/{array}", mode="r")
    except (ValueError, KeyError, TypeError, zarr.errors.BaseZarrError) as error:
        raise foreign(folder, split, array) from error
    if _as_text(found) != _expected_metadata(array, layout):
        raise foreign(folder, split, array)
    return found


@lru_cache
def _expected_metadata(array: str, layout: SplitLayout) -> str:
    group = zarr.create_group(store=MemoryStore())
    _create_array(group, array, layout)
    return _as_text(group[array])


def _as_text(array: Any) -> str:
    return json.dumps(array.metadata.to_dict(), sort_keys=True, default=repr)


def _first_damaged(folder: Path, source: Any, array: str, shards: list[Shard], error: ValueError) -> StoreError:
    for shard in shards:
        try:
            source[shard.start : shard.stop]
        except ValueError:
            return damaged(folder, shard, array, "fails its checksum")
    return damaged(folder, shards[0], array, f"cannot be read ({error})")


def foreign(folder: Path, split: str, array: str) -> StoreError:
    """The error for metadata of zarr's that are not those of the array that the manifest promises."""
    return StoreError(
        "The store is damaged: zarr's metadata do not describe the array that the manifest promises.",
        where=folder / split / array / "zarr.json",
        remedy=repair_hint(folder),
    )
