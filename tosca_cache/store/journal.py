"""The done-lists of a store being built: one line a finished shard, and only what they list counts.

Each writer has a list of its own (`done.jsonl`, or `done.part-I-of-N.jsonl`) and reads everybody's when it begins.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tosca_cache.files import Limit, read_limited, strict_json
from tosca_cache.store.disk import ObjectRecord, regular_size, storage, sync_folder
from tosca_cache.store.layout import ARRAYS, Shard, SplitLayout, object_key
from tosca_cache.store.parts import Part
from tosca_cache.store.spec import canonical

_JOURNALS = "done*.jsonl"
NOT_OURS = (ValueError, KeyError, TypeError, AttributeError)  # what foreign lines make of `parse`


@dataclass(frozen=True)
class DoneShard:
    """A shard whose five objects are on the disk.

    skipped: {row of the split: reason}. taken: {digest of another store: (rows, views) that it gave}.
    """

    shard: Shard
    objects: Mapping[str, ObjectRecord]
    skipped: Mapping[int, str]
    taken: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def line(self) -> bytes:
        """One line of the done-list, with a checksum of itself."""
        body: dict[str, Any] = {
            "split": self.shard.split,
            "index": self.shard.index,
            "objects": {array: asdict(record) for array, record in self.objects.items()},
            "skipped": {str(row): reason for row, reason in sorted(self.skipped.items())},
        }
        if self.taken:
            body["taken"] = {digest: list(counts) for digest, counts in self.taken.items()}
        return (canonical({"shard": body, "crc32": zlib.crc32(canonical(body).encode())}) + "\n").encode()

    @classmethod
    def parse(cls, line: bytes, layouts: Mapping[str, SplitLayout]) -> DoneShard:
        """The inverse of `line`; raises one of `NOT_OURS` for a torn or foreign line."""
        content = strict_json(line)
        body: dict[str, Any] = content["shard"]
        if zlib.crc32(canonical(body).encode()) != content["crc32"]:
            raise ValueError("checksum")
        layout = layouts[body["split"]]
        if type(body["index"]) is not int or not 0 <= body["index"] < layout.shards:
            raise ValueError("no such shard")
        objects = {array: ObjectRecord(**body["objects"][array]) for array in ARRAYS}
        skipped = {int(row): reason for row, reason in body["skipped"].items()}
        taken = {digest: (int(rows), int(views)) for digest, (rows, views) in dict(body.get("taken", {})).items()}
        done = cls(layout.shard(body["split"], body["index"]), objects, skipped, taken)
        done._check_types()
        if done.line() != line:
            raise ValueError("not as it was written")
        return done

    def _check_types(self) -> None:
        if any(type(r.size) is not int or r.size < 0 or type(r.sha256) is not str for r in self.objects.values()):
            raise ValueError("no records")
        if not all(
            self.shard.start <= row < self.shard.stop and type(reason) is str for row, reason in self.skipped.items()
        ):
            raise ValueError("no skipped rows")


class Journal:
    """One done-list's file. Lines from the first torn one on are not believed, and are cut off by the next `append`."""

    def __init__(self, path: Path, layouts: Mapping[str, SplitLayout]) -> None:
        self.path = path
        self.entries: list[DoneShard] = []
        self._length = 0
        self._named = False  # whether its name is known to be on the disk; an earlier writer may have died before that
        with storage(self.path):
            data = read_limited(self.path, Limit.JOURNAL) if self.path.exists() else b""
        for line in data.splitlines(keepends=True):
            try:
                if not line.endswith(b"\n"):
                    break
                self.entries.append(DoneShard.parse(line, layouts))
            except NOT_OURS:
                break
            self._length += len(line)

    def append(self, done: DoneShard) -> None:
        """Adds a shard, whose objects must be on the disk already; returns when the line is on the disk, too."""
        line = done.line()
        with storage(self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                os.ftruncate(descriptor, self._length)
                written = os.pwrite(descriptor, line, self._length)
                if written < len(line):  # the disk is about to be full: the second call says so
                    os.pwrite(descriptor, line[written:], self._length + written)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if not self._named:
                sync_folder(self.path.parent)
                self._named = True
        self._length += len(line)
        self.entries.append(done)


def journal_path(folder: Path, part: Part | None) -> Path:
    """The done-list of one writer."""
    return folder / ("done.jsonl" if part is None else f"done.{part.name}.jsonl")


def journal_paths(folder: Path) -> list[Path]:
    """Everybody's done-list."""
    with storage(folder):
        return sorted(folder.glob(_JOURNALS))


def finished_shards(folder: Path, layouts: Mapping[str, SplitLayout]) -> dict[Shard, DoneShard]:
    """Every shard that somebody has listed and whose objects are there.

    One whose objects are gone or cut (a disk that lied about fsync) is left out, to be written again. Then two lists may
    have it, and differ, if its images changed in between: the one is believed whose digests are those of the objects.
    """
    found: dict[Shard, DoneShard] = {}
    for path in journal_paths(folder):
        for entry in Journal(path, layouts).entries:
            other = found.get(entry.shard)
            if other is None or other.objects == entry.objects or not _is_true(folder, other):
                found[entry.shard] = entry
    return {shard: done for shard, done in found.items() if is_there(folder, done)}


def is_there(folder: Path, done: DoneShard) -> bool:
    """Whether all objects of a shard are there with their sizes."""
    return all(regular_size(path) == record.size for path, record in _objects(folder, done))


def _is_true(folder: Path, done: DoneShard) -> bool:
    with storage(folder):
        return is_there(folder, done) and all(
            ObjectRecord.of(path.read_bytes()) == record for path, record in _objects(folder, done)
        )


def _objects(folder: Path, done: DoneShard) -> list[tuple[Path, ObjectRecord]]:
    shard = done.shard
    return [(folder / object_key(shard.split, array, shard.index), done.objects[array]) for array in ARRAYS]
