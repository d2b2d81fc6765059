"""From PATH.partial, with all its shards, to the finished store at PATH.

Each step leaves something that the next run can go on from:

1. (only if rows were skipped) PATH.compact is built anew without them; if that is interrupted, it is thrown away.
2. zarr's metadata, the provenance and the copy of the manifest, then the manifest are written into it: from now on the
   folder is *sealed*, and only step 3 is left.
3. The plan and the journal are removed, and the folder is renamed to PATH.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError
from tosca_cache.store.arrays import ShardRows, encode_metadata, read_small, write_shard
from tosca_cache.store.chunks import read_features
from tosca_cache.store.disk import ObjectRecord, remove_tree, storage, sync, sync_all, write_durably
from tosca_cache.store.journal import DONE, DoneShard
from tosca_cache.store.layout import ARRAYS, SPLITS, Shard, SplitLayout, compact_path, partial_path
from tosca_cache.store.manifest import (
    MANIFEST,
    MANIFEST_COPY,
    PLAN,
    PROVENANCE,
    LeftOut,
    Manifest,
    Plan,
    SkippedRow,
    seal,
)

Skipped = Mapping[str, tuple[SkippedRow, ...]]
Records = dict[str, list[Mapping[str, ObjectRecord]]]


def make_folders(folder: Path) -> None:
    """Makes the folders of a store that is being built, and waits until their names are on the disk."""
    splits = [folder / split for split in SPLITS]
    for path in (folder, folder / DONE, *splits, *(split / array for split in splits for array in ARRAYS)):
        path.mkdir(exist_ok=True)
    sync_all([folder, folder / DONE, *splits])


def seal_store(
    path: Path,
    plan: Plan,
    done: Sequence[DoneShard],
    provenance: Mapping[str, Any],
    left_out: Mapping[str, Sequence[str]],
) -> Path:
    """Steps 1 and 2, for a store whose shards are all done; returns the sealed folder."""
    folder = partial_path(path)
    ordered = sorted(done, key=lambda d: d.shard)
    records: Records = {split: [d.objects for d in ordered if d.shard.split == split] for split in SPLITS}
    skipped = {split: tuple(row for d in ordered if d.shard.split == split for row in d.skipped) for split in SPLITS}
    if any(skipped.values()):
        folder, plan, records = _compact(path, plan, skipped)
    others = {why: LeftOut.of(paths) for why, paths in left_out.items() if paths}
    text = seal(Manifest(plan, {s: tuple(records[s]) for s in SPLITS}, skipped, others).to_dict())
    with storage(folder):
        beside = {PROVENANCE: seal(provenance), MANIFEST_COPY: text}
        write_durably({folder / key: data for key, data in (encode_metadata(plan.layouts) | beside).items()})
        write_durably({folder / MANIFEST: text})
    return folder


def publish_sealed(folder: Path, path: Path) -> None:
    """Step 3."""
    with storage(path):
        (folder / PLAN).unlink(missing_ok=True)
        remove_tree(folder / DONE)
        sync(folder)
        folder.rename(path)
        sync(path.parent)
        remove_tree(partial_path(path), MANIFEST, PLAN)


def _compact(path: Path, plan: Plan, skipped: Skipped) -> tuple[Path, Plan, Records]:
    """Copies all other rows into a fresh folder, shard by shard."""
    source, target = partial_path(path), compact_path(path)
    layouts: dict[str, SplitLayout] = {}
    records: Records = {}
    with storage(target):
        remove_tree(target, MANIFEST)
        make_folders(target)
    for split in SPLITS:
        old = plan.layouts[split]
        kept = np.setdiff1d(np.arange(old.rows), [row.row for row in skipped[split]])
        if not kept.size and old.rows:
            raise StoreError(
                f"Not one image of split {split} could be read.",
                where=skipped[split][0].path,
                remedy="Mend the images, then run the same command with --restart.",
            )
        new = SplitLayout.plan(len(kept), old.views, old.dim, old.dtype, old.shard_rows)
        layouts[split], records[split] = (
            new,
            [
                write_shard(target, new, shard, _read_rows(source, shard, old, kept[shard.start : shard.stop]))
                for shard in new.iterate(split)
            ],
        )
    return target, replace(plan, layouts=layouts), records


def _read_rows(folder: Path, shard: Shard, layout: SplitLayout, rows: NDArray[np.int64]) -> ShardRows:
    first, last = int(rows[0]), int(rows[-1]) + 1
    labels, domains, views, paths = (
        read_small(folder, shard.split, array, layout, first, last)[rows - first] for array in ARRAYS[1:]
    )
    return ShardRows(read_features(folder, shard.split, layout, rows), labels, domains, views, tuple(paths.tolist()))
