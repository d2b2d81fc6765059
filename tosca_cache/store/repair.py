"""Mending a finished store where it lies: what is damaged is replaced, file by file, and nothing else is touched.

Every file gets its name when it is whole and on the disk, so a reader finds the damaged one or the mended one. The writer's
lock is held. A manifest that has to change (bytes computed again on another machine may differ in their last bits) is
written after the objects that it describes and before its copy: whatever is interrupted, `verify_store` finds what is still
to be done, and mending it again does that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tosca_cache.errors import StoreError
from tosca_cache.store.arrays import Rows, encode_metadata, write_shard
from tosca_cache.store.disk import Bytes, make_folder, storage, write_durably
from tosca_cache.store.layout import Shard, object_key
from tosca_cache.store.locks import exclusive
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, PROVENANCE, Manifest, read_provenance, seal
from tosca_cache.store.reader import refuse_links
from tosca_cache.store.verify import LITTER, MENDS, Progress, Verification, verify_store

REPAIRS = "repairs"  # the key of the provenance under which changed digests are recorded


class StoreRepair:
    """A finished store that is being mended by this process alone; see `repairing`.

    path: its folder. found: what was wrong with it when it was taken. manifest: what it must be.
    done: what has been mended, in words. changed: keys of objects whose digests in the manifest are others than before.
    """

    def __init__(self, path: Path, found: Verification, manifest: Manifest) -> None:
        self.path, self.found, self.manifest = path, found, manifest
        self.done: list[str] = []
        self.changed: list[str] = []

    def mend_files(self) -> None:
        """Everything but the shards: the manifest from its copy or the copy from it, zarr's metadata, the provenance."""
        said = read_provenance(self.path)[0]
        note = "it was damaged and sealed again as far as it could be read" if said else "it was lost"
        files = encode_metadata(self.manifest.plan.layouts)
        files |= dict.fromkeys((MANIFEST, MANIFEST_COPY), seal(self.manifest.to_dict()))
        files[PROVENANCE] = seal(said | {"damaged": note})
        with storage(self.path):
            for problem in self.found.problems:
                if problem.kind == LITTER:
                    (self.path / problem.where).unlink(missing_ok=True)
                elif problem.where in files and problem.mendable:
                    self._write(problem.where, files[problem.where])
                else:
                    continue
                self.done.append(f"{problem.where} {MENDS[problem.kind]}")

    def put(self, rows: Rows, shard: Shard, arrays: frozenset[str], machine: Mapping[str, Any]) -> None:
        """Replaces the objects of some arrays of a shard, and the manifest if their bytes are not those that it records.

        rows: all rows of the shard, in their stored types; fields of other arrays are not looked at.
        """
        layout = self.manifest.plan.layouts[shard.split]
        records = write_shard(self.path, layout, shard, {array: rows[array] for array in sorted(arrays)})
        recorded = self.manifest.shards[shard]
        other = {array: record for array, record in records.items() if record != recorded[array]}
        if other:
            self.manifest = replace(self.manifest, shards={**self.manifest.shards, shard: {**recorded, **other}})
            keys = [object_key(shard.split, array, shard.index) for array in other]
            said = read_provenance(self.path)[0]
            said[REPAIRS] = [*said.get(REPAIRS, []), {"objects": keys, "machine": dict(machine)}]
            with storage(self.path):
                self._write(PROVENANCE, seal(said))
                for name in (MANIFEST, MANIFEST_COPY):
                    self._write(name, seal(self.manifest.to_dict()))
            self.changed += keys
        self.done.append(f"shard {shard.index} of split {shard.split} computed again ({', '.join(sorted(arrays))})")

    def _write(self, key: str, data: Bytes) -> None:
        """Puts a file in its place, whatever was there; its folders are made where they are gone."""
        path = self.path / key
        make_folder(path.parent)
        write_durably({path: data})


@contextmanager
def repairing(path: Path, *, progress: Progress | None = None) -> Iterator[StoreRepair]:
    """Takes a finished store for mending, as its only writer, and verifies it first.

    Raises `StoreBusy` while somebody else writes it; `StoreError` if there is no finished store, neither its manifest nor
    the copy can be believed, folders of it are links (what is behind them is not the store's), or the disk refuses.
    """
    with exclusive(path):
        found = verify_store(path, progress=progress)
        if found.manifest is None:
            raise StoreError(
                "Neither the manifest nor its copy can be read, so nobody knows what this store must be.",
                where=path,
                remedy="Remove the store and run the `tosca extract` command that made it again.",
            )
        refuse_links(path)
        yield StoreRepair(path, found, found.manifest)
