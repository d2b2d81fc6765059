"""Mending a store completely: files from their copies, damaged shards by computing them again, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tosca_cache.datasets import ImageDataset
from tosca_cache.devices import describe_machine
from tosca_cache.errors import FingerprintMismatch, StoreError
from tosca_cache.extract.recompute import Recomputation
from tosca_cache.extract.reconstruct import Sources, other_numerics, rebuild, rebuild_dataset
from tosca_cache.store import Shard, Store
from tosca_cache.store.arrays import ShardRows, encode_shard
from tosca_cache.store.disk import ObjectRecord
from tosca_cache.store.repair import StoreRepair, repairing
from tosca_cache.store.verify import Progress, Verification

COMPUTED = frozenset(("features", "views"))  # the others are known from the listing


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
    loading them raises, after everything has been mended that needs neither; `DatasetError` if an image is gone.
    """
    path = Path(path)
    with repairing(path, progress=progress) as repair:
        machine = describe_machine(torch.device("cpu"))
        repair.mend_files()
        damaged, notes = repair.found.damaged, []
        if damaged:
            again = _prepared(repair, sources or Sources(), any(arrays & COMPUTED for arrays in damaged.values()))
            if again.extraction is not None:
                notes = other_numerics(repair.manifest.plan, again.extraction)
                machine = describe_machine(again.extraction.backbone.device)
            for number, (shard, arrays) in enumerate(damaged.items()):
                on_shard(number, len(damaged))
                if arrays & COMPUTED:
                    rows = again.computed(shard)
                    _refuse_other_images(repair, shard, arrays, rows)
                else:
                    rows = again.listed(shard)
                repair.put(rows, shard, arrays, machine)
            on_shard(len(damaged), len(damaged))
        return Repaired(repair.found, tuple(repair.done), tuple(repair.changed), tuple(notes))


def _prepared(repair: StoreRepair, sources: Sources, compute: bool) -> Recomputation:
    store = Store(repair.path, repair.manifest)
    plan, provenance = repair.manifest.plan, store.provenance
    if compute:
        extraction = rebuild(repair.path, plan, provenance, sources)
        return Recomputation(extraction.dataset, repair.manifest, extraction)
    dataset = rebuild_dataset(plan.spec, provenance, sources)
    _refuse_other_listing(store, dataset)
    return Recomputation(dataset, repair.manifest)


def _refuse_other_listing(store: Store, dataset: ImageDataset) -> None:
    if dataset.listing_digest() != store.spec.dataset["listing_digest"]:
        raise FingerprintMismatch(
            "The images that there are now are not those that the store was made from.",
            where=dataset.root,
            remedy="Say where the right ones are: --dataset NAME or FOLDER, --data-root DIR; --images says which differ.",
        )


def _refuse_other_images(repair: StoreRepair, shard: Shard, arrays: frozenset[str], rows: ShardRows) -> None:
    """View parameters say how large the images were; where they are not damaged, they must come out the same."""
    if "views" in arrays:
        return
    layout = repair.manifest.plan.layouts[shard.split]
    (data,) = encode_shard(layout, shard, {"views": rows.views}).values()
    if ObjectRecord.of(data) != repair.manifest.shards[shard.split][shard.index]["views"]:
        raise StoreError(
            f"Images of shard {shard.index} of split {shard.split} have other sizes than when the store was made.",
            where=repair.path,
            remedy="Put the images back that it was made from, then repair again; or extract the store again.",
        )
