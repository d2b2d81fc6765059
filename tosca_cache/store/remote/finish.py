"""From a finished store in the mirror to a finished store at the remote root, whose manifest is written last.

Shards that were uploaded when they were done are not uploaded again. If rows were skipped, the finished store has other
shards under the same keys, and without a rename none of them may be written over while only done-objects vouch for what is
there. So they go below `NAME/sealed/` first; its manifest says that they are all there, and then the server copies them
into their places. Each step leaves something that the next run goes on from, on this machine or on another one:

1. What is missing is uploaded; where something would be written over, below `sealed/`, then `sealed/manifest.json`.
2. The server copies what is below `sealed/`.
3. The sizes of all objects are compared, the lease is looked at, then `manifest.copy.json` and `manifest.json` are
   written.
4. The plan, the done-objects, the notes and `sealed/` are removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tosca_cache.errors import StoreError
from tosca_cache.store.disk import ObjectRecord, storage
from tosca_cache.store.layout import Shard, SplitLayout
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, PLAN, PROVENANCE, load_manifest
from tosca_cache.store.remote.access import PATIENT, Access, in_threads
from tosca_cache.store.remote.fetch import arrived
from tosca_cache.store.remote.lease import Lease, sweep
from tosca_cache.store.remote.progress import transfer
from tosca_cache.store.remote.state import (
    DONE,
    SEALED,
    damaged,
    listed_shards,
    load_remote,
    mirror_and_access,
    read_done,
    records_in,
    records_of,
    remote_plan,
    see_manifest,
)


def settle(path: Path) -> Path:
    """Brings a finished store that is to be extracted to rest; returns its path. Below a plain root nothing happens.

    One that is finished remotely is fetched; one that is finished here, or sealed there, is uploaded to its end. Raises
    `StoreError` if the remote side cannot be had, `StoreBusy` if another process is uploading it.
    """
    found = mirror_and_access(path, PATIENT)
    if found is None:
        return path
    access, name = found[1], path.name
    there = access.children(name)
    if MANIFEST in there:
        if PLAN in there or DONE in there or SEALED in there:
            clear_away(access, name)
        sweep(access, name)
        return arrived(path)
    sealed = SEALED in there and MANIFEST in access.children(f"{name}/{SEALED}")
    if sealed or (path / MANIFEST).exists():
        lease = Lease.take(access, name)
        try:
            if sealed:
                unseal(access, name, lease)
            else:
                upload_finished(access, path, lease)
        finally:
            lease.release()
        return arrived(path)
    return path


def upload_finished(access: Access, path: Path, lease: Lease) -> None:
    """Makes the remote store what the finished one at `path` is; raises `StoreError` if that cannot be had."""
    name = path.name
    manifest = load_manifest(path / MANIFEST)
    wanted, there = records_in(manifest), access.objects(name)
    begun = remote_plan(access, name)  # a store with skipped rows has other layouts than the one that was begun
    listed = {} if begun is None else _listed(access, name, there, begun.layouts)
    missing = {k: r for k, r in wanted.items() if listed.get(k) != r or there.get(k) != r.size}
    below = f"{name}/{SEALED}" if listed.keys() & missing.keys() or listed.keys() - wanted.keys() else name
    if below != name:
        access.remove(f"{below}/{MANIFEST}")
    with transfer(f"uploading what is left of {access.where(name)}", sum(r.size for r in missing.values())) as advance:

        def upload(key: str) -> None:
            lease.check()
            upload_object(access, path / key, f"{below}/{key}", missing[key])
            advance(missing[key].size)

        in_threads(upload, sorted(missing))
    with storage(path):
        if (path / PROVENANCE).exists():
            access.write(f"{below}/{PROVENANCE}", (path / PROVENANCE).read_bytes())
        data = (path / MANIFEST).read_bytes()
    if below != name:
        access.write(f"{below}/{MANIFEST}", data)
        unseal(access, name, lease)
    else:
        _vouch(access, name, wanted, data, lease)


def upload_object(access: Access, file: Path, key: str, record: ObjectRecord) -> None:
    """Uploads a file that is as recorded; raises `StoreError` if it is not."""
    with storage(file):
        data = file.read_bytes()
    if ObjectRecord.of(data) != record:
        raise StoreError(
            "A file of this store is not as it was written, so it is not uploaded.",
            where=file,
            remedy="Remove it, then run the same `tosca extract` command again.",
        )
    access.write(key, data)


def unseal(access: Access, name: str, lease: Lease) -> None:
    """Steps 2 to 4, for a store that is complete below `sealed/`."""
    copy = see_manifest(access, name, f"{SEALED}/")
    if copy is None:
        raise damaged(access, f"{name}/{SEALED}", "what was sealed is gone.")
    wanted = records_in(load_remote(access, name, copy))
    keys = access.objects(f"{name}/{SEALED}").keys() & {*wanted, PROVENANCE}
    in_threads(lambda key: access.copy(f"{name}/{SEALED}/{key}", f"{name}/{key}"), keys)
    _vouch(access, name, wanted, copy.read_bytes(), lease)


def clear_away(access: Access, name: str) -> None:
    """Step 4. The plan goes first, so that nothing is taken for a store that is being built."""
    access.remove(f"{name}/{PLAN}")
    rest = [key for key in access.objects(name) if key.startswith((f"{DONE}/", f"{SEALED}/", "note."))]
    access.remove_all(f"{name}/{key}" for key in rest)


def _vouch(access: Access, name: str, wanted: Mapping[str, ObjectRecord], manifest: bytes, lease: Lease) -> None:
    there = access.objects(name)
    wrong = [key for key, record in wanted.items() if there.get(key) != record.size]
    if wrong:
        raise damaged(access, f"{name}/{wrong[0]}", f"{len(wrong)} objects are not as they were uploaded.")
    strange = there.keys() - wanted.keys() - {PLAN, PROVENANCE, MANIFEST_COPY}
    access.remove_all(f"{name}/{k}" for k in strange if not k.startswith((f"{DONE}/", f"{SEALED}/", "note.")))
    lease.check()
    access.write(f"{name}/{MANIFEST_COPY}", manifest)
    access.write(f"{name}/{MANIFEST}", manifest)
    clear_away(access, name)


def _listed(
    access: Access, name: str, there: Mapping[str, int], layouts: Mapping[str, SplitLayout]
) -> dict[str, ObjectRecord]:
    """{key: record} of everything that done-objects vouch for."""
    names = [key.removeprefix(f"{DONE}/") for key in there if key.startswith(f"{DONE}/")]
    found: dict[str, ObjectRecord] = {}

    def read(shard: Shard) -> None:
        done = read_done(access, name, shard, layouts)
        found.update({} if done is None else records_of(done))

    in_threads(read, listed_shards(names, layouts))
    return found
