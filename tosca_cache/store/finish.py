"""From PATH.partial, with all its shards, to the finished store at PATH.

Each step leaves something that the next run can go on from:

1. (only if rows were skipped) PATH.compact is built anew without them; if that is interrupted, it is thrown away.
2. provenance.json, manifest.copy.json, then manifest.json are written into it: from now on the folder is *sealed*, and
   only step 3 is left.
3. The plan, the done-lists and the notes are removed, and the folder is renamed to PATH.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tosca_cache.errors import StoreError
from tosca_cache.files import Limit, read_limited
from tosca_cache.store.arrays import ShardRows, create_arrays, read_small, write_shard
from tosca_cache.store.chunks import read_features
from tosca_cache.store.disk import ObjectRecord, remove_tree, storage, sync_folder, write_durably
from tosca_cache.store.journal import DoneShard, journal_paths
from tosca_cache.store.layout import SPLITS, Shard, SplitLayout, compact_path, metadata_keys, partial_path
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
    seal_provenance,
)
from tosca_cache.store.parts import note_paths


def seal_store(
    path: Path,
    plan: Plan,
    done: Sequence[DoneShard],
    provenance: Mapping[str, Any],
    left_out: Mapping[str, Sequence[str]],
) -> Path:
    """Steps 1 and 2, for a store whose shards are all done; returns the sealed folder."""
    folder = partial_path(path)
    records = {s: [d.objects for d in sorted(done, key=lambda d: d.shard) if d.shard.split == s] for s in SPLITS}
    skipped = {split: _skipped_rows(folder, plan.layouts[split], split, done) for split in SPLITS}
    if any(skipped.values()):
        folder, plan, records = _compact(path, plan, skipped)
    with storage(folder):
        metadata = {key: ObjectRecord.of(read_limited(folder / key, Limit.METADATA)) for key in metadata_keys()}
        others = {why: LeftOut.of(paths) for why, paths in left_out.items() if paths}
        manifest = Manifest(plan, {s: tuple(records[s]) for s in SPLITS}, metadata, skipped, others)
        text = seal(manifest.to_dict())
        write_durably(folder / PROVENANCE, seal_provenance(provenance))
        write_durably(folder / MANIFEST_COPY, text)
        write_durably(folder / MANIFEST, text)
    return folder


def publish_sealed(folder: Path, path: Path) -> None:
    """Step 3."""
    with storage(path):
        litter = folder.glob(".*.tmp")  # of a part that was killed when it left a note
        for file in (folder / PLAN, *journal_paths(folder), *note_paths(folder), *litter):
            file.unlink(missing_ok=True)
        sync_folder(folder)
        folder.rename(path)
        sync_folder(path.parent)
        remove_tree(partial_path(path), MANIFEST, PLAN)


def _skipped_rows(folder: Path, layout: SplitLayout, split: str, done: Sequence[DoneShard]) -> tuple[SkippedRow, ...]:
    found = []
    for entry in done:
        if entry.shard.split == split and entry.skipped:
            paths = read_small(folder, split, "paths", layout, entry.shard.start, entry.shard.stop)
            found += [SkippedRow(r, str(paths[r - entry.shard.start]), why) for r, why in entry.skipped.items()]
    return tuple(sorted(found, key=lambda skipped: skipped.row))


def _compact(
    path: Path, plan: Plan, skipped: Mapping[str, tuple[SkippedRow, ...]]
) -> tuple[Path, Plan, dict[str, list[Mapping[str, ObjectRecord]]]]:
    """Copies all other rows into a fresh folder, shard by shard."""
    source, target = partial_path(path), compact_path(path)
    kept = {s: np.setdiff1d(np.arange(plan.layouts[s].rows), [row.row for row in skipped[s]]) for s in SPLITS}
    for split in SPLITS:
        if not kept[split].size and plan.layouts[split].rows:
            raise StoreError(
                f"Not one image of split {split} could be read.",
                where=skipped[split][0].path,
                remedy="Mend the images, then run the same command with --restart.",
            )
    layouts = {s: _layout_of(len(kept[s]), plan.layouts[s]) for s in SPLITS}
    with storage(target):
        remove_tree(target, MANIFEST)
        target.mkdir()
    create_arrays(target, layouts)
    records: dict[str, list[Mapping[str, ObjectRecord]]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        for shard in layouts[split].iterate(split):
            rows = _read_rows(source, shard, plan.layouts[split], kept[split][shard.start : shard.stop])
            records[split].append(write_shard(target, shard, rows))
    return target, Plan(plan.spec, plan.numerics, plan.class_names, plan.domain_names, layouts), records


def _layout_of(rows: int, old: SplitLayout) -> SplitLayout:
    return SplitLayout.plan(rows, old.views, old.dim, old.dtype, old.shard_rows)


def _read_rows(folder: Path, shard: Shard, layout: SplitLayout, rows: NDArray[np.int64]) -> ShardRows:
    first, last = int(rows[0]), int(rows[-1]) + 1

    def small(array: str) -> NDArray[Any]:
        return read_small(folder, shard.split, array, layout, first, last)[rows - first]

    return ShardRows(
        features=read_features(folder, shard.split, layout, rows),
        labels=small("labels"),
        domains=small("domains"),
        views=small("views"),
        paths=tuple(small("paths").tolist()),
    )
