"""What is done of a store that is being built: one line a finished shard in a done-list, and only that counts.

Each writer has a list of its own (`done.jsonl`, or `done.part-I-of-N.jsonl`) and reads everybody's when it begins. Part i
of n writes every n-th shard, train and test behind one another, so that parts are about equally long. Whatever n was, a
shard that is in anyone's list is done: other parts, and a run without parts, go on from there.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tosca_cache.errors import UsageError
from tosca_cache.files import Limit, read_limited, strict_json
from tosca_cache.store.disk import ObjectRecord, regular_size, storage, sync
from tosca_cache.store.layout import ARRAYS, SPLITS, Shard, SplitLayout, object_key
from tosca_cache.store.manifest import MANIFEST, PLAN, Plan, load_manifest, load_plan, parse_fields
from tosca_cache.store.spec import canonical

_WRITTEN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_NAME = re.compile(r"part-([0-9]{1,9})-of-([0-9]{1,9})")
_FOREIGN = (ValueError, KeyError, TypeError, AttributeError)  # what torn and foreign lines make of `DoneShard.parse`


@dataclass(frozen=True, order=True)
class Part:
    """Part `index` of `count`, from 1. Index 0 has no shards: it stands for who shares all parts out to workers."""

    count: int
    index: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """Reads `i/n`; raises `UsageError` unless 1 <= i <= n."""
        found = _WRITTEN.fullmatch(text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(
                f"{text!r} is not a part: i/n with i from 1 to n",
                where="--part",
                remedy="give for example --part 1/4, and in three more processes 2/4, 3/4 and 4/4",
            )
        return cls(int(found[2]), int(found[1]))

    @classmethod
    def named_in(cls, name: str) -> Part | None:
        """The part whose `name` is in a file's name; None if there is none."""
        found = _NAME.search(name)
        return None if found is None else cls(int(found[2]), int(found[1]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def name(self) -> str:
        """As it is in names of files."""
        return f"part-{self.index}-of-{self.count}"

    @property
    def label(self) -> str:
        """As it is in messages."""
        return f"part {self}" if self.index else f"a run that shares {self.count} parts out to workers"

    def of(self, shards: Sequence[Shard]) -> list[Shard]:
        """The shards of this part; the parts 1 to n have all of them, and no two have one."""
        return list(shards[self.index - 1 :: self.count]) if self.index else []


@dataclass(frozen=True)
class DoneShard:
    """A shard whose five objects are on the disk.

    skipped: {row of the split: reason}. taken: {digest of another store: (rows, views) that it gave}.
    """

    shard: Shard
    objects: Mapping[str, ObjectRecord]
    skipped: Mapping[int, str]
    taken: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "split": self.shard.split,
            "index": self.shard.index,
            "objects": {array: asdict(record) for array, record in self.objects.items()},
            "skipped": {str(row): reason for row, reason in sorted(self.skipped.items())},
            "taken": {digest: list(counts) for digest, counts in self.taken.items()},
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], layouts: Mapping[str, SplitLayout]) -> DoneShard:
        """The inverse of `to_dict`; raises one of `_FOREIGN` for what cannot be."""
        layout, index = layouts[value["split"]], value["index"]
        if type(index) is not int or not 0 <= index < layout.shards:
            raise ValueError("no such shard")
        shard = layout.shard(value["split"], index)
        skipped = {int(row): str(reason) for row, reason in value["skipped"].items()}
        if not all(shard.start <= row < shard.stop for row in skipped):
            raise ValueError("no such rows")
        taken = {digest: (int(rows), int(views)) for digest, (rows, views) in value["taken"].items()}
        objects = {array: parse_fields(ObjectRecord, value["objects"][array]) for array in ARRAYS}
        return cls(shard, objects, skipped, taken)

    def files(self, folder: Path) -> list[tuple[Path, ObjectRecord]]:
        """Its objects, and what they must be."""
        keys = {array: object_key(self.shard.split, array, self.shard.index) for array in ARRAYS}
        return [(folder / keys[array], record) for array, record in self.objects.items()]

    def is_there(self, folder: Path) -> bool:
        """Whether all objects are there with their sizes."""
        return all(regular_size(path) == record.size for path, record in self.files(folder))

    def is_intact(self, folder: Path) -> bool:
        """Whether all objects are there with their digests."""
        with storage(folder):
            return self.is_there(folder) and all(
                ObjectRecord.of(path.read_bytes()) == record for path, record in self.files(folder)
            )


class Journal:
    """One writer's done-list. Lines from the first torn one on are not believed, and are cut off by the next `append`.

    entries: the shards. note: what the writer said about how it made them.
    """

    def __init__(self, path: Path, layouts: Mapping[str, SplitLayout]) -> None:
        self.path = path
        self.entries: list[DoneShard] = []
        self.note: dict[str, Any] = {}
        self._length = 0
        self._named = False  # whether its name is known to be on the disk; an earlier writer may have died before that
        with storage(self.path):
            data = read_limited(self.path, Limit.JOURNAL) if self.path.exists() else b""
        for line in data.splitlines(keepends=True):
            try:
                content = strict_json(line)
                if _line(body := content["body"]) != line:
                    break  # torn, or not as it was written
                if "note" in body:
                    self.note = dict(body["note"])
                else:
                    self.entries.append(DoneShard.from_dict(body, layouts))
            except _FOREIGN:
                break
            self._length += len(line)

    def append(self, done: DoneShard) -> None:
        """Adds a shard, whose objects must be on the disk already; returns when the line is on the disk, too."""
        self._write(_line(done.to_dict()))
        self.entries.append(done)

    def append_note(self, facts: Mapping[str, Any]) -> None:
        """Keeps what the writer says about how it made its shards, in place of what it said before."""
        self._write(_line({"note": dict(facts)}))
        self.note = dict(facts)

    def _write(self, line: bytes) -> None:
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
                sync(self.path.parent)
                self._named = True
        self._length += len(line)


def _line(body: Mapping[str, Any]) -> bytes:
    """One line, with a checksum of itself."""
    return (canonical({"body": body, "crc32": zlib.crc32(canonical(body).encode())}) + "\n").encode()


def journal_path(folder: Path, part: Part | None) -> Path:
    """The done-list of one writer."""
    return folder / ("done.jsonl" if part is None else f"done.{part.name}.jsonl")


def journal_paths(folder: Path) -> list[Path]:
    """Everybody's done-list."""
    with storage(folder):
        return sorted(folder.glob("done*.jsonl"))


def read_notes(folder: Path, layouts: Mapping[str, SplitLayout]) -> dict[str, dict[str, Any]]:
    """{"i/n": what it said} of every part that said something."""
    notes = {Part.named_in(path.name): Journal(path, layouts).note for path in journal_paths(folder)}
    return {str(part): notes[part] for part in sorted(part for part in notes if part is not None) if notes[part]}


def finished_shards(folder: Path, layouts: Mapping[str, SplitLayout]) -> dict[Shard, DoneShard]:
    """Every shard that somebody has listed and whose objects are there.

    One whose objects are gone or cut (a disk that lied about fsync) is left out, to be written again. Then two lists may
    have it, and differ, if its images changed in between: the one is believed whose digests are those of the objects.
    """
    found: dict[Shard, DoneShard] = {}
    for path in journal_paths(folder):
        for entry in Journal(path, layouts).entries:
            other = found.get(entry.shard)
            if other is None or other.objects == entry.objects or not other.is_intact(folder):
                found[entry.shard] = entry
    return {shard: done for shard, done in found.items() if done.is_there(folder)}


@dataclass(frozen=True)
class StoreInProgress:
    """What there is of an unfinished store, as anybody sees it who only looks.

    folder: PATH.partial. sealed: all is there but the final name. done: the shards that are there; all of them if sealed.
    """

    folder: Path
    plan: Plan
    sealed: bool
    done: Mapping[Shard, DoneShard]

    @property
    def shards(self) -> list[Shard]:
        """All shards, train first, in order."""
        return all_shards(self.plan)

    @property
    def rows(self) -> int:
        """Rows of both splits."""
        return sum(layout.rows for layout in self.plan.layouts.values())

    @property
    def done_rows(self) -> int:
        """Rows of both splits in shards that are done, skipped ones included."""
        return sum(shard.rows for shard in self.done)

    @property
    def begun(self) -> list[Part]:
        """The parts that have a done-list, sorted."""
        found = {Part.named_in(path.name) for path in journal_paths(self.folder)}
        return sorted(part for part in found if part is not None)

    def missing(self, count: int) -> dict[Part, list[Shard]]:
        """Of `count` parts those that are not complete, with the shards that they have still to write."""
        parts = [Part(count, index) for index in range(1, count + 1)]
        left = {part: [shard for shard in part.of(self.shards) if shard not in self.done] for part in parts}
        return {part: shards for part, shards in left.items() if shards}


def all_shards(plan: Plan) -> list[Shard]:
    """The shards of a store, train first, in order."""
    return [shard for split in SPLITS for shard in plan.layouts[split].iterate(split)]


def recorded_plan(folder: Path) -> Plan | None:
    """What the unfinished store in PATH.partial is to become; None if none was begun, `StoreError` if it is damaged."""
    if (folder / MANIFEST).exists():
        return load_manifest(folder / MANIFEST).plan
    return load_plan(folder / PLAN) if (folder / PLAN).exists() else None


def read_unfinished(folder: Path) -> StoreInProgress | None:
    """What there is of the unfinished store in PATH.partial; None if none was begun, `StoreError` if it is damaged."""
    if (folder / MANIFEST).exists():
        found = load_manifest(folder / MANIFEST)
        done = {s: DoneShard(s, found.shards[s.split][s.index], {}) for s in all_shards(found.plan)}
        return StoreInProgress(folder, found.plan, True, done)
    plan = recorded_plan(folder)
    return None if plan is None else StoreInProgress(folder, plan, False, finished_shards(folder, plan.layouts))
