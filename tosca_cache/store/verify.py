"""Looking at every byte of a finished store: `verify_store`. Everything that is wrong is listed, not only the first thing.

- The manifest and its copy, byte for byte against their canonical text and digest; the provenance against its own.
- Size and SHA-256 of every object, and then the crc32c of every chunk, as zarr wants it; zarr's metadata.
- Labels and domains, NaN, infinities and zeros, paths that repeat or lead elsewhere.
- Files, folders and links that do not belong to the store.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tosca_cache.errors import StoreError
from tosca_cache.shown import Shown
from tosca_cache.store.arrays import decode_small, encode_metadata, wrong_metadata
from tosca_cache.store.content import check_object
from tosca_cache.store.disk import ObjectRecord, in_threads, storage, wrong_size
from tosca_cache.store.layout import ARRAYS, Shard, object_key
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, PROVENANCE, Manifest, load_manifest, read_provenance
from tosca_cache.store.reader import FOLDERS, linked_folders, refuse_unfinished
from tosca_cache.workers import threads_here

MANIFEST_BAD, COPY_BAD, PROVENANCE_BAD, METADATA_BAD = "manifest", "manifest copy", "provenance", "zarr metadata"
OBJECT_BAD = "object"
LITTER = "litter"  # a killed writer's temporary file
FOREIGN = "foreign"  # a file, folder or link that does not belong here: for its owner to remove
CONTENT = "content"  # as it was written, but not as it should have been
MENDS = {  # what `repair` does about each kind that it can mend
    MANIFEST_BAD: f"restored from {MANIFEST_COPY}",
    COPY_BAD: f"restored from {MANIFEST}",
    PROVENANCE_BAD: "sealed again: what it says may have been changed by the damage",
    METADATA_BAD: "written again",
    OBJECT_BAD: "computed again",
    LITTER: "removed",
}
MAX_THREADS = 8  # hashing lets go of the interpreter; the memory's bandwidth is used up before that
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    kind: one of the constants above. where: the file or folder, relative to the store. what: what is wrong with it.
    shard, array, rows: the object concerned, if it is one, and its rows concerned, the first and one past the last.
    """

    kind: str
    where: str
    what: str
    shard: Shard | None = None
    array: str | None = None
    rows: tuple[int, int] | None = None

    @property
    def mendable(self) -> bool:
        """Whether `repair` can do something about it."""
        return self.kind in MENDS

    def __str__(self) -> str:
        if self.shard is None or self.rows is None:
            return f"{self.where}: {self.what}"
        first, last = self.rows[0], self.rows[1] - 1
        rows = f"row {first}" if first == last else f"rows {first} to {last}"
        place = f"{self.array} of shard {self.shard.index} of split {self.shard.split}"
        return f"{self.where}: {place}, {rows}: {self.what}"


@dataclass(frozen=True, repr=False)
class Verification(Shown):
    """What looking at every byte of a store has found.

    path: the store's folder. manifest: what was believed: the manifest, or its copy where that is damaged; None if both
    are. problems: all of them. objects, bytes: what was read. seconds: how long it took.
    """

    path: Path
    manifest: Manifest | None
    problems: tuple[Problem, ...]
    objects: int
    bytes: int
    seconds: float

    def facts(self) -> dict[str, Any]:
        """What it has found."""
        found = {"ok": self.ok, "problems": len(self.problems)}
        first = {"first": str(self.problems[0])} if self.problems else {}
        return found | first | {"objects": self.objects, "bytes": self.bytes, "path": str(self.path)}

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def mendable(self) -> bool:
        """Whether `repair` can do something about any of it."""
        return self.manifest is not None and any(problem.mendable for problem in self.problems)

    @property
    def damaged(self) -> Mapping[Shard, frozenset[str]]:
        """The arrays of each shard whose objects are not as they were written, train first, in order."""
        found: dict[Shard, set[str]] = {}
        for problem in self.problems:
            if problem.kind == OBJECT_BAD and problem.shard is not None and problem.array is not None:
                found.setdefault(problem.shard, set()).add(problem.array)
        ordered = sorted(found, key=lambda shard: (shard.split != "train", shard.index))
        return {shard: frozenset(found[shard]) for shard in ordered}


def verify_store(path: str | Path, *, progress: Progress | None = None, threads: int | None = None) -> Verification:
    """Reads a finished store completely and says everything that is wrong with it; changes nothing.

    progress: called with the bytes read so far and in all. threads: that hash; the cores of this process if None.

    Raises `StoreError` if there is no store, or an unfinished one, and if the folder cannot be read at all.
    """
    path, begun = Path(path), time.perf_counter()
    refuse_unfinished(path)
    with storage(path):
        manifest, problems = _read_manifests(path)
        if manifest is None:
            problems.append(
                Problem(CONTENT, MANIFEST, "neither it nor its copy can be read: nothing else was looked at")
            )
            return Verification(path, None, tuple(problems), 0, 0, time.perf_counter() - begun)
        metadata = encode_metadata(manifest.plan.layouts)
        problems += _check_files(path, manifest)
        if what := read_provenance(path)[1]:
            problems.append(Problem(PROVENANCE_BAD, PROVENANCE, what))
        problems += [Problem(METADATA_BAD, *found) for found in wrong_metadata(path, manifest.plan.layouts)]
        linked = {key.partition("/")[0] for key in linked_folders(path)}  # what is in them is not in the store
        shards = [shard for shard in manifest.shards if shard.split not in linked]
    objects, read = len(metadata), sum(map(len, metadata.values()))
    first: dict[tuple[str, str], int] = {}

    def collect(shard: Shard, checked: tuple[list[Problem], list[str], int]) -> None:
        """What one shard adds."""
        nonlocal objects, read
        problems.extend([*checked[0], *_repeated(shard, checked[1], first)])
        objects, read = objects + len(ARRAYS), read + checked[2]
        if progress is not None:
            progress(read, manifest.size)

    in_threads(partial(_check_shard, path, manifest), shards, threads or min(threads_here(), MAX_THREADS), collect)
    return Verification(path, manifest, tuple(problems), objects, read, time.perf_counter() - begun)


def _read_manifests(folder: Path) -> tuple[Manifest | None, list[Problem]]:
    """What to believe of a store, the manifest before its copy, and what is wrong with the two."""
    found: list[Manifest | None] = []
    problems = []
    for name, kind in ((MANIFEST, MANIFEST_BAD), (MANIFEST_COPY, COPY_BAD)):
        try:
            found.append(load_manifest(folder / name))
        except StoreError as error:
            found.append(None)
            problems.append(Problem(kind, name, error.problem))
    manifest, copy = found
    if manifest is not None and copy is not None and manifest != copy:
        problems.append(Problem(COPY_BAD, MANIFEST_COPY, f"differs from {MANIFEST}, which is believed"))
    return manifest or copy, problems


def _check_files(folder: Path, manifest: Manifest) -> Iterator[Problem]:
    """That nothing else is in the store's folder: no further files and folders, no links, no litter of killed writers."""
    files = {MANIFEST, MANIFEST_COPY, PROVENANCE, *manifest.objects}
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        for entry in sorted(os.scandir(folder / inside), key=lambda entry: entry.name):
            key = f"{inside}/{entry.name}" if inside else entry.name
            meant = f"{inside}/{entry.name[1:-4]}".removeprefix("/")
            if entry.is_symlink():
                yield Problem(FOREIGN, key, "is a link")
            elif entry.is_dir() and key in FOLDERS:
                waiting.append(key)
            elif entry.is_file() and entry.name == f".{entry.name[1:-4]}.tmp" and meant in files:
                yield Problem(LITTER, key, "was left behind by a writer that was killed")
            elif entry.is_dir() or key not in files:
                yield Problem(FOREIGN, key, "does not belong here")


def _check_shard(folder: Path, manifest: Manifest, shard: Shard) -> tuple[list[Problem], list[str], int]:
    """Everything that is wrong with the five objects of a shard; its paths, if they can be read; the bytes that were."""
    problems: list[Problem] = []
    paths: list[str] = []
    read, every = 0, (shard.start, shard.stop)
    gone = [row.row for row in manifest.skipped[shard.split] if shard.start <= row.row < shard.stop]
    skipped = np.array(gone, dtype=np.int64)
    for array, record in manifest.shards[shard].items():
        key, data = object_key(shard.split, array, shard.index), b""
        what = wrong_size(folder / key, record.size)
        if not what:
            try:
                data = (folder / key).read_bytes()
                what = None if ObjectRecord.of(data) == record else "does not have its SHA-256"
            except OSError as error:
                what = f"cannot be read ({error})"
        read += len(data)
        if what:
            problems.append(Problem(OBJECT_BAD, key, what, shard, array, every))
            continue
        for start, stop, what in check_object(data, array, manifest.plan, shard, skipped):
            problems.append(Problem(CONTENT, key, what, shard, array, (start, stop)))
        if array == "paths":
            with suppress(ValueError):
                paths = decode_small(data, manifest.plan.layouts[shard.split], array, shard)
    return problems, paths, read


def _repeated(shard: Shard, paths: list[str], first: dict[tuple[str, str], int]) -> Iterator[Problem]:
    """Paths of a shard that an earlier row of its split has, too. first: the first row of each path, added to."""
    rows = [first.setdefault((shard.split, path), row) for row, path in enumerate(paths, shard.start)]
    again = [(before, row) for row, before in enumerate(rows, shard.start) if before != row]
    if again:
        before, row = again[0]
        what = f"{len(again)} paths repeat, the first is {paths[row - shard.start]!a} in rows {before} and {row}"
        key = object_key(shard.split, "paths", shard.index)
        yield Problem(CONTENT, key, what, shard, "paths", (row, again[-1][1] + 1))
