"""Looking at every byte of a finished store: `verify_store`. Everything that is wrong is listed, not only the first thing.

- The manifest and its copy, byte for byte against their canonical text and digest; the provenance against its own.
- Size and SHA-256 of every object, and the crc32c of every chunk, as zarr wrote it.
- zarr's metadata: as they were written, and describing what the manifest promises.
- Counts, labels and domains, view parameters, NaN, infinities and zeros, paths that repeat or lead elsewhere.
- Files, folders and links that do not belong to the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tosca_cache.store.disk import storage
from tosca_cache.store.layout import ARRAYS, SPLITS, Shard, object_key
from tosca_cache.store.manifest import MANIFEST, Manifest
from tosca_cache.store.reader import refuse_unfinished
from tosca_cache.store.verify.folder import (
    check_all_metadata,
    check_counts,
    check_files,
    check_provenance,
    linked_folders,
    read_manifests,
)
from tosca_cache.store.verify.problems import CONTENT, FOREIGN, SHOWN, Problem, Verification
from tosca_cache.store.verify.shards import CheckedShard, ShardChecker
from tosca_cache.workers import threads_here

MAX_THREADS = 8  # hashing lets go of the interpreter; the memory's bandwidth is used up before that
Progress = Callable[[int, int], None]

__all__ = ["Problem", "Verification", "verify_store"]


def verify_store(path: str | Path, *, progress: Progress | None = None, threads: int | None = None) -> Verification:
    """Reads a finished store completely and says everything that is wrong with it; changes nothing.

    path: a folder; or an address, whose store is fetched first, every object checked, and of which the copy is read.
    progress: called with the bytes read so far and in all. threads: that hash; the cores of this process if None.

    Raises `StoreError` if there is no store, or an unfinished one, and if the folder cannot be read at all.
    """
    path, begun = Path(path), time.perf_counter()
    refuse_unfinished(path)
    with storage(path):
        manifest, problems = read_manifests(path)
        if manifest is None:
            problems.append(
                Problem(CONTENT, MANIFEST, "neither it nor its copy can be read: nothing else was looked at")
            )
            return Verification(path, None, tuple(problems), 0, 0, time.perf_counter() - begun)
        problems += check_counts(manifest)
        problems += check_provenance(path)
        problems += check_all_metadata(path, manifest)
        problems += check_files(path, manifest)
        shards, behind_links = _reachable(path, manifest)
    problems += behind_links
    objects, read = len(manifest.metadata), sum(record.size for record in manifest.metadata.values())
    paths: list[tuple[Shard, list[str]]] = []
    for checked in _in_threads(ShardChecker(path, manifest), shards, threads or min(threads_here(), MAX_THREADS)):
        problems += checked.problems
        objects, read = objects + len(ARRAYS), read + checked.bytes
        if checked.paths is not None:
            paths.append((checked.shard, checked.paths))
        if progress is not None:
            progress(read, manifest.size)
    for split in SPLITS:
        problems += _repeated((shard, found) for shard, found in paths if shard.split == split)
    return Verification(path, manifest, tuple(problems), objects, read, time.perf_counter() - begun)


def _reachable(path: Path, manifest: Manifest) -> tuple[list[Shard], list[Problem]]:
    """The shards whose splits have no folders that are links, and a problem for each split that has."""
    linked: dict[str, str] = {key.partition("/")[0]: key for key in sorted(linked_folders(path), reverse=True)}
    shards = [s for split in SPLITS for s in manifest.plan.layouts[split].iterate(split) if split not in linked]
    return shards, [Problem(FOREIGN, key, f"no shard of {split} was looked at") for split, key in linked.items()]


def _in_threads(check: ShardChecker, shards: list[Shard], threads: int) -> Iterator[CheckedShard]:
    if threads == 1 or len(shards) < 2:
        yield from map(check, shards)
        return
    with ThreadPoolExecutor(min(threads, len(shards)), thread_name_prefix="verify") as pool:
        try:
            yield from pool.map(check, shards)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _repeated(found: Iterable[tuple[Shard, list[str]]]) -> Iterator[Problem]:
    """Paths that several rows of one split have: one problem a shard in which a later one of them is."""
    first: dict[str, int] = {}
    for shard, paths in found:
        again = []
        for row, path in enumerate(paths, shard.start):
            if first.setdefault(path, row) != row:
                again.append((row, path))
        if again:
            named = ", ".join(f"{path!a} in rows {first[path]} and {row}" for row, path in again[:SHOWN])
            more = ", ..." if len(again) > SHOWN else ""
            key = object_key(shard.split, "paths", shard.index)
            rows = again[0][0], again[-1][0] + 1
            yield Problem(CONTENT, key, f"{len(again)} paths repeat: {named}{more}", shard, "paths", rows)
