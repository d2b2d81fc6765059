"""An unfinished store: what is done of it, and the way from PATH.partial, with all its shards, to the store at PATH.

A shard is done when it has a record, `done/SPLIT.INDEX.json`; whoever goes on with the store, all of it or a part, goes on
from there. To finish, each step leaves something that the next run can go on from:

1. zarr's metadata, the provenance and the copy of the manifest, then the manifest are written into it: from now on the
   folder is *sealed*, and only step 2 is left.
2. The plan and the journal are removed, and the folder is renamed to PATH.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tosca_cache.errors import StoreError
from tosca_cache.files import Limit, read_limited
from tosca_cache.store.arrays import encode_metadata, wrong_object
from tosca_cache.store.disk import ObjectRecord, remove_tree, storage, sync, sync_all, write_durably
from tosca_cache.store.layout import ARRAYS, SPLITS, Shard, SplitLayout, partial_path
from tosca_cache.store.locks import Part
from tosca_cache.store.manifest import (
    MANIFEST,
    MANIFEST_COPY,
    PLAN,
    PROVENANCE,
    Manifest,
    Plan,
    SkippedRow,
    load,
    load_manifest,
    parse_fields,
    seal,
    unseal,
)

LISTED = 100  # paths of a kind that were left out
DONE = "done"  # the folder of the records


@dataclass(frozen=True)
class DoneShard:
    """A shard whose five objects are on the disk. taken: (rows, views) that another store gave."""

    shard: Shard
    objects: Mapping[str, ObjectRecord]
    skipped: tuple[SkippedRow, ...] = ()
    taken: tuple[int, int] = (0, 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        record = asdict(self)
        return {"split": self.shard.split, "index": self.shard.index} | {k: record[k] for k in record if k != "shard"}

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
        return cls(shard, objects, skipped, (rows, views))

    def is_there(self, folder: Path) -> bool:
        """Whether all objects are there with their sizes."""
        with storage(folder):
            return wrong_object(folder, self.shard, self.objects) is None


def record_shard(folder: Path, done: DoneShard) -> None:
    """Makes a shard, whose objects must be on the disk already, count as done; returns when that is on the disk, too."""
    with storage(folder):
        write_durably({folder / DONE / f"{done.shard.split}.{done.shard.index}.json": seal(done.to_dict())})


class StoreInProgress:
    """What there is of an unfinished store, or of a part of it.

    folder: PATH.partial. plan: what it is to become. part: None for all of it. shards: its own, train first, in order.
    done: the shards of the whole store that are there. sealed: whether only step 2 is left.
    """

    def __init__(self, folder: Path, plan: Plan, part: Part | None = None) -> None:
        self.folder, self.plan, self.part = folder, plan, part
        self.shards = plan.shards if part is None else part.of(plan.shards)
        self.sealed = (folder / MANIFEST).exists()
        self.done = dict(_sealed_shards(folder) if self.sealed else _finished_shards(folder, plan.layouts))

    @property
    def total_rows(self) -> int:
        """Rows of both splits in its shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def done_rows(self) -> int:
        """Those of them in shards that are done, skipped ones included."""
        return self.total_rows - sum(shard.rows for shard in self.pending())

    @property
    def skipped(self) -> dict[str, list[int]]:
        """Rows of each split that were published as skipped, whoever published them."""
        done = sorted(self.done.values(), key=lambda done: done.shard)
        return {split: [row.row for d in done if d.shard.split == split for row in d.skipped] for split in SPLITS}

    def pending(self, part: Part | None = None) -> list[Shard]:
        """Its shards, or those of a part of it, that are still to be published, train first; any order is good."""
        own = self.shards if part is None else part.of(self.shards)
        return [shard for shard in own if shard not in self.done]


def _finished_shards(folder: Path, layouts: Mapping[str, SplitLayout]) -> Iterator[tuple[Shard, DoneShard]]:
    """Every shard with a record, if its objects are there.

    One whose objects or record are gone or cut (a disk that lied about fsync) is left out, to be written again.
    """
    with storage(folder):
        for path in sorted((folder / DONE).glob("*.json")):
            with suppress(StoreError, FileNotFoundError):
                data = read_limited(path, Limit.NOTE)
                done = unseal(data, path, partial(DoneShard.from_dict, layouts=layouts))
                if done.is_there(folder):
                    yield done.shard, done


def _sealed_shards(folder: Path) -> Iterator[tuple[Shard, DoneShard]]:
    manifest = load_manifest(folder / MANIFEST)
    for shard, objects in manifest.shards.items():
        rows = tuple(row for row in manifest.skipped[shard.split] if shard.start <= row.row < shard.stop)
        yield shard, DoneShard(shard, objects, rows)


def read_unfinished(folder: Path) -> StoreInProgress | None:
    """What there is of the unfinished store in PATH.partial; None if none was begun, `StoreError` if it is damaged."""
    plan = recorded_plan(folder)
    return None if plan is None else StoreInProgress(folder, plan)


def recorded_plan(folder: Path) -> Plan | None:
    """What the unfinished store in PATH.partial is to become; None if none was begun, `StoreError` if it is damaged."""
    if (folder / MANIFEST).exists():
        return load_manifest(folder / MANIFEST).plan
    return load(folder / PLAN, Plan.from_dict) if (folder / PLAN).exists() else None


def make_folders(folder: Path) -> None:
    """Makes the folders of a store that is being built, and waits until their names are on the disk."""
    splits = [folder / split for split in SPLITS]
    for path in (folder, folder / DONE, *splits, *(split / array for split in splits for array in ARRAYS)):
        path.mkdir(exist_ok=True)
    sync_all([folder, folder / DONE, *splits])


def seal_store(
    folder: Path,
    plan: Plan,
    done: Iterable[DoneShard],
    provenance: Mapping[str, Any],
    left_out: Mapping[str, Sequence[str]],
) -> None:
    """Step 1, for a store whose shards are all done."""
    by_shard = {d.shard: d for d in done}
    ordered = [by_shard[shard] for shard in plan.shards]
    skipped = {split: tuple(row for d in ordered if d.shard.split == split for row in d.skipped) for split in SPLITS}
    others = {why: {"count": len(paths), "paths": list(paths[:LISTED])} for why, paths in left_out.items() if paths}
    manifest = Manifest(plan, {d.shard: d.objects for d in ordered}, skipped, others)
    for split, rows in skipped.items():
        if rows and not manifest.rows(split):
            raise StoreError(
                f"Not one image of split {split} could be read.",
                where=rows[0].path,
                remedy="Mend the images, then run the same command with --restart.",
            )
    text = seal(manifest.to_dict())
    with storage(folder):
        beside = {PROVENANCE: seal(provenance), MANIFEST_COPY: text}
        write_durably({folder / key: data for key, data in (encode_metadata(plan.layouts) | beside).items()})
        write_durably({folder / MANIFEST: text})


def publish_sealed(path: Path) -> None:
    """Step 2."""
    folder = partial_path(path)
    with storage(path):
        (folder / PLAN).unlink(missing_ok=True)
        remove_tree(folder / DONE)
        sync(folder)
        folder.rename(path)
        sync(path.parent)
