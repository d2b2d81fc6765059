"""Mending a store completely: files from their copies, damaged shards by computing them again, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tosca_cache.devices import describe_machine
from tosca_cache.errors import DatasetError, StoreError
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.extract.reconstruct import Sources, other_numerics, rebuild
from tosca_cache.store import Manifest, Shard, Store
from tosca_cache.store.arrays import ShardRows, encode_shard
from tosca_cache.store.content import checked_rows
from tosca_cache.store.disk import ObjectRecord
from tosca_cache.store.repair import StoreRepair, repairing
from tosca_cache.store.verify import Progress, Verification

COMPUTED = frozenset(("features", "views"))  # the others are known from the dataset's index


@dataclass(frozen=True)
class Repaired:
    """What was mended.

    before: what was wrong. done: what was done about it, in words. changed: objects whose bytes are not those that the
    manifest had recorded; it has been written again. notes: what is different here of what the last bits depend on.
    """

    before: Verification
    done: tuple[str, ...]
    changed: tuple[str, ...]
    notes: tuple[str, ...]


def repair_store(
    path: Path,
    sources: Sources | None = None,
    *,
    progress: Progress | None = None,
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> Repaired:
    """Mends what is damaged of a finished store; what is not stays as it is. May be interrupted, and then run again.

    sources: where images and weights lie now. progress: of the verification. on_shard: called with the number of shards
    that have been computed again, and how many there are.

    Raises what `repairing` raises; `FingerprintMismatch` if dataset or backbone are not those of the store, and what
    loading them raises, after all files but the shards have been mended; `DatasetError` if an image is gone.
    """
    path = Path(path)
    with repairing(path, progress=progress) as repair:
        machine = describe_machine(torch.device("cpu"))
        repair.mend_files()
        damaged, notes = repair.found.damaged, []
        if damaged:
            provenance = Store(path, repair.manifest).provenance
            extraction = rebuild(path, repair.manifest.plan, provenance, sources or Sources())
            notes = other_numerics(repair.manifest.plan, extraction)
            machine = describe_machine(extraction.backbone.device)
            for number, (shard, arrays) in enumerate(damaged.items()):
                on_shard(number, len(damaged))
                rows = _make_again(extraction, repair.manifest, shard, compute=bool(arrays & COMPUTED))
                if arrays & COMPUTED and "views" not in arrays:
                    _refuse_other_images(repair, shard, rows)
                repair.put(rows, shard, arrays, machine)
            on_shard(len(damaged), len(damaged))
        return Repaired(repair.found, tuple(repair.done), tuple(repair.changed), tuple(notes))


def _make_again(extraction: Extraction, manifest: Manifest, shard: Shard, *, compute: bool) -> ShardRows:
    """A shard of a finished store as it was made; without `compute`, features and views are empty.

    Raises `DatasetError` if an image that the store has cannot be read any more, `StoreError` for features that cannot be
    stored.
    """
    split, rows = extraction.dataset.splits[shard.split], slice(shard.start, shard.stop)
    empty: Any = np.empty(0)
    listed = ShardRows(empty, split.labels[rows], split.domains[rows], empty, split.paths[rows])
    if not compute:
        return listed
    numerics = manifest.plan.numerics
    if type(numerics.get("batch_size")) is not int or numerics["batch_size"] < 1:
        raise StoreError("The store does not say in which batches it was computed.", remedy="Extract it again.")
    with closing(extraction.compute_groups([shard], numerics, skip=True)) as computed:
        (buffer,) = (group.buffer for group in computed if group.ends_its_shard)
    skipped = {row.row: row.reason for row in manifest.skipped[shard.split] if shard.start <= row.row < shard.stop}
    for row in buffer.skipped.keys() - skipped.keys():
        raise DatasetError(
            f"An image that the store has cannot be read any more: {buffer.skipped[row]}",
            where=split.paths[row],
            remedy="Mend the image, then repair again; shards that are mended already stay so.",
        )
    facts = vars(replace(listed, features=buffer.features, views=buffer.views))
    return checked_rows(manifest.plan, shard, facts, skipped)


def _refuse_other_images(repair: StoreRepair, shard: Shard, rows: ShardRows) -> None:
    """View parameters say how large the images were; where they are not damaged, they must come out the same."""
    layout = repair.manifest.plan.layouts[shard.split]
    (data,) = encode_shard(layout, shard, {"views": rows.views}).values()
    if ObjectRecord.of(data) != repair.manifest.shards[shard.split][shard.index]["views"]:
        raise StoreError(
            f"Images of shard {shard.index} of split {shard.split} have other sizes than when the store was made.",
            where=repair.path,
            remedy="Put the images back that it was made from, then repair again; or extract the store again.",
        )
