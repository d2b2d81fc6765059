"""What is done of a store that is being built: a record of each finished shard, `done/SPLIT.INDEX.json`, counts alone.

Part i of n writes every n-th shard, train and test behind one another, so that parts are about equally long. Whatever n
was, a shard that has a record is done: other parts, and a run without parts, go on from there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.files import Limit, read_limited
from tosca_cache.store.disk import ObjectRecord, storage, write_durably
from tosca_cache.store.layout import ARRAYS, SPLITS, Shard, SplitLayout, object_key
from tosca_cache.store.manifest import (
    MANIFEST,
    PLAN,
    Plan,
    SkippedRow,
    load_manifest,
    load_plan,
    parse_fields,
    seal,
    unseal,
)

_WRITTEN = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_NAME = re.compile(r"part-([0-9]{1,9})-of-([0-9]{1,9})")
DONE = "done"  # the folder of the records


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

    taken: (rows, views) that another store gave. part: that wrote it.
    """

    shard: Shard
    objects: Mapping[str, ObjectRecord]
    skipped: tuple[SkippedRow, ...] = ()
    taken: tuple[int, int] = (0, 0)
    part: Part | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "split": self.shard.split,
            "index": self.shard.index,
            "objects": {array: asdict(record) for array, record in self.objects.items()},
            "skipped": [asdict(row) for row in self.skipped],
            "taken": list(self.taken),
            "part": str(self.part) if self.part else None,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], layouts: Mapping[str, SplitLayout]) -> DoneShard:
        """The inverse of `to_dict`; raises `ValueError`, or what reading its keys raises, for what cannot be."""
        layout, index = layouts[value["split"]], value["index"]
        if type(index) is not int or not 0 <= index < layout.shards:
            raise ValueError("no such shard")
        shard = layout.shard(value["split"], index)
        skipped = tuple(parse_fields(SkippedRow, row) for row in value["skipped"])
        if not all(shard.start <= row.row < shard.stop for row in skipped):
            raise ValueError("no such rows")
        rows, views = map(int, value["taken"])
        objects = {array: parse_fields(ObjectRecord, value["objects"][array]) for array in ARRAYS}
        part = None if value["part"] is None else Part.parse(value["part"])
        return cls(shard, objects, skipped, (rows, views), part)

    def is_there(self, folder: Path, *, intact: bool = False) -> bool:
        """Whether all objects are there with their sizes; if `intact`, with their digests."""
        paths = {array: folder / object_key(self.shard.split, array, self.shard.index) for array in ARRAYS}
        with storage(folder):
            return all(record.fits(paths[array], digest=intact) for array, record in self.objects.items())


def record_shard(folder: Path, done: DoneShard) -> None:
    """Makes a shard, whose objects must be on the disk already, count as done; returns when that is on the disk, too."""
    with storage(folder):
        write_durably({folder / DONE / f"{done.shard.split}.{done.shard.index}.json": seal(done.to_dict())})


def finished_shards(folder: Path, layouts: Mapping[str, SplitLayout]) -> dict[Shard, DoneShard]:
    """Every shard with a record, if its objects are there.

    One whose objects or record are gone or cut (a disk that lied about fsync) is left out, to be written again.
    """
    found: dict[Shard, DoneShard] = {}
    with storage(folder):
        for path in sorted((folder / DONE).glob("*.json")):
            with suppress(StoreError, FileNotFoundError):
                data = read_limited(path, Limit.NOTE)
                done = unseal(data, path, partial(DoneShard.from_dict, layouts=layouts))
                if done.is_there(folder):
                    found[done.shard] = done
    return found


@dataclass(frozen=True)
class StoreInProgress:
    """What there is of an unfinished store, as anybody sees it who only looks.

    folder: PATH.partial. done: the shards that are there.
    """

    folder: Path
    plan: Plan
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
        """The parts that have written a shard, sorted."""
        return sorted({done.part for done in self.done.values() if done.part is not None})

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
        done = {s: DoneShard(s, found.shards[s.split][s.index]) for s in all_shards(found.plan)}
        return StoreInProgress(folder, found.plan, done)
    plan = recorded_plan(folder)
    return None if plan is None else StoreInProgress(folder, plan, finished_shards(folder, plan.layouts))
