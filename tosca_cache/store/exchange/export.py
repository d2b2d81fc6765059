"""A finished store as one HDF5 file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.files import Limit, file_errors, read_limited
from tosca_cache.store.arrays import read_small
from tosca_cache.store.disk import regular_size, sync_folder, temporary_path
from tosca_cache.store.exchange.form import (
    FORMAT,
    MANIFEST_SET,
    METADATA_GROUP,
    NAMES,
    PROVENANCE_SET,
    VERSION,
    is_store_name,
    row_shapes,
    shown,
)
from tosca_cache.store.exchange.patient import PatientFile
from tosca_cache.store.layout import SPLITS, Shard, metadata_keys
from tosca_cache.store.lock import FileLock, Held
from tosca_cache.store.manifest import MANIFEST, PROVENANCE
from tosca_cache.store.reader import Store
from tosca_cache.store.rows import check_path

CHUNK_BYTES = 1 << 20
SPARE = 1 << 20  # bytes for HDF5's own tables, besides one part in SPARE_SHARE
SPARE_SHARE = 100
Progress = Callable[[int], None]


def export_store(store: Store, target: Path, *, force: bool = False, progress: Progress | None = None) -> Path:
    """Writes a store into one HDF5 file (form.py), shard by shard, and returns its path.

    The file has its name only when all of it is on the disk; whatever goes wrong before leaves nothing, and an old file as
    it was. Every byte of the store is checked by its crc32c on the way.

    Arguments:
        force: replace a file of that name (a link is replaced, not followed).
        progress: is told how many more rows are written.

    Raises `UsageError` if the file exists, `StoreError` if the store is damaged or the disk refuses.
    """
    target = Path(target)
    _check_target(store, target, force=force)
    temporary = temporary_path(target)
    with file_errors(target, StoreError, option="another path"), _alone(target):
        temporary.unlink(missing_ok=True)  # of an export that was killed
        _check_space(store, target)
        try:
            with temporary.open("x+b", buffering=0) as file:
                patient = PatientFile(file)
                with h5py.File(patient, "w", libver=("earliest", "v110")) as inside:
                    _write(inside, store, patient, progress or (lambda rows: None))
                patient.check()
                os.fsync(file.fileno())
            _publish(temporary, target, force=force)
        finally:
            temporary.unlink(missing_ok=True)
    return target


def _write(file: Any, store: Store, patient: PatientFile, progress: Progress) -> None:
    plan = store.manifest.plan
    for name, value in (("format", FORMAT), ("name", store.path.name), ("zarr", zarr.__version__)):
        file.attrs[name] = np.bytes_(value)
    file.attrs["version"] = VERSION
    _write_bytes(file, MANIFEST_SET, read_limited(store.path / MANIFEST, Limit.MANIFEST))
    if regular_size(store.path / PROVENANCE) is not None:
        _write_bytes(file, PROVENANCE_SET, read_limited(store.path / PROVENANCE, Limit.PROVENANCE))
    for key in metadata_keys():
        _write_bytes(file, f"{METADATA_GROUP}/{key}", read_limited(store.path / key, Limit.METADATA))
    for name in NAMES:
        texts = [shown(text) for text in getattr(plan, name)]
        _create_texts(file, name, len(texts), _longest(texts))[:] = _encoded(texts)
    for split in SPLITS:
        _create_rows(file, store, split)
        for shard in plan.layouts[split].iterate(split):
            _write_shard(file, store, shard)
            patient.check()
            progress(shard.rows)


def _write_shard(file: Any, store: Store, shard: Shard) -> None:
    split, rows = shard.split, slice(shard.start, shard.stop)
    file[f"{split}/features"][rows] = store.features(split, rows)
    for array, names in (("labels", store.class_names), ("domains", store.domain_names), ("views", None)):
        found = _small(store, shard, array)
        if names is not None and not 0 <= found.min() <= found.max() < len(names):
            raise StoreError(
                f"The store is damaged: {array} of split {split} hold numbers that have no name.",
                where=store.path,
                remedy="Remove the store and extract again.",
            )
        file[f"{split}/{array}"][rows] = found
    file[f"{split}/paths"][rows] = _encoded(_paths(store, shard))


def _create_rows(file: Any, store: Store, split: str) -> None:
    """The five empty datasets of a split; chunks of its features are those of the store."""
    layout = store.manifest.plan.layouts[split]
    for name, shape in row_shapes(store.manifest.plan).items():
        owner, _, array = name.partition("/")
        if owner != split:
            continue
        if array == "paths":
            shards = layout.iterate(split)
            _create_texts(file, name, layout.rows, max((_longest(_paths(store, s)) for s in shards), default=1))
        elif array == "features":
            _create(file, name, shape, layout.dtype, layout.chunk_rows)
        else:
            _create(file, name, shape, "<i8", CHUNK_BYTES // (8 * int(np.prod(shape[1:], dtype=np.int64))))


def _create(file: Any, name: str, shape: tuple[int, ...], dtype: Any, chunk_rows: int, **more: Any) -> Any:
    """A dataset with checksums; resizable only because HDF5 otherwise has no chunks for an array without rows."""
    chunks = (max(1, min(chunk_rows, shape[0] or 1)), *shape[1:])
    return file.create_dataset(
        name,
        shape=shape,
        maxshape=(None, *shape[1:]),
        dtype=dtype,
        chunks=chunks,
        fletcher32=True,
        track_times=False,
        **more,
    )


def _create_texts(file: Any, name: str, rows: int, longest: int) -> Any:
    dtype = h5py.string_dtype("utf-8", longest)
    return _create(file, name, (rows,), dtype, CHUNK_BYTES // longest, compression="gzip", compression_opts=1)


def _write_bytes(file: Any, name: str, data: bytes) -> None:
    _create(file, name, (len(data),), "u1", CHUNK_BYTES)[:] = np.frombuffer(data, dtype=np.uint8)


def _paths(store: Store, shard: Shard) -> list[str]:
    found: list[str] = _small(store, shard, "paths").tolist()
    for path in found:
        check_path(path)
    return found


def _small(store: Store, shard: Shard, array: str) -> Any:
    layout = store.manifest.plan.layouts[shard.split]
    return read_small(store.path, shard.split, array, layout, shard.start, shard.stop)


def _encoded(texts: Sequence[str]) -> Any:
    encoded = [text.encode() for text in texts]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(map(len, encoded), default=1) or 1))


def _longest(texts: Sequence[str]) -> int:
    return max((len(text.encode()) for text in texts), default=1) or 1


def _check_target(store: Store, target: Path, *, force: bool) -> None:
    if not is_store_name(store.path.name):
        raise UsageError(
            f"a store called {store.path.name!r} cannot be imported again",
            where=store.path,
            remedy="rename its folder to letters, digits, dots, dashes and underscores",
        )
    if target.is_dir():
        raise UsageError("a folder is in the way", where=target, remedy="give the path of a file, such as store.h5")
    if os.path.lexists(target) and not force:
        raise UsageError("this file exists already", where=target, remedy="add --force, or give another name")


def _check_space(store: Store, target: Path) -> None:
    """An export that cannot fit is not begun; how much the texts take is not known before, so they do not count."""
    texts = [record["paths"].size for shards in store.manifest.shards.values() for record in shards]
    needed = store.manifest.size - sum(texts)
    needed += SPARE + needed // SPARE_SHARE
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise StoreError(
            f"The disk is full: about {needed:,} bytes are needed, {free:,} are free.",
            where=target,
            remedy="Free space on this disk, or choose another place for the file.",
        )


def _publish(temporary: Path, target: Path, *, force: bool) -> None:
    if not force and os.path.lexists(target):
        raise UsageError("this file has come about meanwhile", where=target, remedy="add --force, or give another name")
    temporary.replace(target)
    sync_folder(target.parent)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    try:
        lock = FileLock.acquire(target.with_name(f".{target.name}.lock"))
    except Held as held:
        raise StoreError(f"Another export writes this file: {held}.", where=target, remedy="Wait for it.") from held
    try:
        yield
    finally:
        lock.release()
