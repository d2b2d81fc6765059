"""From the remote side into the mirror: whole objects, checked by their SHA-256, and finished stores made of them.

A store is fetched into `.NAME.fetching` and gets its name by one rename. What was fetched before an interruption is read
again, checked and kept.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from tosca_cache.errors import StoreError, ToscaWarning
from tosca_cache.files import Limit
from tosca_cache.store.disk import (
    ObjectRecord,
    regular_size,
    remove_tree,
    storage,
    sync_all,
    sync_folder,
    temporary_path,
    write_whole,
)
from tosca_cache.store.lock import FileLock
from tosca_cache.store.manifest import MANIFEST, MANIFEST_COPY, PLAN, PROVENANCE
from tosca_cache.store.remote.access import PATIENT, QUICK, Access, in_threads
from tosca_cache.store.remote.failures import Unreachable
from tosca_cache.store.remote.mirror import local_path, shown
from tosca_cache.store.remote.progress import transfer
from tosca_cache.store.remote.state import damaged, load_remote, mirror_and_access, records_in, see_manifest

BLOCK = 8 << 20  # bytes of one request
WANTED = "wanted.json"  # in a folder that is being fetched: the manifest, which gets its name last


def arrived(store: str | Path) -> Path:
    """The local folder of a store that is to be read: a path as it is, the address or mirror of a remote one after a fetch.

    A mirror that is complete and has the remote side's manifest is used as it is; and, with a `ToscaWarning`, one of a
    remote side that cannot be looked at. Raises `StoreError` for a remote store that is missing, unfinished or damaged.
    """
    path = local_path(store)
    try:
        found = mirror_and_access(path, QUICK)
        if found is None:
            return path
        mirror, access = found
        copy = see_manifest(access, path.name)
    except Unreachable as error:
        if not (path / MANIFEST).exists():
            raise
        warnings.warn(ToscaWarning(f"{error.problem} Using the copy in {path}."), stacklevel=2)
        return path
    if copy is None:
        _refuse_unfinished(access, path)
    elif not _is_copy(path, copy):
        fetch_store(Access(mirror, PATIENT), path, copy)
    return path


def fetch_store(access: Access, path: Path, copy: Path) -> None:
    """Fetches a finished store to `path`; an old one of other content is there until then.

    copy: its manifest. Raises `StoreError` for objects that are not what it says, and if the disk refuses.
    """
    with storage(path):
        lock = FileLock.acquire(path.parent / f".{path.name}.fetching.lock", wait=True)
    try:
        if not _is_copy(path, copy):
            _fetch(access, path, copy)
    finally:
        lock.release()


def fetch_object(access: Access, key: str, record: ObjectRecord, target: Path) -> bool:
    """Puts an object into a file if it is, byte for byte, the recorded one; otherwise returns False and leaves no file."""
    temporary = temporary_path(target)
    digest, size = hashlib.sha256(), 0
    with storage(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                while size < record.size:
                    block = access.read(key, size, min(size + BLOCK, record.size))
                    if not block:
                        return False
                    digest.update(block)
                    file.write(block)
                    size += len(block)
            if size == record.size and digest.hexdigest() == record.sha256:
                temporary.replace(target)
                return True
            return False
        finally:
            temporary.unlink(missing_ok=True)


def _fetch(access: Access, path: Path, copy: Path) -> None:
    manifest = load_remote(access, path.name, copy)
    records = records_in(manifest)
    target = path.parent / f".{path.name}.fetching"
    with storage(target):
        wanted = copy.read_bytes()
        if not any((target / name).exists() and (target / name).read_bytes() == wanted for name in (WANTED, MANIFEST)):
            remove_tree(target)
            target.mkdir()
            write_whole(target / WANTED, wanted)
    _check_sizes(access, path.name, records)
    here = {key for key, record in records.items() if _has(target / key, record)}
    left = sum(record.size for key, record in records.items() if key not in here)
    _check_space(path, left)
    with transfer(f"fetching {shown(path)}", left) as advance:
        in_threads(lambda key: _fetch_one(access, path, target, key, records[key], advance), records.keys() - here)
    provenance = access.read(f"{path.name}/{PROVENANCE}", 0, Limit.PROVENANCE + 1) or b""
    with storage(target):
        if 0 < len(provenance) <= Limit.PROVENANCE:
            write_whole(target / PROVENANCE, provenance)
        write_whole(target / MANIFEST_COPY, wanted)
        if (target / WANTED).exists():
            (target / WANTED).replace(target / MANIFEST)
        sync_all([target, *target.rglob("*")])
        _put_in_place(target, path)


def _fetch_one(
    access: Access, path: Path, target: Path, key: str, record: ObjectRecord, advance: Callable[[int], None]
) -> None:
    if not fetch_object(access, f"{path.name}/{key}", record, target / key):
        raise damaged(access, f"{path.name}/{key}", "this object is not the one that the manifest lists.")
    advance(record.size)


def _put_in_place(target: Path, path: Path) -> None:
    old = path.parent / f".{path.name}.old"
    remove_tree(old, MANIFEST)
    if path.exists():
        path.rename(old)
    target.rename(path)
    sync_folder(path.parent)
    remove_tree(old, MANIFEST)


def _is_copy(path: Path, copy: Path) -> bool:
    with storage(path):
        return regular_size(path / MANIFEST) == regular_size(copy) and (
            (path / MANIFEST).read_bytes() == copy.read_bytes()
        )


def _has(file: Path, record: ObjectRecord) -> bool:
    return regular_size(file) == record.size and ObjectRecord.of(file.read_bytes()) == record


def _check_sizes(access: Access, name: str, records: Mapping[str, ObjectRecord]) -> None:
    """Before anything is fetched: a manifest may claim what it likes, but not more than there is."""
    there = access.objects(name)
    for key, record in records.items():
        if there.get(key) != record.size:
            says = "is missing" if key not in there else f"has {there[key]} bytes instead of {record.size}"
            raise damaged(access, f"{name}/{key}", f"this object {says}.")


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise StoreError(
            f"The copy of this store needs {needed / 1e9:.1f} GB on this disk, which has {free / 1e9:.1f} GB left.",
            where=path.parent,
            remedy="Free space, or have the mirrors elsewhere: TOSCA_CACHE_HOME=FOLDER.",
        )


def _refuse_unfinished(access: Access, path: Path) -> None:
    """Raises `StoreError` if the remote side has not, or not any more, what this machine may have."""
    if PLAN in access.children(path.name):
        raise StoreError(
            "This store is unfinished: its extraction or its upload was interrupted, or is still running.",
            where=shown(path),
            remedy="Run the same `tosca extract` command again; what is done is kept.",
        )
    if (path / MANIFEST).exists():
        raise StoreError(
            "This store is not at its remote root any more; there is a copy of it here.",
            where=shown(path),
            remedy=f"Upload it again with the `tosca extract` command that made it, or remove {path}.",
        )
